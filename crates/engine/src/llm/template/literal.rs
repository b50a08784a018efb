//! Keeps what users write from being read as the structure of their conversation.

use std::collections::{BTreeSet, HashSet};

use serde_json::Value;

use crate::llm::tokenizer::LITERAL_MARK;

/// Finds control tokens in texts.
#[derive(Debug)]
pub(super) struct Literals {
    texts: HashSet<String>,
    /// Lengths that control tokens have, bytes.
    lengths: BTreeSet<usize>,
    /// Characters that they begin with.
    first: HashSet<char>,
}

impl Literals {
    pub fn new(control: &[String]) -> Literals {
        let texts: HashSet<String> = control.iter().filter(|text| !text.is_empty()).cloned().collect();
        Literals {
            lengths: texts.iter().map(String::len).collect(),
            first: texts.iter().filter_map(|text| text.chars().next()).collect(),
            texts,
        }
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
        let whole = |len: &usize| rest.get(..*len).is_some_and(|head| self.texts.contains(head));
        self.lengths.iter().any(whole)
            || self.lengths.last().is_some_and(|&longest| rest.len() < longest)
                && self.texts.iter().any(|text| text.starts_with(rest))
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
    fn keys_and_nested_values_are_marked_too() {
        let literals = Literals::new(&["<s>".into()]);
        let marked = literals.mark(&serde_json::json!({"<s>": ["<s>", 1, null]}));
        assert!(!marked.to_string().contains("<s>"));
    }
}
