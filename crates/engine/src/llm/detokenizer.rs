//! Bytes of tokens in, settled text out: whole characters only, and nothing of a stop text.

/// Puts together the text of one answer. Bytes that form no UTF-8 become U+FFFD as `String::from_utf8_lossy` does.
#[derive(Clone, Debug)]
pub struct Detokenizer {
    stops: Vec<String>,
    /// The beginning of a character: at most 3 bytes.
    incomplete: Vec<u8>,
    /// Text that may turn out to begin a stop; shorter than the longest of them.
    held: String,
    stopped: bool,
}

/// What a push settled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pushed {
    pub text: String,
    /// A stop text was found. It is no part of the answer, nor is what follows.
    pub stopped: bool,
}

impl Detokenizer {
    /// The answer ends before the stop text that is completed first; of several that end at the same place,
    /// the longest. Thus it doesn't matter how the text is split into tokens. Empty stops are ignored.
    pub fn new(stop: Vec<String>) -> Detokenizer {
        let stops = stop.into_iter().filter(|stop| !stop.is_empty()).collect();
        Detokenizer { stops, incomplete: Vec::new(), held: String::new(), stopped: false }
    }

    /// Takes the bytes of the next token.
    pub fn push(&mut self, bytes: &[u8]) -> Pushed {
        if self.stopped {
            return Pushed { text: String::new(), stopped: true };
        }
        self.incomplete.extend_from_slice(bytes);
        let settled = decode(&self.incomplete, &mut self.held);
        self.incomplete.drain(..settled);
        if let Some(text) = self.cut_at_stop() {
            return Pushed { text, stopped: true };
        }
        let keep = self.stops.iter().map(|stop| overlap(&self.held, stop)).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - keep);
        Pushed { text: std::mem::replace(&mut self.held, rest), stopped: false }
    }

    /// The text that was held back, once no more bytes will come. The beginning of a character that an answer's
    /// limit cut through is dropped.
    pub fn finish(&mut self) -> String {
        if self.stopped {
            return String::new();
        }
        self.incomplete.clear();
        self.cut_at_stop().unwrap_or_else(|| std::mem::take(&mut self.held))
    }

    /// The text before the first stop, if there is one.
    fn cut_at_stop(&mut self) -> Option<String> {
        let found = self.stops.iter().filter_map(|stop| {
            let start = self.held.find(stop.as_str())?;
            Some((start + stop.len(), start))
        });
        let (_, start) = found.min()?;
        self.stopped = true;
        let mut text = std::mem::take(&mut self.held);
        text.truncate(start);
        Some(text)
    }
}

/// Appends the text of `bytes` and returns how many of them are settled: all but the beginning of a character.
fn decode(bytes: &[u8], out: &mut String) -> usize {
    let mut settled = 0;
    loop {
        let rest = &bytes[settled..];
        match std::str::from_utf8(rest) {
            Ok(text) => {
                out.push_str(text);
                return bytes.len();
            }
            Err(error) => {
                let valid = error.valid_up_to();
                out.push_str(&String::from_utf8_lossy(&rest[..valid]));
                settled += valid;
                let Some(invalid) = error.error_len() else { return settled };
                out.push(char::REPLACEMENT_CHARACTER);
                settled += invalid;
            }
        }
    }
}

