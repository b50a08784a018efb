//! Text from outside, safe to show: what comes from a file, a server or a model may hold codes that move a terminal's
//! cursor, recolour it or worse.

/// The same text with control characters but line ends and tabs shown as U+FFFD.
pub fn plain(text: &str) -> String {
    let shown = |c: char| if c.is_control() && !matches!(c, '\n' | '\t') { '\u{fffd}' } else { c };
    text.chars().map(shown).collect()
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
