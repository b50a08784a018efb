//! A model run as it will be served, by the engine, and what its answers are worth.

use std::io::Write;
use std::time::{Duration, Instant};

use engine::onnx::{ElementType, Elements, Onnx, Settings, Storage, Tensor};
use serde::Serialize;
use train::model::Array;

use super::error::{NetworkError, Result};

/// Samples that are run together.
const BATCH: usize = 64;
/// Speed is the best of these.
const TIMED_RUNS: usize = 5;

/// What is asked of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// The greatest of several values names the class.
    Classes,
    /// Each value says yes above a half.
    YesOrNo,
    /// Numbers.
    Numbers,
}

/// What is right.
#[derive(Clone, Debug)]
pub struct Truth {
    pub task: Task,
    /// For [`Task::Classes`], classes by number or one value a class; otherwise values as the first output gives them.
    pub target: Array,
}

/// Samples with what is known of them.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    /// By the inputs' names.
    pub inputs: Vec<(String, Array)>,
    /// Where it isn't known, answers are compared with those of the original alone.
    pub truth: Option<Truth>,
}

impl Samples {
    pub fn count(&self) -> usize {
        self.inputs.first().map_or(0, |(_, array)| array.samples())
    }

    /// The first `count`.
    pub fn first(&self, count: usize) -> Samples {
        let of = |array: &Array| {
            let count = count.min(array.samples());
            let mut shape = array.shape.clone();
            shape[0] = count;
            Array { shape, values: array.values[..count * array.sample_len()].to_vec() }
        };
        let truth = self.truth.as_ref().map(|truth| Truth { task: truth.task, target: of(&truth.target) });
        Samples { inputs: self.inputs.iter().map(|(name, array)| (name.clone(), of(array))).collect(), truth }
    }
}

/// What came of running a model on samples.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Figures {
    /// Bytes of the file.
    pub bytes: u64,
    /// Numbers that the file holds.
    pub parameters: u64,
    /// Bytes that the process grew by when the model was loaded and run after others, as far as the system tells.
    pub memory_bytes: Option<u64>,
    /// Seconds of one sample alone, and samples a second in batches of 64.
    pub single_seconds: f64,
    pub samples_per_second: f64,
    /// Share of right answers, where there are right ones and classes.
    pub accuracy: Option<f64>,
    /// Mean squared error, where there are right numbers.
    pub mean_squared_error: Option<f64>,
    /// Share of samples whose answer is the original's.
    pub agreement: Option<f64>,
    /// Root of the mean squared difference to the original's answers, over that of its answers.
    pub relative_error: Option<f64>,
}

/// A model that is loaded.
pub(super) struct Running {
    onnx: Onnx,
}

/// Answers of the first output: values of all samples, and how many each has.
#[derive(Clone, Debug, Default)]
pub(super) struct Answers {
    pub values: Vec<f32>,
    pub width: usize,
}

impl Answers {
    pub fn row(&self, sample: usize) -> &[f32] {
        &self.values[sample * self.width..(sample + 1) * self.width]
    }
}

impl Running {
    pub fn new(bytes: &[u8]) -> Result<Running> {
        let temporary = tempfile::Builder::new().suffix(".onnx").tempfile();
        let mut file = temporary.map_err(NetworkError::io(&std::env::temp_dir(), "written to"))?;
        let path = file.path().to_owned();
        file.write_all(bytes).and_then(|()| file.flush()).map_err(NetworkError::io(&path, "written"))?;
        let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get());
        let settings = Settings { threads, queue_max: 4, batch_rows_max: BATCH, batch_wait: Duration::ZERO };
        // The file goes at once, so that none is left where the process is stopped.
        Ok(Running { onnx: Onnx::load(&path, &settings)? })
    }

    /// The samples `which` as the model takes them.
    fn tensors(&self, samples: &Samples, which: std::ops::Range<usize>) -> Result<Vec<Tensor>> {
        let mut tensors = vec![];
        for (name, array) in &samples.inputs {
            let index = self.onnx.input_index(name).map_err(|error| NetworkError::Run(error.to_string()))?;
            let len = array.sample_len();
            let values = &array.values[which.start * len..which.end * len];
            let element = self.onnx.signature().inputs[index].element;
            let elements = elements(element, values);
            let shape = [&[which.len()], &array.shape[1..]].concat();
            tensors.push((index, Tensor { shape, elements }));
        }
        self.onnx.check(tensors).map_err(|error| NetworkError::Run(error.to_string()))
    }

    /// Runs all samples; what each batch yields is handed to `each`.
    pub fn batches(&self, samples: &Samples, mut each: impl FnMut(&[Tensor])) -> Result<()> {
        let count = samples.count();
        for start in (0..count).step_by(BATCH) {
            let tensors = self.tensors(samples, start..(start + BATCH).min(count))?;
            each(&self.onnx.blocking_call(tensors)?);
        }
        Ok(())
    }

    pub fn answers(&self, samples: &Samples) -> Result<Answers> {
        let mut values = vec![];
        self.batches(samples, |outputs| match outputs.first().map(|tensor| &tensor.elements) {
            Some(Elements::Float(more)) => values.extend_from_slice(more),
            Some(Elements::Int32(more)) => values.extend(more.iter().map(|&value| value as f32)),
            Some(Elements::Int8(more)) => values.extend(more.iter().map(|&value| f32::from(value))),
            Some(Elements::Uint8(more)) => values.extend(more.iter().map(|&value| f32::from(value))),
            None => {}
        })?;
        let width = values.len() / samples.count().max(1);
        if width == 0 || width * samples.count() != values.len() {
            let problem = format!("{} values for {} samples", values.len(), samples.count());
            return Err(NetworkError::model(
                "the first output",
                format!("it doesn't go by samples: {problem}"),
            ));
        }
        Ok(Answers { values, width })
    }

    /// Seconds of a run of the first `count` samples, at best.
    fn seconds(&self, samples: &Samples, count: usize) -> Result<f64> {
        let count = count.min(samples.count());
        let mut best = f64::INFINITY;
        for _ in 0..=TIMED_RUNS {
            let tensors = self.tensors(samples, 0..count)?;
            let started = Instant::now();
            self.onnx.blocking_call(tensors)?;
            best = best.min(started.elapsed().as_secs_f64());
        }
        Ok(best)
    }
}

