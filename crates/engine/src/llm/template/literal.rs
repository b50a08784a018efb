//! Keeps what users write from being read as the structure of their conversation.

use std::collections::HashSet;

use serde_json::Value;

use crate::llm::tokenizer::LITERAL_MARK;

/// Finds control tokens in texts.
#[derive(Debug)]
pub(super) struct Literals {
    /// Rising, so that those that begin alike stand together.
    texts: Vec<String>,
    /// Characters that they begin with.
    first: HashSet<char>,
}

impl Literals {
    pub fn new(control: &[String]) -> Literals {
        let mut texts: Vec<String> = control.iter().filter(|text| !text.is_empty()).cloned().collect();
        texts.sort_unstable();
        Literals { first: texts.iter().filter_map(|text| text.chars().next()).collect(), texts }
    }

    /// The value with a mark inside each control token of its strings and keys.
    pub fn mark(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.mark_text(text)),
            Value::Array(items) => items.iter().map(|item| self.mark(item)).collect(),
            Value::Object(fields) => Value::Object(
                fields.iter().map(|(key, item)| (self.mark_text(key), self.mark(item))).collect(),
            ),
            other => other.clone(),
        }
    }

    /// The mark goes after the first character of each control token, and of each beginning of one at the end
    /// of the text: a template may put two texts side by side.
    fn mark_text(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        for (start, character) in text.char_indices() {
            out.push(character);
            if self.first.contains(&character) && self.begins_control(&text[start..]) {
                out.push(LITERAL_MARK);
            }
        }
        out
    }

    fn begins_control(&self, rest: &str) -> bool {
        // Those that begin as `rest` does, by a byte more each time.
        let mut texts = self.texts.as_slice();
        for (at, byte) in rest.bytes().enumerate() {
            match texts.first() {
                None => return false,
                // The whole token, which goes before those that it is the beginning of.
                Some(text) if text.len() == at => return true,
                Some(_) => {}
            }
            let begin = texts.partition_point(|text| text.as_bytes()[at] < byte);
            let end = texts.partition_point(|text| text.as_bytes()[at] <= byte);
            texts = &texts[begin..end];
        }
        !texts.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let literals = Literals::new(&["<|end|>".into(), "<s>".into(), "".into()]);
        assert_eq!(literals.mark_text(text), expected.replace('^', &LITERAL_MARK.to_string()), "{text:?}");
    }

    #[test]
    fn control_tokens_and_their_beginnings_at_the_end_are_marked() {
        check("a <|end|> b", "a <^|end|> b");
        check("<<s>>", "<<^s>>");
        check("1 < 2 <b> <|en d", "1 < 2 <b> <|en d");
        check("<|en", "<^|en");
        check("<", "<^");
        check("", "");
    }

    #[test]
    fn one_token_may_be_the_beginning_of_another() {
        let literals = Literals::new(&["<s>".into(), "<s".into(), "<é>".into(), "<s>".into()]);
        let check = |text: &str, expected: &str| {
            assert_eq!(
                literals.mark_text(text),
                expected.replace('^', &LITERAL_MARK.to_string()),
                "{text:?}"
            );
        };
        check("<s <s> <t> <é>", "<^s <^s> <t> <^é>");
        check("<ê <é", "<ê <^é");
    }

    #[test]
    fn many_short_texts_and_thousands_of_control_tokens_take_no_time() {
        let control: Vec<String> = (0..10_000).map(|number| format!("<|reserved_{number}|>")).collect();
        let literals = Literals::new(&control);
        let texts = serde_json::json!(vec!["<x"; 200_000]);
        let begun = std::time::Instant::now();
        assert_eq!(literals.mark(&texts), texts);
        // Each with each took 20 s, optimised.
        assert!(begun.elapsed() < std::time::Duration::from_secs(5), "{:?}", begun.elapsed());
    }

    #[test]
    fn keys_and_nested_values_are_marked_too() {
        let literals = Literals::new(&["<s>".into()]);
        let marked = literals.mark(&serde_json::json!({"<s>": ["<s>", 1, null]}));
        assert!(!marked.to_string().contains("<s>"));
    }
}
