//! When a loop of steps says where it is, and when it keeps what it has: alike for a model and for adversaries.

use std::time::{Duration, Instant};

/// Between two events of steps.
const STEP_INTERVAL: Duration = Duration::from_millis(50);

pub(super) struct Pace {
    /// Steps and seconds between checkpoints.
    every: (Option<u64>, f64),
    checkpointed: Instant,
    epoch: Instant,
    said: Instant,
    /// Samples since the epoch began, or was gone on with.
    trained: usize,
}

impl Pace {
    pub fn new(checkpoint_steps: Option<u64>, checkpoint_seconds: f64) -> Pace {
        let now = Instant::now();
        let every = (checkpoint_steps, checkpoint_seconds);
        Pace { every, checkpointed: now, epoch: now, said: now, trained: 0 }
    }

    pub fn begin_epoch(&mut self) {
        (self.epoch, self.said, self.trained) = (Instant::now(), Instant::now(), 0);
    }

    /// Counts a step of `samples` samples. Where it is time to say so: samples a second.
    pub fn stepped(&mut self, samples: usize) -> Option<f64> {
        self.trained += samples;
        if self.said.elapsed() < STEP_INTERVAL {
            return None;
        }
        self.said = Instant::now();
        Some(self.trained as f64 / self.epoch.elapsed().as_secs_f64())
    }

    /// Whether a checkpoint is to be written after `step` steps in all.
    pub fn is_checkpoint_due(&self, step: u64) -> bool {
        self.every.0.is_some_and(|every| step.is_multiple_of(every))
            || self.checkpointed.elapsed().as_secs_f64() >= self.every.1
    }

    pub fn checkpointed(&mut self) {
        self.checkpointed = Instant::now();
    }
}