/// Bytes at the end of `text` that `stop` begins with, without being all of it.
fn overlap(text: &str, stop: &str) -> usize {
    let longest = text.len().min(stop.len() - 1);
    let fits = |len: &usize| stop.is_char_boundary(*len) && text.ends_with(&stop[..*len]);
    (1..=longest).rev().find(fits).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Pushes the pieces; what came out of each push and of the end.
    fn run(pieces: &[&[u8]], stops: &[&str]) -> (Vec<String>, bool) {
        let mut detokenizer = Detokenizer::new(stops.iter().map(|stop| (*stop).to_owned()).collect());
        let mut texts = Vec::new();
        let mut stopped = false;
        for piece in pieces {
            let pushed = detokenizer.push(piece);
            texts.push(pushed.text);
            stopped = pushed.stopped;
        }
        texts.push(detokenizer.finish());
        (texts, stopped)
    }

    fn check(pieces: &[&[u8]], stops: &[&str], expected: &[&str], stopped: bool) {
        let (texts, found) = run(pieces, stops);
        assert_eq!(texts, expected, "{pieces:?} {stops:?}");
        assert_eq!(found, stopped, "{pieces:?} {stops:?}");
    }

    #[test]
    fn characters_come_whole() {
        check(&[b"\xf0\x9f", b"\x99\x82!"], &[], &["", "🙂!", ""], false);
        check(&[b"caf\xc3", b"\xa9"], &[], &["caf", "é", ""], false);
    }

    #[test]
    fn bytes_that_form_no_character_are_replaced() {
        check(&[b"a\xff", b"b"], &[], &["a\u{fffd}", "b", ""], false);
        check(&[b"\xe2\x82", b"a"], &[], &["", "\u{fffd}a", ""], false);
        check(&[b"a\xff\xe2\x82"], &[], &["a\u{fffd}", ""], false);
    }

    #[test]
    fn stops_are_found_across_tokens() {
        check(&[b"one EN", b"D two"], &["END"], &["one ", "", ""], true);
        check(&[b"one EN", b"T"], &["END"], &["one ", "ENT", ""], false);
        check(&[b"one EN"], &["END"], &["one ", "EN"], false);
        check(&[b"a\n", b"\nb"], &["\n\n"], &["a", "", ""], true);
        check(&[b"\xc3", b"\xa9t\xc3\xa9"], &["té"], &["", "é", ""], true);
    }

    #[test]
    fn the_stop_that_ends_first_counts() {
        check(&[b"xabc"], &["abc", "b"], &["xa", ""], true);
        check(&[b"xabc"], &["abc", "bc"], &["x", ""], true);
        check(&[b"x"], &["", "x"], &["", ""], true);
    }

    #[test]
    fn after_a_stop_nothing_follows() {
        check(&[b"a.", b"b", b"."], &["."], &["a", "", "", ""], true);
    }

    /// The definition: lossy text of all bytes but a character's beginning at the end, cut before the stop that is
    /// completed first.
    fn reference(bytes: &[u8], stops: &[String]) -> String {
        let incomplete = bytes.utf8_chunks().last().map_or(0, |chunk| {
            let cut =
                std::str::from_utf8(chunk.invalid()).err().is_some_and(|error| error.error_len().is_none());
            if cut { chunk.invalid().len() } else { 0 }
        });
        let text = String::from_utf8_lossy(&bytes[..bytes.len() - incomplete]).into_owned();
        let first = (0..=text.len()).filter(|end| text.is_char_boundary(*end)).find_map(|end| {
            let ending = stops.iter().filter(|stop| !stop.is_empty() && text[..end].ends_with(stop.as_str()));
            ending.map(|stop| end - stop.len()).min()
        });
        text[..first.unwrap_or(text.len())].to_owned()
    }

    fn byte() -> impl Strategy<Value = u8> {
        prop_oneof![4 => prop::sample::select(b"ab\n".to_vec()),
            2 => prop::sample::select(vec![0xc3, 0xa9, 0xf0, 0x9f, 0x99, 0x82, 0xe2, 0x82, 0xac, 0xff]),
            1 => any::<u8>()]
    }

    proptest! {
        #[test]
        fn pieces_add_up_to_the_text_before_the_stop(
            pieces in prop::collection::vec(prop::collection::vec(byte(), 0..6), 0..12),
            stops in prop::collection::vec("[abé\n€\u{fffd}]{0,4}", 0..4),
        ) {
            let mut detokenizer = Detokenizer::new(stops.clone());
            let mut text = String::new();
            for piece in &pieces {
                text.push_str(&detokenizer.push(piece).text);
            }
            text.push_str(&detokenizer.finish());
            prop_assert_eq!(text, reference(&pieces.concat(), &stops));
        }
    }
}
