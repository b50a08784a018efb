//! As much of Rust's grammar as the rules need: code with comments and literals blanked out, and where functions
//! begin and end.

/// One source file, reduced to what the rules look at.
pub struct Source {
    pub lines: usize,
    pub starts_with_module_doc: bool,
    pub functions: Vec<Function>,
    code: String,
}

pub struct Function {
    pub name: String,
    pub lines: usize,
}

impl Source {
    pub fn read(text: &str) -> Source {
        let code = blank_comments_and_literals(text);
        Source {
            lines: text.lines().count(),
            starts_with_module_doc: text.starts_with("//!"),
            functions: functions(&code),
            code,
        }
    }

    /// Whether `word` stands in code, not in a comment, a text or a longer name.
    pub fn has_word(&self, word: &str) -> bool {
        words(&self.code).any(|(_, found)| found == word)
    }
}

/// Names and keywords with their byte offsets.
fn words(code: &str) -> impl Iterator<Item = (usize, &str)> {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(is_name).filter_map(move |(at, _)| {
        let begins = !code[..at].chars().next_back().is_some_and(is_name);
        let rest = &code[at..];
        begins.then(|| (at, &rest[..rest.find(|c| !is_name(c)).unwrap_or(rest.len())]))
    })
}

/// Functions with a body; nested ones count on their own and in the one around them.
fn functions(code: &str) -> Vec<Function> {
    let mut found = Vec::new();
    let mut all = words(code).peekable();
    while let Some((at, word)) = all.next() {
        let Some((_, name)) = all.peek().filter(|_| word == "fn") else { continue };
        // The body opens at the first brace outside parentheses and brackets (array lengths may hold `;`).
        let mut depth = 0_i32;
        let mut braces = 0_i32;
        for (offset, c) in code[at..].char_indices() {
            match c {
                '(' | '[' if braces == 0 => depth += 1,
                ')' | ']' if braces == 0 => depth -= 1,
                ';' if depth == 0 && braces == 0 => break,
                '{' => braces += 1,
                '}' => braces -= 1,
                _ => continue,
            }
            if depth < 0 || braces < 0 {
                break; // `fn(…)` as a type, at the end of something around it
            }
            if c == '}' && braces == 0 {
                let lines = code[at..at + offset].matches('\n').count() + 1;
                found.push(Function { name: name.to_string(), lines });
                break;
            }
        }
    }
    found
}

/// The same text with comments, strings and characters replaced by spaces; line ends stay.
fn blank_comments_and_literals(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let previous_is_name = code.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment_len(rest)
        } else if first == '"' {
            string_len(rest, 0)
        } else if !previous_is_name && let Some(len) = raw_string_len(rest) {
            len
        } else if first == '\'' {
            character_len(rest)
        } else {
            0
        };
        if skipped == 0 {
            code.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            code.extend(rest[..skipped].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
            rest = &rest[skipped..];
        }
    }
    code
}

fn block_comment_len(rest: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < rest.len() {
        let tail = &rest.as_bytes()[at..];
        if tail.starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if tail.starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

/// Length of a string whose quote stands at byte `quote`, up to and with its closing quote.
fn string_len(rest: &str, quote: usize) -> usize {
    let bytes = rest.as_bytes();
    let mut at = quote + 1;
    while at < bytes.len() && bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

/// Length of `r"…"`, `r#"…"#`, `b"…"`, `br#"…"#` and the `c` kinds at the start of `rest`.
fn raw_string_len(rest: &str) -> Option<usize> {
    let prefix = rest.len() - rest.trim_start_matches(['r', 'b', 'c']).len();
    if prefix == 0 || prefix > 2 {
        return None;
    }
    let hashes = rest[prefix..].len() - rest[prefix..].trim_start_matches('#').len();
    let quote = prefix + hashes;
    if !rest[quote..].starts_with('"') {
        return None;
    }
    if !rest[..prefix].contains('r') {
        return (hashes == 0).then(|| string_len(rest, quote));
    }
    let close = format!("\"{}", "#".repeat(hashes));
    let body = quote + 1;
    Some(rest[body..].find(&close).map_or(rest.len(), |found| body + found + close.len()))
}

/// Length of a character literal, or 0 for a lifetime.
fn character_len(rest: &str) -> usize {
    let mut chars = rest[1..].char_indices();
    match chars.next() {
        Some((_, '\\')) => rest[3..].find('\'').map_or(0, |found| found + 4),
        Some(_) => match chars.next() {
            Some((at, '\'')) => at + 2,
            _ => 0,
        },
        None => 0,
    }
}

#[test]
fn literals_and_comments_are_not_code() {
    fn check(text: &str, has_unsafe: bool) {
        assert_eq!(Source::read(text).has_word("unsafe"), has_unsafe, "{text}");
    }
    check("fn f() { unsafe { g() } }", true);
    check("// unsafe\n/* unsafe /* unsafe */ unsafe */ fn f() {}", false);
    check(r####"let a = "unsafe"; let b = r#"" unsafe"#; let c = b"\" unsafe";"####, false);
    check("let quote = '\"'; unsafe {}", true);
    check("fn f<'a>(x: &'a str) { unsafe {} } // '", true);
    check("#![deny(unsafe_code)]", false);
}

#[test]
fn functions_are_measured_from_their_name_to_their_brace() {
    let source = Source::read(
        "trait T { fn a(&self); }\nfn b(x: [u8; 2]) -> [u8; 2] {\n  let c = \"}\";\n  x\n}\ntype F = fn(u8);\nfn d() {}",
    );
    let found: Vec<(&str, usize)> = source.functions.iter().map(|f| (f.name.as_str(), f.lines)).collect();
    assert_eq!(found, [("b", 4), ("d", 1)]);
}
