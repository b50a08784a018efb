//! What the engine's events make of the choices of one request: the same pieces whether the answer is streamed or
//! sent whole.

use std::time::Instant;

use engine::llm::request::{Event, FinishReason, TokenLogprob, Usage};

use super::error::ApiError;
use super::logprobs::chars_begun;
use crate::metrics::{Outcome, Record};

/// What one event adds to one choice.
#[derive(Debug, Default, PartialEq)]
pub struct Piece {
    pub index: usize,
    /// Nothing of this choice came before.
    pub first: bool,
    pub text: String,
    /// Of the tokens of this piece, where they were asked for.
    pub logprobs: Vec<TokenLogprob>,
    /// Characters of the choice before each of these tokens.
    pub offsets_chars: Vec<usize>,
    pub finish: Option<FinishReason>,
}

/// The choices of one request as far as they have come.
pub struct Answer {
    choices: Vec<Choice>,
    choices_per_prompt: usize,
    record: Record,
}

struct Choice {
    echo: Option<String>,
    started: bool,
    offset_chars: usize,
    previous_token: Option<Instant>,
    usage: Option<Usage>,
}

impl Answer {
    /// One choice an echo; those of the same prompt stand together.
    pub fn new(echoes: Vec<Option<String>>, choices_per_prompt: usize, record: Record) -> Answer {
        let choice =
            |echo| Choice { echo, started: false, offset_chars: 0, previous_token: None, usage: None };
        Answer { choices: echoes.into_iter().map(choice).collect(), choices_per_prompt, record }
    }

    pub fn choices(&self) -> usize {
        self.choices.len()
    }

    /// # Errors
    /// Where the engine couldn't finish a choice; the request as a whole has failed then.
    pub fn take(&mut self, index: usize, event: Event) -> Result<Piece, ApiError> {
        let choice = &mut self.choices[index];
        let first = !std::mem::replace(&mut choice.started, true);
        let echo = choice.echo.take().unwrap_or_default();
        choice.offset_chars += echo.chars().count();
        let mut piece = Piece { index, first, text: echo, ..Piece::default() };
        match event {
            Event::Prompt(tokens) => {
                piece.offsets_chars = echo_offsets(&piece.text, &tokens);
                piece.logprobs = tokens;
            }
            Event::Token(token) => {
                choice.previous_token = Some(self.record.token(choice.previous_token));
                piece.text.push_str(&token.text);
                if let Some(logprob) = token.logprob {
                    piece.offsets_chars.push(choice.offset_chars);
                    // The answer's text has no control tokens.
                    if !logprob.is_control {
                        choice.offset_chars += chars_begun(&logprob.bytes);
                    }
                    piece.logprobs.push(logprob);
                }
            }
            Event::Done { text, reason, usage } => {
                piece.text.push_str(&text);
                piece.finish = Some(reason);
                choice.usage = Some(usage);
            }
            Event::Failed(failure) => return Err(ApiError::failed(&failure)),
        }
        if self.choices.iter().all(|choice| choice.usage.is_some()) {
            self.record.answered(self.usage());
        }
        Ok(piece)
    }

    /// A request whose client was told `status` broke.
    pub fn fail(&mut self, status: u16) {
        self.record.end(Outcome::Failed(status));
    }

    /// Of all choices; a prompt counts once, and as cached only what each of its choices found in the cache.
    pub fn usage(&self) -> Usage {
        let mut sum = Usage::default();
        for choices in self.choices.chunks(self.choices_per_prompt.max(1)) {
            let usages = || choices.iter().filter_map(|choice| choice.usage);
            sum.prompt_tokens += usages().map(|usage| usage.prompt_tokens).max().unwrap_or(0);
            sum.cached_tokens += usages().map(|usage| usage.cached_tokens).min().unwrap_or(0);
            sum.completion_tokens += usages().map(|usage| usage.completion_tokens).sum::<usize>();
        }
        sum
    }
}

