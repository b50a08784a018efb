//! Guesses at the next tokens of an answer, out of what prompt and answer said before: one step then checks several
//! tokens, and those that plain decoding would have chosen anyway are kept. The answer never changes.
//!
//! Source: prompt lookup decoding (Saxena 2023); the check is that of speculative decoding (Leviathan et al. 2023)
//! for a draft without probabilities, where the sampler itself decides.

/// Tokens that must have been said before, in a row, for what followed them to be a guess.
const KEY_TOKENS: usize = 3;
/// Tokens of the first guess.
const FIRST_LENGTH: usize = 4;
/// After so many wrong guesses in a row the pause, which each doubles, grows no longer: 64 steps.
const MISSES_MAX: u32 = 6;

/// How good the guesses of one sequence were, and so how long the next one is.
pub struct Drafts {
    /// Tokens of the next guess.
    length: usize,
    /// Guesses in a row of which not one token was right, as far as they make a difference.
    misses: u32,
    /// Steps until the next guess.
    pause: u32,
}

impl Drafts {
    pub fn new() -> Drafts {
        Drafts { length: FIRST_LENGTH, misses: 0, pause: 0 }
    }

    /// Appends to `guesses` at most `most` tokens that may come after `said`; none where nothing like it was said, or
    /// guessing has not paid.
    pub fn guess(&mut self, said: &[u32], most: usize, guesses: &mut Vec<u32>) {
        if self.pause > 0 {
            self.pause -= 1;
            return;
        }
        if most == 0 || said.len() <= KEY_TOKENS {
            return;
        }
        let key = &said[said.len() - KEY_TOKENS..];
        // The last time says most about this one.
        let before = said[..said.len() - 1].windows(KEY_TOKENS).rposition(|window| window == key);
        let Some(at) = before else { return };
        // What followed then, and on from there as if it went in circles.
        let follows = &said[at + KEY_TOKENS..];
        guesses.extend(follows.iter().cycle().take(self.length.min(most)));
    }

    /// Of a guess of `guessed` tokens, the first `right` were right.
    pub fn learn(&mut self, guessed: usize, right: usize) {
        if guessed == 0 {
            return;
        }
        if right == 0 {
            self.misses = (self.misses + 1).min(MISSES_MAX);
            self.pause = 1 << self.misses;
        } else {
            self.misses = 0;
        }
        self.length = if right == guessed { self.length.saturating_mul(2) } else { right + 1 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guess(drafts: &mut Drafts, said: &[u32], most: usize) -> Vec<u32> {
        let mut guesses = Vec::new();
        drafts.guess(said, most, &mut guesses);
        guesses
    }

    fn check(history: &[u32], most: usize, expected: &[u32]) {
        assert_eq!(guess(&mut Drafts::new(), history, most), expected, "{history:?}");
    }

    #[test]
    fn what_followed_the_last_time_is_guessed() {
        check(&[], 8, &[]);
        check(&[1, 2, 3], 8, &[]);
        check(&[1, 2, 3, 4, 5, 6, 1, 2, 3], 8, &[4, 5, 6, 1]);
        check(&[1, 2, 3, 4, 5, 6, 1, 2, 3], 2, &[4, 5]);
        check(&[1, 2, 3, 4, 1, 2, 3, 5, 1, 2, 3], 8, &[5, 1, 2, 3]);
        check(&[7, 7, 7, 7], 8, &[7, 7, 7, 7]);
        check(&[1, 2, 3, 4, 9, 2, 3], 8, &[]);
    }

    #[test]
    fn guesses_grow_while_they_are_right_and_pause_when_they_are_wrong() {
        let (mut drafts, said) = (Drafts::new(), [7; 100]);
        for expected in [4, 8, 16, 20] {
            let guessed = guess(&mut drafts, &said, 20).len();
            assert_eq!(guessed, expected);
            drafts.learn(guessed, guessed);
        }
        drafts.learn(20, 3);
        assert_eq!(guess(&mut drafts, &said, 20).len(), 4);
        for pause in [2, 4, 8, 16, 32, 64, 64, 64] {
            drafts.learn(1, 0);
            for _ in 0..pause {
                assert!(guess(&mut drafts, &said, 20).is_empty());
            }
            assert_eq!(guess(&mut drafts, &said, 20).len(), 1);
        }
        drafts.learn(0, 0);
        assert_eq!(guess(&mut drafts, &said, 20).len(), 1);
    }
}
