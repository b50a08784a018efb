//! Whether a draft model is worth its time: it guesses where that is expected to bring more tokens a second, going by how
//! many of its guesses were right of late and what they took. Where it isn't, one is tried now and then.

use std::time::Duration;

use super::drafts::{Chance, Choice, Costs, best};
use super::measured::Measured;
use super::pace::Pace;

/// Tokens that it may be behind, of one sequence, and still guess in the same step: some guesses that came from elsewhere.
const BEHIND_TOKENS_MAX: usize = 32;
/// Chance of its guesses before any was made, and the guesses that this counts for, as all do that were made before a trial.
const CHANCE_FIRST: f64 = 0.75;
const GUESSES_FIRST: f64 = 4.0;
/// Guesses of late that the chance is the mean of: with fewer, bad luck would end what pays.
const GUESSES_MAX: f64 = 25.0;
/// What a guess takes of a step before any was made.
const GUESS_SHARE_FIRST: f64 = 1.0 / 3.0;
/// What a token that it is behind takes of a guess, before that was measured.
const BEHIND_SHARE_FIRST: f64 = 0.1;
/// Guesses of a trial: the second has no more to evaluate than one token, so that it says what guesses take.
const TRIAL_GUESSES: usize = 2;
/// Steps before a trial, which double with each that finds nothing.
const PAUSE_STEPS: [u32; 2] = [8, 256];
/// What a trial may take, the tokens that the model is behind included: a share of the time since the last, and so long
/// at most.
const TRIAL_SHARE: f64 = 0.05;
const TRIAL_S_MAX: f64 = 1.0;

pub(super) struct Worth {
    chance: Chance,
    /// Guesses that the chance stands for.
    guesses: f64,
    /// What a guess takes.
    guess_s: Measured,
    /// What a token takes that it is behind.
    pace: Pace,
    /// Steps since it guessed.
    idle_steps: u32,
    /// Steps before the next trial.
    pause: u32,
    /// The last turn was one.
    is_trial: bool,
    /// It guessed nothing yet: what it does first reads weights and writes buffers that nobody touched before.
    is_cold: bool,
}

/// What the model is to do for a sequence.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Turn {
    Guess(Choice),
    /// Evaluate what was said before it can guess.
    CatchUp,
    Nothing,
}

impl Worth {
    /// Of a model whose steps may take so long.
    pub fn new(step_max: Duration) -> Worth {
        Worth {
            chance: Chance(CHANCE_FIRST),
            guesses: GUESSES_FIRST,
            guess_s: Measured::default(),
            pace: Pace::new(step_max),
            idle_steps: 0,
            pause: PAUSE_STEPS[0],
            is_trial: false,
            is_cold: true,
        }
    }

    /// What is worth while for an answer that is expected to have so many more tokens, of which at most `most` may be
    /// guessed now, where `behind` of what was said are to be evaluated before.
    pub fn turn(&mut self, costs: &Costs, most: usize, behind: usize, expected_tokens: usize) -> Turn {
        if most == 0 {
            return Turn::Nothing;
        }
        let guess_s = self.guess_s.get().unwrap_or(GUESS_SHARE_FIRST * costs.plain_s);
        let behind_s = behind as f64 * self.pace.token_s().unwrap_or(BEHIND_SHARE_FIRST * guess_s);
        let choice = best(self.chance, costs, guess_s, most);
        self.is_trial = choice.length == 0;
        let (choice, is_worth_while) = if self.is_trial {
            let length = TRIAL_GUESSES.min(most);
            let trial_s = behind_s + length as f64 * (guess_s + costs.check_s);
            let may_take_s = TRIAL_SHARE * f64::from(self.idle_steps) * costs.plain_s;
            let is_due = self.idle_steps >= self.pause && trial_s <= may_take_s.min(TRIAL_S_MAX);
            (Choice { length, ..choice }, is_due)
        } else {
            let gain_s = costs.plain_s - 1.0 / choice.rate;
            (choice, behind_s <= gain_s * expected_tokens as f64)
        };
        match (is_worth_while, behind > BEHIND_TOKENS_MAX) {
            (false, _) => Turn::Nothing,
            (true, true) => Turn::CatchUp,
            (true, false) => Turn::Guess(choice),
        }
    }

    /// How many tokens that it is behind to evaluate at once.
    pub fn catch_up_tokens(&self) -> usize {
        self.pace.prompt_tokens(0)
    }

    /// It evaluated so many tokens that it was behind.
    pub fn learn_behind(&mut self, tokens: usize, took: Duration) {
        if !self.is_cold {
            self.pace.learn(tokens, took);
        }
    }

    /// It made `guesses` guesses in so long, and the last of them alone took `last`. Where it guesses for good, what it has
    /// to evaluate before belongs to what a guess takes: it is behind after each guess that came from elsewhere.
    pub fn learn_guesses(&mut self, guesses: usize, took: Duration, last: Duration) {
        if !self.is_cold {
            let each = took.as_secs_f64() / guesses.max(1) as f64;
            self.guess_s.learn(if self.is_trial { last.as_secs_f64() } else { each });
        }
    }

    /// There was a step of answers.
    pub fn count_step(&mut self) {
        self.idle_steps = self.idle_steps.saturating_add(1);
    }

