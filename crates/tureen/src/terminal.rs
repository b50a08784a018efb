//! The one way to standard output and standard error. What comes from a file, a server or a model may hold codes that
//! move a terminal's cursor, recolour it or worse; a lint forbids `println!` everywhere in this crate.

use std::io::{IsTerminal, Write};

use anyhow::bail;

/// The same text with control characters but line ends and tabs shown as U+FFFD.
pub fn plain(text: &str) -> String {
    let shown = |c: char| if c.is_control() && !matches!(c, '\n' | '\t') { '\u{fffd}' } else { c };
    text.chars().map(shown).collect()
}

/// A line for whoever watches, on standard error; in tests nobody does. That nobody does any more is no failure.
pub fn say(line: impl AsRef<str>) {
    if !cfg!(test) {
        let _ = writeln!(std::io::stderr(), "{}", plain(line.as_ref()));
    }
}

/// What was asked for, on standard output: at once, and to a file or a pipe as it is.
///
/// # Errors
/// The output is closed, or the disk is full.
pub fn print(text: impl AsRef<str>) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    if out.is_terminal() {
        out.write_all(plain(text.as_ref()).as_bytes())?;
    } else {
        out.write_all(text.as_ref().as_bytes())?;
    }
    out.flush()
}

/// Whether somebody is there to be asked.
pub fn is_attended() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// Asks, and takes anything but yes for no.
///
/// # Errors
/// Nobody is there.
pub fn confirmed(question: &str) -> anyhow::Result<bool> {
    if !is_attended() {
        bail!("nobody is there to ask; say --yes");
    }
    write!(std::io::stderr(), "{} [y/N] ", plain(question))?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn control_characters_are_shown_and_not_obeyed() {
        assert_eq!(
            plain("a\u{1b}[2Jb\r\u{9b}31m\tc\nd\u{7f}"),
            "a\u{fffd}[2Jb\u{fffd}\u{fffd}31m\tc\nd\u{fffd}"
        );
        assert_eq!(plain("é 你 😀"), "é 你 😀");
    }
}