fn elements(element: ElementType, values: &[f32]) -> Elements {
    match Storage::of(element) {
        Storage::Float => Elements::Float(values.to_vec()),
        Storage::Int32 => Elements::Int32(values.iter().map(|&value| value as i32).collect()),
        Storage::Int8 => Elements::Int8(values.iter().map(|&value| value as i8).collect()),
        Storage::Uint8 => Elements::Uint8(values.iter().map(|&value| value as u8).collect()),
    }
}

/// The place of the greatest value.
pub(super) fn greatest(row: &[f32]) -> usize {
    let mut best = 0;
    for (at, value) in row.iter().enumerate() {
        if *value > row[best] {
            best = at;
        }
    }
    best
}

impl Truth {
    fn is_right(&self, sample: usize, answer: &[f32]) -> bool {
        let len = self.target.sample_len();
        let target = &self.target.values[sample * len..(sample + 1) * len];
        match self.task {
            Task::Classes if len == 1 => greatest(answer) as f32 == target[0],
            Task::Classes => greatest(answer) == greatest(target),
            _ => answer.iter().zip(target).all(|(answer, target)| (*answer > 0.5) == (*target > 0.5)),
        }
    }
}

/// A model that was measured. It stays in memory: what it frees would be found again by the next, which would seem to take
/// nothing.
pub(super) struct Measured {
    pub figures: Figures,
    pub answers: Answers,
    _running: Running,
}

/// A model that has run, for what the first one takes beside its own.
pub(super) fn warmed(bytes: &[u8], samples: &Samples) -> Result<Running> {
    let running = Running::new(bytes)?;
    running.answers(&samples.first(BATCH))?;
    Ok(running)
}

/// Runs the file and measures it; `original` are the answers of what it was made from.
pub(super) fn measure(bytes: &[u8], samples: &Samples, original: Option<&Answers>) -> Result<Measured> {
    let before = resident_bytes();
    let running = Running::new(bytes)?;
    let answers = running.answers(samples)?;
    let memory_bytes = before.zip(resident_bytes()).map(|(before, after)| after.saturating_sub(before));
    let batch = samples.count().min(BATCH);
    let mut figures = Figures {
        bytes: bytes.len() as u64,
        parameters: running.onnx.facts().parameters,
        memory_bytes,
        single_seconds: running.seconds(samples, 1)?,
        samples_per_second: batch as f64 / running.seconds(samples, batch)?,
        ..judged(&answers, samples)
    };
    if let Some(original) = original {
        compare(&mut figures, &answers, original, samples);
    }
    Ok(Measured { figures, answers, _running: running })
}

/// What answers are worth.
pub(super) fn judged(answers: &Answers, samples: &Samples) -> Figures {
    let mut figures = Figures::default();
    let count = samples.count();
    match &samples.truth {
        Some(truth) if truth.task == Task::Numbers => {
            let pairs = answers.values.iter().zip(&truth.target.values);
            let sum: f64 = pairs.map(|(answer, target)| f64::from(answer - target).powi(2)).sum();
            figures.mean_squared_error = Some(sum / answers.values.len().max(1) as f64);
        }
        Some(truth) => {
            let right = (0..count).filter(|&sample| truth.is_right(sample, answers.row(sample))).count();
            figures.accuracy = Some(right as f64 / count.max(1) as f64);
        }
        None => {}
    }
    figures
}

pub(super) fn compare(figures: &mut Figures, answers: &Answers, original: &Answers, samples: &Samples) {
    let count = samples.count();
    if answers.width != original.width {
        return;
    }
    let (mut difference, mut size) = (0f64, 0f64);
    for (a, b) in answers.values.iter().zip(&original.values) {
        difference += f64::from(a - b).powi(2);
        size += f64::from(*b).powi(2);
    }
    figures.relative_error = Some((difference / size.max(f64::MIN_POSITIVE)).sqrt());
    let is_numbers = samples.truth.as_ref().is_some_and(|truth| truth.task == Task::Numbers);
    if !is_numbers && answers.width > 1 {
        let same = (0..count).filter(|&at| greatest(answers.row(at)) == greatest(original.row(at))).count();
        figures.agreement = Some(same as f64 / count.max(1) as f64);
    }
}

/// Bytes of this process that are in memory (`/proc/self/statm`), where there is such a file.
fn resident_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * 4096)
}
