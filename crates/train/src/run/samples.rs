//! Samples of a run, in memory or on the disk: batches of them, and all of them once.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

use crate::data::{self, Loaded, Places, Spool, Target};
use crate::error::{Result, TrainError};
use crate::losses::Loss;
use crate::model::{Array, Model, Sums};

/// Batches that are read before they are needed.
const AHEAD: usize = 4;
/// Values that are looked at together where all samples are gone through.
const CHUNK_VALUES: usize = 1 << 18;

/// Samples with their targets.
#[derive(Clone, Debug)]
pub struct Samples {
    pub x: Vec<Array>,
    pub y: Vec<Array>,
    pub weights: Option<Vec<f32>>,
}

impl Samples {
    fn chosen(&self, which: &[usize]) -> Samples {
        let of = |arrays: &[Array]| arrays.iter().map(|array| array.chosen(which)).collect();
        Samples {
            x: of(&self.x),
            y: of(&self.y),
            weights: self.weights.as_ref().map(|weights| which.iter().map(|&at| weights[at]).collect()),
        }
    }

    pub fn count(&self) -> usize {
        self.x.first().map_or(0, Array::samples)
    }
}

/// How what files have becomes what the model takes.
#[derive(Clone)]
pub(super) struct Preparing {
    pub inputs: Vec<(String, Vec<usize>)>,
    /// Shapes and losses of the outputs.
    pub shapes: Vec<Vec<usize>>,
    pub losses: Vec<Loss>,
    /// Names of the classes of each output; those of the training part, once that is read.
    pub classes: Vec<Option<Vec<String>>>,
}

impl Preparing {
    pub fn prepared(&mut self, loaded: Loaded, is_text: bool) -> Result<Samples> {
        let Loaded { x, y, weights, places } = loaded;
        let y = if y.is_empty() { x.iter().cloned().map(Target::Numbers).collect() } else { y };
        if y.len() != self.losses.len() {
            let problem = format!("there are {} targets, and {} losses", y.len(), self.losses.len());
            return Err(TrainError::data("[data]", problem));
        }
        let y = y.into_iter().zip(&self.shapes).map(|(target, shape)| match target {
            // A model with one answer tells the byte after a window.
            Target::Numbers(array) if is_text && shape.len() == 1 => {
                Ok(Target::Numbers(data::last_only(&array)?))
            }
            other => Ok(other),
        });
        let y = self.encoded(y.collect::<Result<_>>()?, &places)?;
        Ok(Samples { x, y, weights })
    }

    fn encoded(&mut self, y: Vec<Target>, places: &Places) -> Result<Vec<Array>> {
        let each = y.into_iter().enumerate();
        each.map(|(index, target)| {
            let classes = &mut self.classes[index];
            data::encode(target, &self.shapes[index], &self.losses[index], classes, places)
        })
        .collect()
    }
}

/// Samples on the disk, and which of them are meant.
pub(super) struct Spooled {
    spool: Arc<Spool>,
    which: Vec<usize>,
    preparing: Preparing,
    is_text: bool,
    /// What each counts by its class.
    by_class: Option<Vec<f32>>,
}

impl Spooled {
    pub fn new(spool: Spool, preparing: Preparing, is_text: bool) -> Spooled {
        let which = (0..spool.samples).collect();
        Spooled { spool: Arc::new(spool), which, preparing, is_text, by_class: None }
    }

    fn read(&self, batch: &[usize]) -> Result<Samples> {
        let which: Vec<usize> = batch.iter().map(|&sample| self.which[sample]).collect();
        let loaded = self.spool.read(&which, &self.preparing.inputs)?;
        let mut samples = self.preparing.clone().prepared(loaded, self.is_text)?;
        if let Some(by_class) = &self.by_class {
            samples.weights =
                Some(times(samples.weights, batch.iter().map(|&sample| by_class[sample]).collect()));
        }
        Ok(samples)
    }

    fn chunk(&self) -> usize {
        let len: usize = self.preparing.inputs.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
        (CHUNK_VALUES / len.max(1)).max(1)
    }
}

/// Weights of samples, times those of their classes.
fn times(weights: Option<Vec<f32>>, by_class: Vec<f32>) -> Vec<f32> {
    match weights {
        Some(weights) => weights.iter().zip(&by_class).map(|(a, b)| a * b).collect(),
        None => by_class,
    }
}

#[derive(Clone)]
pub(super) enum Source {
    Memory(Arc<Samples>),
    Disk(Arc<Spooled>),
}

/// Samples of a batch: `which` of `samples`.
pub(super) struct Batch<'a> {
    pub samples: Cow<'a, Samples>,
    pub which: Cow<'a, [usize]>,
}

