//! How many prompt tokens a step takes beside running answers, so that their next tokens don't come late.

use std::time::Duration;

/// Prompt tokens of a step at least, so that prompts go on where even these take longer than they should.
const PROMPT_TOKENS_MIN: usize = 16;
/// Prompt tokens of a step before anything was measured.
const PROMPT_TOKENS_FIRST: usize = 128;
/// Share of the newest measurement in the estimate.
const NEWEST: f64 = 0.25;

/// Learns what a token of a step costs.
pub struct Pace {
    /// What a step with prompts may take while others are answering.
    step_max: Duration,
    /// Seconds a token, over steps that had prompts in them; `None` before the first.
    token_s: Option<f64>,
}

impl Pace {
    pub fn new(step_max: Duration) -> Pace {
        Pace { step_max, token_s: None }
    }

    /// Seconds a token, once it was measured.
    pub fn token_s(&self) -> Option<f64> {
        self.token_s
    }

    /// Prompt tokens for the next step, beside `answer_tokens`.
    pub fn prompt_tokens(&self, answer_tokens: usize) -> usize {
        let Some(token_s) = self.token_s else { return PROMPT_TOKENS_FIRST };
        let tokens = (self.step_max.as_secs_f64() / token_s) as usize;
        tokens.saturating_sub(answer_tokens).max(PROMPT_TOKENS_MIN)
    }

    /// A step of `tokens` in all, prompts among them, took so long.
    pub fn learn(&mut self, tokens: usize, took: Duration) {
        // A step of few tokens says little about what many cost: most of it is reading the weights once.
        if tokens < PROMPT_TOKENS_MIN {
            return;
        }
        let measured = took.as_secs_f64().max(1e-9) / tokens as f64;
        self.token_s = Some(match self.token_s {
            None => measured,
            // One step that was held up by something else shall not slow all prompts down.
            Some(known) => known + NEWEST * (measured.min(2.0 * known) - known),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP_MAX: Duration = Duration::from_millis(100);

    /// The pace after many steps in which a token took so long.
    fn settled(token: Duration) -> Pace {
        let mut pace = Pace::new(STEP_MAX);
        for _ in 0..40 {
            let tokens = pace.prompt_tokens(4) + 4;
            pace.learn(tokens, token * tokens as u32);
        }
        pace
    }

    #[test]
    fn steps_take_as_long_as_they_may() {
        let check = |token_us: u64, answers: usize, expected: usize| {
            assert_eq!(
                settled(Duration::from_micros(token_us)).prompt_tokens(answers),
                expected,
                "{token_us}"
            );
        };
        check(1000, 4, 96);
        check(200, 20, 480);
        check(50_000, 4, PROMPT_TOKENS_MIN);
        check(1000, 200, PROMPT_TOKENS_MIN);
        assert_eq!(Pace::new(STEP_MAX).prompt_tokens(4), PROMPT_TOKENS_FIRST);
    }

    #[test]
    fn one_slow_step_changes_little_and_slow_ones_for_good_do() {
        let mut pace = settled(Duration::from_millis(1));
        pace.learn(100, Duration::from_secs(60));
        assert_eq!(pace.prompt_tokens(0), 80);
        (0..40).for_each(|_| pace.learn(50, Duration::from_millis(200)));
        assert_eq!(pace.prompt_tokens(0), 25);
        pace.learn(3, Duration::from_secs(1));
        assert_eq!(pace.prompt_tokens(0), 25);
    }
}
