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
    /// Characters of the choice before the first of these tokens.
    pub offset_chars: usize,
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
        let mut piece =
            Piece { index, first, text: echo, offset_chars: choice.offset_chars, ..Piece::default() };
        match event {
            Event::Prompt(tokens) => piece.logprobs = tokens,
            Event::Token(token) => {
                choice.previous_token = Some(self.record.token(choice.previous_token));
                // An echoed prompt without log-probabilities comes before the first token, in the same piece.
                if first && token.logprob.is_some() {
                    piece.offset_chars += piece.text.chars().count();
                }
                piece.text.push_str(&token.text);
                piece.logprobs.extend(token.logprob);
            }
            Event::Done { text, reason, usage } => {
                piece.text.push_str(&text);
                piece.finish = Some(reason);
                choice.usage = Some(usage);
            }
            Event::Failed(why) => return Err(ApiError::internal(format!("the answer broke off: {why}"))),
        }
        let begun: usize = piece.logprobs.iter().map(|token| chars_begun(&token.bytes)).sum();
        choice.offset_chars = piece.offset_chars + begun;
        if self.choices.iter().all(|choice| choice.usage.is_some()) {
            self.record.end(Outcome::Answered);
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use engine::llm::request::Token;

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
            (piece.first, piece.text.as_str(), piece.offset_chars, piece.logprobs.len()),
            (true, "né", 0, 2)
        );
        let piece = with_prompt.take(0, token("x")).unwrap();
        assert_eq!((piece.first, piece.text.as_str(), piece.offset_chars), (false, "x", 2));
        let mut without = answer(&[Some("né")], 1);
        let piece = without.take(0, token("x")).unwrap();
        assert_eq!((piece.text.as_str(), piece.offset_chars), ("néx", 2));
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
        let error = answer(&[None], 1).take(0, Event::Failed("no memory".to_owned())).unwrap_err();
        assert_eq!(error.json()["error"]["message"], "the answer broke off: no memory");
        assert_eq!(error.status(), 500);
    }
}