impl Source {
    pub fn count(&self) -> usize {
        match self {
            Source::Memory(samples) => samples.count(),
            Source::Disk(spooled) => spooled.which.len(),
        }
    }

    pub fn is_weighted(&self) -> bool {
        match self {
            Source::Memory(samples) => samples.weights.is_some(),
            Source::Disk(spooled) => spooled.spool.is_weighted() || spooled.by_class.is_some(),
        }
    }

    /// The samples `which` as a source of their own.
    pub fn chosen(&self, which: &[usize]) -> Source {
        match self {
            Source::Memory(samples) => Source::Memory(Arc::new(samples.chosen(which))),
            Source::Disk(spooled) => Source::Disk(Arc::new(Spooled {
                spool: spooled.spool.clone(),
                which: which.iter().map(|&sample| spooled.which[sample]).collect(),
                preparing: spooled.preparing.clone(),
                is_text: spooled.is_text,
                by_class: None,
            })),
        }
    }

    /// The same, where each sample counts by its class too.
    pub fn weighted(self, by_class: Vec<f32>) -> Source {
        match self {
            Source::Memory(samples) => {
                let Samples { x, y, weights } = Arc::unwrap_or_clone(samples);
                Source::Memory(Arc::new(Samples { x, y, weights: Some(times(weights, by_class)) }))
            }
            Source::Disk(spooled) => {
                let Spooled { spool, which, preparing, is_text, .. } = &*spooled;
                Source::Disk(Arc::new(Spooled {
                    spool: spool.clone(),
                    which: which.clone(),
                    preparing: preparing.clone(),
                    is_text: *is_text,
                    by_class: Some(by_class),
                }))
            }
        }
    }

    pub fn batch<'a>(&'a self, which: &'a [usize]) -> Result<Batch<'a>> {
        match self {
            Source::Memory(samples) => {
                Ok(Batch { samples: Cow::Borrowed(samples), which: Cow::Borrowed(which) })
            }
            Source::Disk(spooled) => Ok(Batch::whole(spooled.read(which)?)),
        }
    }

    /// Hands all samples to `each`, in their order: together, where they are in memory, and in parts otherwise.
    pub fn all(&self, mut each: impl FnMut(&Samples) -> Result<()>) -> Result<()> {
        match self {
            Source::Memory(samples) => each(samples),
            Source::Disk(spooled) => {
                let order: Vec<usize> = (0..spooled.which.len()).collect();
                let size = spooled.chunk();
                let ahead = self.ahead(&order, size, 0);
                order.chunks(size).try_for_each(|part| each(&ahead.next(self, part)?.samples))
            }
        }
    }

    /// The batches of `order` from number `first` on, of which the next are read while one is used.
    pub fn ahead(&self, order: &[usize], size: usize, first: usize) -> Ahead {
        let Source::Disk(spooled) = self else { return Ahead(None) };
        let (to, from) = sync_channel(AHEAD);
        let (spooled, order) = (spooled.clone(), order.to_vec());
        std::thread::spawn(move || {
            for batch in order.chunks(size).skip(first) {
                // Nobody waits any more.
                if to.send(spooled.read(batch)).is_err() {
                    return;
                }
            }
        });
        Ahead(Some(from))
    }

    /// The figures of `model` on all samples.
    pub fn evaluated(&self, model: &mut Model, batch_size: usize) -> Result<Sums> {
        let mut all = model.no_sums();
        if let Source::Memory(samples) = self {
            return model.evaluated(&samples.x, &samples.y, samples.weights.as_deref(), batch_size);
        }
        let order: Vec<usize> = (0..self.count()).collect();
        let ahead = self.ahead(&order, batch_size, 0);
        for part in order.chunks(batch_size) {
            let batch = ahead.next(self, part)?;
            let Samples { x, y, weights } = &*batch.samples;
            all.add(&model.evaluated(x, y, weights.as_deref(), batch_size)?);
        }
        Ok(all)
    }
}

impl Batch<'_> {
    fn whole(samples: Samples) -> Batch<'static> {
        let which = (0..samples.count()).collect();
        Batch { samples: Cow::Owned(samples), which: Cow::Owned(which) }
    }
}

/// Batches that another thread reads.
pub(super) struct Ahead(Option<Receiver<Result<Samples>>>);

impl Ahead {
    /// The next batch, of the samples `which` of `source`.
    pub fn next<'a>(&self, source: &'a Source, which: &'a [usize]) -> Result<Batch<'a>> {
        match &self.0 {
            None => source.batch(which),
            Some(from) => match from.recv() {
                Ok(samples) => Ok(Batch::whole(samples?)),
                Err(_) => Err(TrainError::data("[data]", "the thread that reads ahead has ended")),
            },
        }
    }
}
