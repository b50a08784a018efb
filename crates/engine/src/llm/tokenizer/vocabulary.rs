//! The bytes that each token stands for, in one table.

use super::TokenizerError;

/// More tokens than any published model has; a file that claims more is refused.
pub(super) const VOCABULARY_MAX: usize = 1 << 22;

/// How a vocabulary spells bytes in its tokens' texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spelling {
    /// GPT-2's alphabet of 256 printable characters.
    ByteLevel,
    /// SentencePiece: `▁` is a space, `<0xNN>` a byte.
    SentencePiece,
    Plain,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    /// `<0xNN>` of a SentencePiece vocabulary.
    Byte,
    /// Matched in any text and shown to users as it stands (`<think>`).
    UserDefined,
    /// Structure, not text (`<|im_start|>`): matched on request only.
    Control,
}

#[derive(Debug, Default)]
pub(super) struct Vocabulary {
    bytes: Vec<u8>,
    /// `ends[id]` closes the bytes of token `id`, which begin where the one before ends.
    ends: Vec<usize>,
    control: Vec<bool>,
    token_bytes_max: usize,
}

impl Vocabulary {
    pub fn push(&mut self, text: &str, kind: Kind, spelling: Spelling) {
        let begin = self.bytes.len();
        match (kind, spelling) {
            (Kind::Control | Kind::UserDefined, _) | (_, Spelling::Plain) => {
                self.bytes.extend_from_slice(text.as_bytes());
            }
            (Kind::Byte, _) => match parse_byte(text) {
                Some(byte) => self.bytes.push(byte),
                None => self.bytes.extend_from_slice(text.as_bytes()),
            },
            (Kind::Text, Spelling::SentencePiece) => {
                self.bytes.extend_from_slice(text.replace('▁', " ").as_bytes());
            }
            (Kind::Text, Spelling::ByteLevel) => push_byte_level(&mut self.bytes, text),
        }
        self.ends.push(self.bytes.len());
        self.control.push(kind == Kind::Control);
        self.token_bytes_max = self.token_bytes_max.max(self.bytes.len() - begin);
    }

    /// Of the longest token.
    pub fn token_bytes_max(&self) -> usize {
        self.token_bytes_max
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn bytes(&self, id: u32) -> &[u8] {
        let id = id as usize;
        let Some(&end) = self.ends.get(id) else { return &[] };
        let begin = if id == 0 { 0 } else { self.ends[id - 1] };
        &self.bytes[begin..end]
    }

    pub fn is_control(&self, id: u32) -> bool {
        self.control.get(id as usize).copied().unwrap_or(false)
    }
}

/// Whether a vocabulary can be tabulated.
pub(super) fn check_size(tokens: usize) -> Result<(), TokenizerError> {
    if tokens == 0 || tokens > VOCABULARY_MAX {
        return Err(TokenizerError::VocabularySize { tokens, limit: VOCABULARY_MAX });
    }
    Ok(())
}

/// `<0x0A>` -> 10.
pub(super) fn parse_byte(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2).then(|| u8::from_str_radix(digits, 16).ok())?
}

/// Bytes that GPT-2's alphabet writes as the character of the same number.
const fn is_printable(byte: u8) -> bool {
    matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff)
}

/// The others, in order.
const HIDDEN: [u8; 68] = {
    let mut hidden = [0; 68];
    let (mut byte, mut count) = (0, 0);
    while count < hidden.len() {
        if !is_printable(byte) {
            hidden[count] = byte;
            count += 1;
        }
        byte = byte.wrapping_add(1);
    }
    hidden
};

/// GPT-2's alphabet: printable bytes stand for themselves, the other 68 for the characters from U+0100 on.
fn push_byte_level(out: &mut Vec<u8>, text: &str) {
    for character in text.chars() {
        match character as u32 {
            code @ 0..=0xff if is_printable(code as u8) => out.push(code as u8),
            code @ 0x100..=0x143 => {
                out.push(HIDDEN[code as usize - 0x100]);
            }
            // Not of the alphabet: a token that was added as plain text.
            _ => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

/// Whether a token's text has the look of structure (`<|im_start|>`), however the file classes it: user text
/// must not turn into these.
pub(super) fn looks_like_control(text: &str) -> bool {
    let inner = |open, close| text.strip_prefix(open).and_then(|rest: &str| rest.strip_suffix(close));
    let marked = inner("<|", "|>").or_else(|| inner("<｜", "｜>"));
    let named = |c: char| c.is_alphanumeric() || matches!(c, '_' | '▁' | '-' | '.' | '/' | ':');
    marked.is_some_and(|name| !name.is_empty() && name.chars().all(named))
        || matches!(text, "<start_of_turn>" | "<end_of_turn>" | "[INST]" | "[/INST]" | "<<SYS>>" | "<</SYS>>")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, kind: Kind, spelling: Spelling, expected: &[u8]) {
        let mut vocabulary = Vocabulary::default();
        vocabulary.push("first", Kind::Text, Spelling::Plain);
        vocabulary.push(text, kind, spelling);
        assert_eq!(vocabulary.bytes(1), expected, "{text:?}");
    }

    #[test]
    fn tokens_stand_for_exact_bytes() {
        check("Ġhello", Kind::Text, Spelling::ByteLevel, b" hello");
        check("Ċ", Kind::Text, Spelling::ByteLevel, b"\n");
        check("Ã©", Kind::Text, Spelling::ByteLevel, "é".as_bytes());
        check("Ń", Kind::Text, Spelling::ByteLevel, b"\xad");
        check("▁a▁b", Kind::Text, Spelling::SentencePiece, b" a b");
        check("<0xE2>", Kind::Byte, Spelling::SentencePiece, b"\xe2");
        check("<0xE2>", Kind::Text, Spelling::SentencePiece, b"<0xE2>");
        check("<think>", Kind::UserDefined, Spelling::ByteLevel, b"<think>");
        check("日本", Kind::Text, Spelling::ByteLevel, "日本".as_bytes());
    }

    #[test]
    fn a_token_outside_the_vocabulary_has_no_bytes() {
        assert_eq!(Vocabulary::default().bytes(7), b"");
        assert!(!Vocabulary::default().is_control(u32::MAX));
    }

    #[test]
    fn structure_is_told_from_text() {
        for text in ["<|im_start|>", "<｜end▁of▁sentence｜>", "<end_of_turn>", "<|eot_id|>"] {
            assert!(looks_like_control(text), "{text}");
        }
        for text in ["<think>", "<||>", "<| a |>", "<div>", "|>", "<|"] {
            assert!(!looks_like_control(text), "{text}");
        }
    }
}
