//! Who guesses the next tokens of which answer: what it said before, or a model. Whatever is expected to bring most
//! tokens a second goes first, going by what steps took and how many guesses were right of late; so guessing ends where
//! it doesn't pay. Times decide how much is guessed, and never what is said.

use std::time::Duration;

use super::draft_model::{DraftModel, SEQUENCES_MAX};
use super::draft_worth::Turn;
use super::drafts::{Costs, follows};
use super::measured::Measured;
use super::pages::Pages;
use super::sequence::{Advanced, Sequence};

/// Steps with guesses after which one has none, to see what that costs.
const PLAIN_AFTER_STEPS: u32 = 32;
/// What checking a guess is taken to add to a step before it was measured.
const CHECK_SHARE_FIRST: f64 = 0.1;

pub(super) struct Guessing {
    /// Tokens guessed ahead of an answer, at most.
    tokens_max: usize,
    model: Option<DraftModel>,
    /// What a step takes, in seconds, that evaluates a token of each of so many answers and nothing else.
    plain_s: [Measured; SEQUENCES_MAX],
    /// What a guess adds to it.
    check_s: Measured,
    /// Steps since the last without guesses.
    since_plain: u32,
}

impl Guessing {
    pub fn new(tokens_max: usize, model: Option<DraftModel>) -> Guessing {
        let (plain_s, check_s) = Default::default();
        Guessing { tokens_max, model, plain_s, check_s, since_plain: 0 }
    }

    /// Guesses for those of `running` that answer, `answering` of them, at most `rows` tokens in all. Only few answers
    /// leave a step the time for more rows.
    pub fn guess(&mut self, running: &mut [Sequence], pages: &mut Pages, answering: usize, mut rows: usize) {
        let Some(costs) = self.costs(answering) else { return };
        let mut asked = Vec::with_capacity(SEQUENCES_MAX);
        for sequence in running.iter_mut().filter(|sequence| sequence.is_answering()) {
            let most = sequence.make_room_for_guesses(self.tokens_max.min(rows), pages);
            let follow = follows(sequence.said()).map(|follow| follow.take(most).collect::<Vec<u32>>());
            let lookup = follow.as_ref().map(|_| sequence.drafts.choose(&costs, most));
            let mut model = self.model.as_mut();
            let turn = model.as_mut().map_or(Turn::Nothing, |m| m.choose(sequence, pages, &costs, most));
            let model_rate = if let Turn::Guess(choice) = turn { choice.rate } else { 0.0 };
            match (lookup, follow) {
                (Some(choice), Some(follow)) if choice.length > 0 && choice.rate >= model_rate => {
                    follow[..choice.length].iter().for_each(|token| sequence.add_guess(*token));
                    rows -= choice.length;
                }
                _ => match (turn, model) {
                    (Turn::Guess(choice), Some(_)) => {
                        rows -= choice.length;
                        asked.push((sequence, choice.length));
                    }
                    (Turn::CatchUp, Some(model)) => model.catch_up(sequence, pages),
                    _ => {}
                },
            }
        }
        if let Some(model) = self.model.as_mut().filter(|_| !asked.is_empty()) {
            asked.iter_mut().for_each(|(sequence, _)| sequence.set_guessed_by_model());
            model.guess(&mut asked, pages);
        }
    }

    /// What guessing costs beside so many answers; `None` where there is to be none.
    fn costs(&self, answering: usize) -> Option<Costs> {
        let plain_s = self.plain_s.get(answering.checked_sub(1)?)?.get()?;
        let is_on = self.tokens_max > 0 && self.since_plain < PLAIN_AFTER_STEPS;
        is_on.then(|| Costs {
            // What a guess is held against is what all answers gain by a step.
            plain_s: plain_s / answering as f64,
            check_s: self.check_s.get().unwrap_or(CHECK_SHARE_FIRST * plain_s),
        })
    }

    /// A step of so many answers with so many guesses, and no prompts, took so long.
    pub fn learn_step(&mut self, answering: usize, guessed: usize, took: Duration) {
        let Some(plain_s) = answering.checked_sub(1).and_then(|index| self.plain_s.get_mut(index)) else {
            return;
        };
        self.model.iter_mut().for_each(|model| model.worth.count_step());
        let took = took.as_secs_f64();
        if guessed == 0 {
            self.since_plain = 0;
            plain_s.learn(took);
            return;
        }
        self.since_plain += 1;
        let Some(plain_s) = plain_s.get() else { return };
        self.check_s.learn((took - plain_s).max(0.0) / guessed as f64);
    }

    /// What became of the guesses for one sequence.
    pub fn learn(&mut self, advanced: &Advanced) {
        if let Some(model) = self.model.as_mut().filter(|_| advanced.by_model) {
            model.worth.learn(advanced.drafted, advanced.right);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The costs in milliseconds.
    fn costs(guessing: &Guessing, answering: usize) -> Option<[f64; 2]> {
        let Costs { plain_s, check_s } = guessing.costs(answering)?;
        Some([plain_s, check_s].map(|seconds| (seconds * 1e4).round() / 10.0))
    }

    #[test]
    fn costs_are_what_steps_took_with_guesses_and_without() {
        let ms = Duration::from_millis;
        let mut guessing = Guessing::new(8, None);
        assert_eq!(costs(&guessing, 1), None);
        guessing.learn_step(1, 0, ms(10));
        assert_eq!([costs(&guessing, 1), costs(&guessing, 2)], [Some([10.0, 1.0]), None]);
        guessing.learn_step(1, 4, ms(18));
        assert_eq!(costs(&guessing, 1), Some([10.0, 2.0]));
        guessing.learn_step(2, 0, ms(12));
        assert_eq!(costs(&guessing, 2), Some([6.0, 2.0]));
        // One that was held up changes nothing, as more answers than it guesses for do.
        guessing.learn_step(1, 0, ms(5000));
        guessing.learn_step(3, 0, ms(1));
        assert_eq!(
            [costs(&guessing, 1), costs(&guessing, 3), costs(&guessing, 0)],
            [Some([10.0, 2.0]), None, None]
        );
        assert_eq!(costs(&Guessing { tokens_max: 0, ..guessing }, 1), None);
    }

    #[test]
    fn a_step_without_guesses_is_measured_now_and_then() {
        let mut guessing = Guessing::new(8, None);
        guessing.learn_step(1, 0, Duration::from_millis(10));
        for _ in 0..PLAIN_AFTER_STEPS {
            assert!(guessing.costs(1).is_some());
            guessing.learn_step(1, 2, Duration::from_millis(11));
        }
        assert!(guessing.costs(1).is_none());
        guessing.learn_step(1, 0, Duration::from_millis(10));
        assert!(guessing.costs(1).is_some());
    }
}
