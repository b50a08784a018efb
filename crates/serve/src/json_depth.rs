//! How deep a JSON text nests, counted without parsing it: parsers recurse, so depth is limited before them.

/// Arrays and objects inside each other in what callers send.
pub const JSON_DEPTH_MAX: usize = 32;

/// Arrays and objects inside each other at the deepest place of `json`. What isn't JSON has some depth too; the
/// parser refuses it later.
pub fn json_depth(json: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0usize, 0);
    let mut bytes = json.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => skip_string(&mut bytes),
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

fn skip_string(bytes: &mut std::slice::Iter<'_, u8>) {
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => return,
            b'\\' => {
                bytes.next();
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_counts_what_is_outside_strings() {
        let check = |json: &str, expected: usize| assert_eq!(json_depth(json.as_bytes()), expected, "{json}");
        check("", 0);
        check("1", 0);
        check("[]", 1);
        check(r#"{"a":[1,{"b":2}],"c":[[]]}"#, 3);
        check(r#"["[[[[", "\"[[", "\\", [0]]"#, 2);
        check("]]]][[", 2);
        check(r#"["open [[["#, 1);
        check(&"[".repeat(100_000), 100_000);
    }
}
