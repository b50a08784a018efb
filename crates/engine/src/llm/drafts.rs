//! Guesses at the next tokens of an answer: how many pay, and those that are read out of what was said before. One step
//! then checks several tokens, and those that plain decoding would have chosen anyway are kept. The answer never changes.
//!
//! Source: prompt lookup decoding (Saxena 2023); the check is that of speculative decoding (Leviathan et al. 2023)
//! for a draft without probabilities, where the sampler itself decides. Lengths follow from its section 3.3: with a chance
//! `c` that a guess is right, `k` guesses bring `1 + c + ... + c^k` tokens.

/// Tokens that must have been said before, in a row, for what followed them to be a guess.
const KEY_TOKENS: usize = 3;
/// Chance of a guess out of what was said, before any was made.
const CHANCE_FIRST: f64 = 0.5;
/// Share of the newest guess in the chance.
const NEWEST: f64 = 0.15;
/// After so many wrong trials in a row the pause, which each doubles, grows no longer: 64 steps.
const MISSES_MAX: u32 = 6;

/// How likely a guess is right, going by those of late.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Chance(pub f64);

impl Chance {
    /// Of a guess of `guessed` tokens, the first `right` were right.
    pub fn learn(&mut self, guessed: usize, right: usize) {
        for _ in 0..right {
            self.0 += NEWEST * (1.0 - self.0);
        }
        if right < guessed {
            self.0 -= NEWEST * self.0;
        }
    }
}

/// What guessing costs, in seconds.
#[derive(Clone, Copy, Debug)]
pub struct Costs {
    /// An answer's share of a step without guesses.
    pub plain_s: f64,
    /// What checking a guess adds to the step.
    pub check_s: f64,
}

/// How many tokens to guess, and the tokens a second that are expected of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    pub length: usize,
    pub rate: f64,
}

/// The best number of guesses, of at most `most`, each of which takes `guess_s` before it is checked; 0 where none pays.
pub fn best(chance: Chance, costs: &Costs, guess_s: f64, most: usize) -> Choice {
    let mut best = Choice { length: 0, rate: 1.0 / costs.plain_s };
    let (mut tokens, mut all_right) = (1.0, 1.0);
    for length in 1..=most {
        all_right *= chance.0;
        tokens += all_right;
        let rate = tokens / (costs.plain_s + length as f64 * (costs.check_s + guess_s));
        if rate > best.rate {
            best = Choice { length, rate };
        }
    }
    best
}

/// How good the guesses were that one sequence made out of what it said.
pub struct Drafts {
    chance: Chance,
    /// Trials in a row that were wrong, as far as they make a difference.
    misses: u32,
    /// Steps until the next trial.
    pause: u32,
    /// The last choice was a trial: one guess though none is expected to pay.
    trial: bool,
}

impl Drafts {
    pub fn new() -> Drafts {
        Drafts { chance: Chance(CHANCE_FIRST), misses: 0, pause: 0, trial: false }
    }

    /// How many tokens of [`follows`] to guess. Where none pays, one is tried now and then, before anything else.
    pub fn choose(&mut self, costs: &Costs, most: usize) -> Choice {
        let choice = best(self.chance, costs, 0.0, most);
        self.trial = false;
        if choice.length > 0 || most == 0 {
            return choice;
        }
        if self.pause > 0 {
            self.pause -= 1;
            return choice;
        }
        self.trial = true;
        Choice { length: 1, rate: f64::INFINITY }
    }

    /// Of a guess of `guessed` tokens, the first `right` were right.
    pub fn learn(&mut self, guessed: usize, right: usize) {
        self.chance.learn(guessed, right);
        if self.trial {
            self.misses = if right == 0 { (self.misses + 1).min(MISSES_MAX) } else { 0 };
            self.pause = if right == 0 { 1 << self.misses } else { 0 };
        }
    }
}

/// What may come after `said`: what followed the last time that its last tokens were said, and on from there as if it
/// went in circles. `None` where they were not.
pub fn follows(said: &[u32]) -> Option<impl Iterator<Item = u32> + '_> {
    let (_, key) = said.split_at_checked(said.len().checked_sub(KEY_TOKENS)?)?;
    // The last time says most about this one.
    let before = said[..said.len() - 1].windows(KEY_TOKENS).rposition(|window| window == key)?;
    Some(said[before + KEY_TOKENS..].iter().copied().cycle())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHEAP: Costs = Costs { plain_s: 0.01, check_s: 0.001 };
    const DEAR: Costs = Costs { plain_s: 0.01, check_s: 0.009 };

    #[test]
    fn what_followed_the_last_time_is_guessed() {
        let check = |said: &[u32], expected: Option<[u32; 4]>| {
            let found: Option<Vec<u32>> = follows(said).map(|tokens| tokens.take(4).collect());
            assert_eq!(found, expected.map(Vec::from), "{said:?}");
        };
        check(&[], None);
        check(&[1, 2, 3], None);
        check(&[1, 2, 3, 4, 5, 6, 1, 2, 3], Some([4, 5, 6, 1]));
        check(&[1, 2, 3, 4, 1, 2, 3, 5, 1, 2, 3], Some([5, 1, 2, 3]));
        check(&[7, 7, 7, 7], Some([7, 7, 7, 7]));
        check(&[1, 2, 3, 4, 9, 2, 3], None);
    }

    #[test]
    fn as_many_are_guessed_as_bring_most_tokens_a_second() {
        let check = |chance: f64, guess_s: f64, costs: &Costs, expected: usize| {
            assert_eq!(best(Chance(chance), costs, guess_s, 8).length, expected, "{chance} {guess_s}");
        };
        check(1.0, 0.0, &CHEAP, 8);
        check(0.5, 0.0, &CHEAP, 2);
        check(0.05, 0.0, &CHEAP, 0);
        check(0.85, 0.004, &CHEAP, 2);
        check(0.4, 0.004, &CHEAP, 0);
        check(0.85, 0.0, &DEAR, 0);
        check(1.0, 0.0, &DEAR, 8);
        assert_eq!(best(Chance(1.0), &CHEAP, 0.0, 0).length, 0);
    }

    #[test]
    fn guesses_grow_while_they_are_right_and_pause_when_they_are_wrong() {
        let mut drafts = Drafts::new();
        for _ in 0..4 {
            let length = drafts.choose(&CHEAP, 20).length;
            assert!(length >= 2);
            drafts.learn(length, length);
        }
        assert!(drafts.choose(&CHEAP, 20).length > 8);
        for _ in 0..20 {
            drafts.learn(4, 0);
        }
        for pause in [2, 4, 8, 16, 32, 64, 64, 64] {
            assert_eq!(drafts.choose(&CHEAP, 20), Choice { length: 1, rate: f64::INFINITY });
            drafts.learn(1, 0);
            for _ in 0..pause {
                assert_eq!(drafts.choose(&CHEAP, 20).length, 0);
            }
        }
        // Each that is right is followed by another, until they pay again.
        for _ in 0..2 {
            assert_eq!(drafts.choose(&CHEAP, 20).length, 1);
            drafts.learn(1, 1);
        }
        assert!(drafts.choose(&CHEAP, 20).length > 0 && !drafts.trial);
    }
}