/// Characters of a prompt's echo before each of its tokens. What the echo doesn't have takes no place in it: a control
/// token that was put in front or is not shown, the space that some tokenisers put before a text.
fn echo_offsets(echo: &str, tokens: &[TokenLogprob]) -> Vec<usize> {
    let (mut rest, mut chars) = (echo.as_bytes(), 0);
    let offset = |token: &TokenLogprob| {
        let offset = chars;
        let bytes = token.bytes.as_slice();
        let spaceless = bytes.strip_prefix(b" ").unwrap_or(bytes);
        let len = match [bytes, spaceless].into_iter().find(|bytes| rest.starts_with(bytes)) {
            Some(bytes) => bytes.len(),
            None if token.is_control => 0,
            None => bytes.len().min(rest.len()),
        };
        chars += chars_begun(&rest[..len]);
        rest = &rest[len..];
        offset
    };
    tokens.iter().map(offset).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use engine::llm::request::{Failure, Token};

    use super::*;
    use crate::metrics::Metrics;

    fn answer(echoes: &[Option<&str>], choices_per_prompt: usize) -> Answer {
        let record = Record::begin(&Arc::new(Metrics::default()), "test", None);
        Answer::new(echoes.iter().map(|echo| echo.map(str::to_owned)).collect(), choices_per_prompt, record)
    }

    fn logprob(bytes: &str) -> TokenLogprob {
        TokenLogprob { id: 1, bytes: bytes.into(), is_control: false, logprob: -1.0, top: Vec::new() }
    }

    fn done(prompt_tokens: usize, cached_tokens: usize, completion_tokens: usize) -> Event {
        let usage = Usage { prompt_tokens, cached_tokens, completion_tokens };
        Event::Done { text: String::new(), reason: FinishReason::Stop, usage }
    }

    #[test]
    fn an_echo_comes_with_the_first_piece_and_moves_the_offsets() {
        let token =
            |text: &str| Event::Token(Token { id: 1, text: text.to_owned(), logprob: Some(logprob(text)) });
        let mut with_prompt = answer(&[Some("né")], 1);
        let piece = with_prompt.take(0, Event::Prompt(vec![logprob("n"), logprob("é")])).unwrap();
        assert_eq!(
            (piece.first, piece.text.as_str(), piece.offsets_chars, piece.logprobs.len()),
            (true, "né", vec![0, 1], 2)
        );
        let piece = with_prompt.take(0, token("x")).unwrap();
        assert_eq!((piece.first, piece.text.as_str(), piece.offsets_chars), (false, "x", vec![2]));
        let mut without = answer(&[Some("né")], 1);
        let piece = without.take(0, token("x")).unwrap();
        assert_eq!((piece.text.as_str(), piece.offsets_chars), ("néx", vec![2]));
    }

    #[test]
    fn what_the_text_does_not_show_moves_no_offsets() {
        let control = |bytes: &str| TokenLogprob { is_control: true, ..logprob(bytes) };
        let check = |echo: &str, tokens: &[TokenLogprob], expected: &[usize]| {
            assert_eq!(echo_offsets(echo, tokens), expected, "{echo}");
        };
        // Put in front; written by the caller; not shown.
        check("é<|a|>b", &[control("<s>"), logprob("é"), control("<|a|>"), logprob("b")], &[0, 0, 1, 6]);
        check("<s>a", &[control("<s>"), logprob("a")], &[0, 3]);
        check("ab", &[logprob("a"), control("<|a|>"), logprob("b")], &[0, 1, 1]);
        check("one two", &[control("<s>"), logprob(" one"), logprob(" two")], &[0, 0, 3]);
        check("", &[control("<s>")], &[0]);
        let mut answer = answer(&[None], 1);
        for (event, offset) in [(control("<|end|>"), 0), (logprob("a"), 0), (logprob("b"), 1)] {
            let token = Token { id: 1, text: String::new(), logprob: Some(event) };
            assert_eq!(answer.take(0, Event::Token(token)).unwrap().offsets_chars, [offset]);
        }
    }

    #[test]
    fn usage_counts_a_prompt_once_and_all_its_choices() {
        let mut answer = answer(&[None; 4], 2);
        for (index, event) in
            [done(10, 0, 1), done(10, 8, 2), done(20, 16, 3), done(20, 16, 4)].into_iter().enumerate()
        {
            answer.take(index, event).unwrap();
        }
        assert_eq!(answer.usage(), Usage { prompt_tokens: 30, cached_tokens: 16, completion_tokens: 10 });
    }

    #[test]
    fn a_choice_that_breaks_is_an_error() {
        let error = answer(&[None], 1).take(0, Event::Failed(Failure::Stopped)).unwrap_err();
        assert_eq!(error.json()["error"]["message"], "the answer broke off: the engine stopped");
        assert_eq!(error.status(), 500);
    }
}
