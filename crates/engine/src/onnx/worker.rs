//! The thread that owns a model: take what waits, run it, answer.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::batch::{fit, join, rows, split};
use super::handle::Counters;
use super::runner::Runner;
use super::tensor::Tensor;

/// Why a call that was well formed has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    #[error("{waiting} calls wait already, which is the limit")]
    QueueFull { waiting: usize },
    /// The runtime's words: a model that can't take these lengths, say.
    #[error("the model did not run on these inputs: {0}")]
    Run(String),
    #[error("the engine has ended")]
    Ended,
}

/// Inputs that wait for their run.
pub(super) struct Call {
    pub inputs: Vec<Tensor>,
    pub reply: oneshot::Sender<Result<Vec<Tensor>, CallError>>,
}

pub(super) struct Worker {
    pub runner: Runner,
    pub inbox: Receiver<Call>,
    pub counters: Arc<Counters>,
    /// 1 where each call is run alone.
    pub rows_max: usize,
    /// How long the first call of a batch may wait for others.
    pub wait: Duration,
}

impl Worker {
    pub fn run(self) {
        // Calls that were taken and didn't fit into the batch before.
        let mut held: VecDeque<Call> = VecDeque::new();
        loop {
            let first = match held.pop_front() {
                Some(call) => call,
                None => match self.inbox.recv() {
                    Ok(call) => call,
                    Err(_) => return,
                },
            };
            let batch = self.gather(first, &mut held);
            self.answer(batch);
        }
    }

    /// What is run together with `first`: what waits already, and what comes within the wait.
    fn gather(&self, first: Call, held: &mut VecDeque<Call>) -> Vec<Call> {
        let mut total = rows(&first.inputs).unwrap_or(self.rows_max);
        let mut batch = vec![first];
        for _ in 0..held.len() {
            let Some(call) = held.pop_front() else { break };
            self.place(call, &mut batch, &mut total, held);
        }
        let mut deadline = None;
        while total < self.rows_max && held.len() < self.rows_max {
            let call = match self.inbox.try_recv() {
                Ok(call) => call,
                Err(_) if self.wait.is_zero() => break,
                Err(_) => {
                    let deadline = *deadline.get_or_insert_with(|| Instant::now() + self.wait);
                    match self.inbox.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                        Ok(call) => call,
                        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
                    }
                }
            };
            self.place(call, &mut batch, &mut total, held);
        }
        batch
    }

    /// Puts `call` into the batch where it fits, else behind those that are held. A caller that is gone is forgotten.
    fn place(&self, call: Call, batch: &mut Vec<Call>, total: &mut usize, held: &mut VecDeque<Call>) {
        if call.reply.is_closed() {
            self.counters.waiting.fetch_sub(1, Relaxed);
            return;
        }
        match rows(&call.inputs) {
            Some(more) if *total + more <= self.rows_max && fit(&batch[0].inputs, &call.inputs) => {
                *total += more;
                batch.push(call);
            }
            _ => held.push_back(call),
        }
    }

    fn answer(&self, mut batch: Vec<Call>) {
        self.counters.waiting.fetch_sub(batch.len() as u64, Relaxed);
        batch.retain(|call| !call.reply.is_closed());
        if batch.len() > 1 {
            let rows: Vec<usize> = batch.iter().filter_map(|call| rows(&call.inputs)).collect();
            let outputs =
                self.count(rows.iter().sum(), join(batch.iter().map(|call| call.inputs.as_slice())));
            if let Some(parts) = outputs.ok().and_then(|outputs| split(&outputs, &rows)) {
                for (call, part) in batch.into_iter().zip(parts) {
                    // A caller that went away meanwhile has no use for it.
                    let _ = call.reply.send(Ok(part));
                }
                return;
            }
            // One of them is at fault: alone, each gets its own answer.
        }
        for call in batch {
            let rows = rows(&call.inputs).unwrap_or(1);
            let _ = call.reply.send(self.count(rows, call.inputs).map_err(CallError::Run));
        }
    }

    fn count(&self, rows: usize, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, String> {
        self.counters.runs_total.fetch_add(1, Relaxed);
        self.counters.rows_total.fetch_add(rows as u64, Relaxed);
        self.runner.run(inputs)
    }
}