    /// Of `guessed` tokens, the first `right` were right.
    pub fn learn(&mut self, guessed: usize, right: usize) {
        if self.is_trial {
            self.guesses = self.guesses.min(GUESSES_FIRST);
            self.pause = (2 * self.pause).min(PAUSE_STEPS[1]);
        } else {
            self.pause = PAUSE_STEPS[0];
        }
        (self.idle_steps, self.is_cold) = (0, false);
        let outcomes = std::iter::repeat_n(1.0, right).chain((right < guessed).then_some(0.0));
        for outcome in outcomes {
            self.guesses = (self.guesses + 1.0).min(GUESSES_MAX);
            self.chance.0 += (outcome - self.chance.0) / self.guesses;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKENS: usize = 2000;
    const PLAIN_MS: f64 = 16.0;

    /// A draft model: what a guess takes, and the share of its guesses that are right.
    #[derive(Clone, Copy)]
    struct Pair {
        guess_ms: f64,
        chance: f64,
    }

    /// What an answer takes of what it would without guesses, and the steps before the first with none.
    fn answer(worth: &mut Worth, pair: Pair, behind_first: usize) -> (f64, Option<usize>) {
        let costs = Costs { plain_s: PLAIN_MS / 1e3, check_s: 1e-3 };
        let ms = |ms: f64| Duration::from_secs_f64(ms / 1e3);
        let (mut said, mut behind, mut total_ms) = (0, behind_first, 0.0);
        let (mut steps, mut ended, mut state) = (0, None, 7u64);
        let mut is_right = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 33) as f64 / (1u64 << 31) as f64) < pair.chance
        };
        while said < TOKENS {
            let expected = said.max(64).min(TOKENS - said);
            let (mut right, mut length) = (0, 0);
            match worth.turn(&costs, 8.min(TOKENS - said - 1), behind, expected) {
                Turn::Nothing => {
                    ended.get_or_insert(steps);
                }
                Turn::CatchUp => {
                    let rows = worth.catch_up_tokens().min(256).min(behind - 1);
                    let took_ms = rows as f64 * pair.guess_ms / 10.0;
                    worth.learn_behind(rows, ms(took_ms));
                    (total_ms, behind) = (total_ms + took_ms, behind - rows);
                }
                Turn::Guess(choice) => {
                    length = choice.length;
                    // The first is held up, by reading what was never read before.
                    let cold = if steps == 0 { 5.0 } else { 1.0 };
                    let first_ms = cold * pair.guess_ms * (1.0 + (behind - 1) as f64 / 10.0);
                    let took_ms = first_ms + (length - 1) as f64 * pair.guess_ms;
                    worth.learn_behind(behind, ms(first_ms));
                    worth.learn_guesses(length, ms(took_ms), ms(pair.guess_ms));
                    total_ms += took_ms;
                    right = (0..length).take_while(|_| is_right()).count();
                    worth.learn(length, right);
                }
            }
            worth.count_step();
            behind = if length > 0 { 1 + usize::from(right == length) } else { behind + 1 };
            total_ms += PLAIN_MS + length as f64;
            (said, steps) = (said + 1 + right, steps + 1);
        }
        (total_ms / (PLAIN_MS * TOKENS as f64), ended)
    }

    #[test]
    fn it_guesses_where_it_pays_and_costs_little_where_not() {
        for behind in [1, 20, 500] {
            let check = |pair: Pair, least: f64, most: f64| {
                let mut worth = Worth::new(Duration::from_millis(60));
                let (share, ended) = answer(&mut worth, pair, behind);
                let Pair { guess_ms, chance } = pair;
                assert!((least..most).contains(&share), "{guess_ms} ms, {chance}, {behind} behind: {share}");
                (worth, ended)
            };
            // Three times as fast and right four times of five, then ten times as fast.
            check(Pair { guess_ms: 5.3, chance: 0.8 }, 0.70, 0.78);
            check(Pair { guess_ms: 1.6, chance: 0.8 }, 0.45, 0.55);
            for (guess_ms, chance) in [(5.3, 0.0), (5.3, 0.3), (5.3, 0.5), (14.0, 0.8), (30.0, 0.8)] {
                let (mut worth, ended) = check(Pair { guess_ms, chance }, 0.95, 1.06);
                assert!(
                    chance > 0.4 || ended.is_some_and(|steps| steps < 20),
                    "it goes on for {ended:?} steps"
                );
                // It comes back when guesses become fast and right, from a short beginning on.
                let (share, _) = answer(&mut worth, Pair { guess_ms: 1.6, chance: 0.8 }, 20);
                assert!(share < 0.9, "{guess_ms} ms, {chance}, {behind} behind: then {share}");
            }
        }
    }

    #[test]
    fn a_trial_takes_a_second_at_most_whatever_the_pause() {
        let mut worth = Worth::new(Duration::from_millis(60));
        (0..20).for_each(|_| worth.learn(1, 0));
        let costs = Costs { plain_s: 0.016, check_s: 0.001 };
        assert_eq!(worth.turn(&costs, 8, 1, 100), Turn::Nothing);
        (0..100_000).for_each(|_| worth.count_step());
        assert_eq!(worth.turn(&costs, 8, 1_000_000, 100), Turn::Nothing);
        assert_eq!(worth.turn(&costs, 8, 1000, 100), Turn::CatchUp);
        assert!(matches!(worth.turn(&costs, 8, 1, 100), Turn::Guess(Choice { length: TRIAL_GUESSES, .. })));
        worth.learn(2, 0);
        assert_eq!(worth.turn(&costs, 8, 1, 100), Turn::Nothing);
    }
}
