//! The handle to a running ONNX model: what the rest of the program sees of it.

use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use formats::onnx::{OnnxFacts, Signature};
use rten::ThreadPool;
use tokio::sync::oneshot;

use super::check::{InputError, arrange, index};
use super::probe::{Batching, probe};
use super::runner::{LoadError, Runner};
use super::tensor::Tensor;
use super::worker::{Call, CallError, Worker};

/// How a model is to be run.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Threads that one run computes with.
    pub threads: usize,
    /// Calls that may wait.
    pub queue_max: usize,
    /// Rows of several calls that are run together.
    pub batch_rows_max: usize,
    /// How long a call may wait for others to be run with.
    pub batch_wait: Duration,
}

/// Counted since the start, but for `waiting`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OnnxStats {
    pub waiting: u64,
    pub calls_total: u64,
    pub rows_total: u64,
    /// Runs of the model, each of one or more calls.
    pub runs_total: u64,
}

#[derive(Default)]
pub(super) struct Counters {
    pub waiting: AtomicU64,
    pub calls_total: AtomicU64,
    pub rows_total: AtomicU64,
    pub runs_total: AtomicU64,
}

/// A loaded model; clones share it. Its thread ends when the last clone is dropped.
#[derive(Clone)]
pub struct Onnx {
    shared: Arc<Shared>,
}

struct Shared {
    facts: OnnxFacts,
    batching: Batching,
    queue_max: usize,
    inbox: SyncSender<Call>,
    counters: Arc<Counters>,
    thread: Mutex<JoinHandle<()>>,
}

impl Onnx {
    /// Loads the `.onnx` file at `path`, tries whether calls can be run together, and starts its thread.
    ///
    /// # Errors
    /// A file that isn't ONNX, has inputs or outputs of types that the runtime doesn't have, or operators that it
    /// can't run.
    pub fn load(path: &Path, settings: &Settings) -> Result<Onnx, LoadError> {
        let pool = Arc::new(ThreadPool::with_num_threads(settings.threads));
        let (runner, facts) = Runner::load(path, pool.clone())?;
        let batching = pool.run(|| probe(&runner, &facts.signature, settings.batch_rows_max));
        let rows_max = match batching {
            Batching::Rows(rows) => rows,
            Batching::Alone(_) => 1,
        };
        let counters = Arc::new(Counters::default());
        let (inbox, receiver) = sync_channel(settings.queue_max);
        let (wait, counted) = (settings.batch_wait, counters.clone());
        let worker = Worker { runner, inbox: receiver, counters: counted, rows_max, wait };
        // Inside the pool, so that a run begins without a change of threads.
        let thread =
            std::thread::Builder::new().name("onnx".to_owned()).spawn(move || pool.run(|| worker.run()))?;
        let thread = Mutex::new(thread);
        let queue_max = settings.queue_max;
        Ok(Onnx { shared: Arc::new(Shared { facts, batching, queue_max, inbox, counters, thread }) })
    }

    pub fn facts(&self) -> &OnnxFacts {
        &self.shared.facts
    }

    pub fn signature(&self) -> &Signature {
        &self.shared.facts.signature
    }

    pub fn batching(&self) -> &Batching {
        &self.shared.batching
    }

    /// The place of the input `name` in the signature.
    ///
    /// # Errors
    /// Where there is none, with those that there are.
    pub fn input_index(&self, name: &str) -> Result<usize, InputError> {
        index(self.signature(), name)
    }

    /// Inputs by their place in the signature, in any order, checked and in order.
    ///
    /// # Errors
    /// What was expected and what came.
    pub fn check(&self, inputs: Vec<(usize, Tensor)>) -> Result<Vec<Tensor>, InputError> {
        arrange(self.signature(), inputs)
    }

    /// Runs the model on inputs that [`Onnx::check`] gave, and waits for its outputs, in the signature's order.
    /// Dropped before that, the call is forgotten.
    ///
    /// # Errors
    /// At once where the queue is full; else what the runtime says.
    pub async fn call(&self, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, CallError> {
        self.submit(inputs)?.await.unwrap_or(Err(CallError::Ended))
    }

    /// The same, for callers outside an asynchronous runtime.
    ///
    /// # Errors
    /// As [`Onnx::call`].
    pub fn blocking_call(&self, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, CallError> {
        self.submit(inputs)?.blocking_recv().unwrap_or(Err(CallError::Ended))
    }

    fn submit(
        &self,
        inputs: Vec<Tensor>,
    ) -> Result<oneshot::Receiver<Result<Vec<Tensor>, CallError>>, CallError> {
        let Shared { inbox, counters, queue_max, .. } = &*self.shared;
        let (reply, outcome) = oneshot::channel();
        counters.waiting.fetch_add(1, Relaxed);
        inbox.try_send(Call { inputs, reply }).map_err(|error| {
            counters.waiting.fetch_sub(1, Relaxed);
            match error {
                TrySendError::Full(_) => CallError::QueueFull { waiting: *queue_max },
                TrySendError::Disconnected(_) => CallError::Ended,
            }
        })?;
        counters.calls_total.fetch_add(1, Relaxed);
        Ok(outcome)
    }

    pub fn stats(&self) -> OnnxStats {
        let Counters { waiting, calls_total, rows_total, runs_total } = &*self.shared.counters;
        OnnxStats {
            waiting: waiting.load(Relaxed),
            calls_total: calls_total.load(Relaxed),
            rows_total: rows_total.load(Relaxed),
            runs_total: runs_total.load(Relaxed),
        }
    }

    /// Whether the engine's thread runs: false after a failure that ended it.
    pub fn is_alive(&self) -> bool {
        !self.shared.thread.lock().unwrap_or_else(PoisonError::into_inner).is_finished()
    }
}
