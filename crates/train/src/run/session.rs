//! A run before its first step: samples as the model takes them, and the model, compiled.

use std::path::Path;
use std::sync::Arc;

use xxhash_rust::xxh3::Xxh3Default;

use super::checkpoint::Identity;
use super::samples::{Preparing, Source, Spooled};
use crate::data::{self, Learning};
use crate::definition::{Data, Definition, Normalize, Part, normalization_of};
use crate::error::{Result, TrainError};
use crate::losses::Loss;
use crate::model::Model;

/// What a run works on.
pub(super) struct Session {
    pub definition: Definition,
    pub model: Model,
    pub losses: Vec<Loss>,
    pub training: Source,
    pub validation: Option<Source>,
    pub test: Option<Source>,
    /// Names of the outputs.
    pub outputs: Vec<String>,
    /// Names of the classes of each output, where data names them.
    pub classes: Vec<Option<Vec<String>>>,
    pub(super) identity: Identity,
}

impl Session {
    /// Reads the data that `definition` names, from `base` on, and builds its model. What memory isn't to hold goes to
    /// `folder`.
    pub fn new(definition: Definition, base: &Path, folder: &Path) -> Result<Session> {
        let threads = definition.fit.threads;
        let threads = threads
            .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |threads| threads.get()));
        let Definition { model: network, data, fit, .. } = &definition;
        let mut model = network.begin(base, data.normalize, fit.seed, threads)?;
        let (inputs, outputs) = match &network.path {
            Some(_) => (model.inputs.clone(), model.output_names()),
            None => (network.inputs()?, network.output_names()),
        };
        definition.compile.apply(&mut model)?;
        let losses = definition.compile.losses()?;
        let mut reader = Reader {
            base,
            folder,
            data: &definition.data,
            outputs: outputs.clone(),
            preparing: Preparing {
                inputs: inputs.clone(),
                shapes: (0..losses.len()).map(|index| model.output_shape(index)).collect(),
                losses: losses.clone(),
                classes: vec![None; losses.len()],
            },
        };
        let mut training = reader.read(None)?;
        let given = definition.data.validation.as_ref();
        let mut validation = given.map(|part| reader.read(Some(part))).transpose()?;
        let test = definition.data.test.as_ref().map(|part| reader.read(Some(part))).transpose()?;
        let share = definition.fit.validation_split;
        if share > 0.0 {
            if validation.is_some() {
                let problem = "there is validation_split, and [data.validation] too; say one of them";
                return Err(TrainError::data("[fit]", problem));
            }
            let (train, rest) = data::split(training.count(), share, definition.fit.seed);
            if rest.is_empty() {
                let problem = format!("{share} of {} samples is less than one", training.count());
                return Err(TrainError::data("[fit] validation_split", problem));
            }
            validation = Some(training.chosen(&rest));
            training = training.chosen(&train);
        }
        let classes = reader.preparing.classes;
        if let Some(given) = &definition.fit.class_weight {
            let labels = labels(&training, &model.output_shape(0), &losses[0])?;
            let by_class = data::class_weights(given, labels.as_ref(), classes[0].as_ref())?;
            training = training.weighted(by_class);
        }
        if definition.data.normalize != Normalize::None {
            adapt(&mut model, &inputs, &training, definition.data.normalize)?;
        }
        for source in [Some(&training), validation.as_ref(), test.as_ref()].into_iter().flatten() {
            source.all(|samples| model.check_data(&samples.x, Some(&samples.y)).map(|_| ()))?;
        }
        let identity =
            Identity { definition: definition.identity(), data: hash(&training, validation.as_ref())? };
        Ok(Session { definition, model, losses, training, validation, test, outputs, classes, identity })
    }
}

/// Each sample's class and how many there are, where targets are classes.
fn labels(source: &Source, output: &[usize], loss: &Loss) -> Result<Option<(Vec<usize>, usize)>> {
    let mut all: Option<(Vec<usize>, usize)> = None;
    source.all(|samples| {
        let more = data::classes_of(&samples.y[0], output, loss);
        match (&mut all, more) {
            (Some((all, _)), Some((more, _))) => all.extend(more),
            (_, more) => all = more,
        }
        Ok(())
    })?;
    Ok(all)
}

/// Sets each input's normalisation to what the training part is like.
fn adapt(
    model: &mut Model,
    inputs: &[(String, Vec<usize>)],
    training: &Source,
    normalize: Normalize,
) -> Result<()> {
    let new = |(_, shape): &(String, Vec<usize>)| Learning::new(shape.iter().product(), normalize);
    let mut learning: Vec<Learning> = inputs.iter().map(new).collect();
    training.all(|samples| {
        learning.iter_mut().zip(&samples.x).for_each(|(learning, x)| learning.add(&x.values));
        Ok(())
    })?;
    for ((input, _), learning) in inputs.iter().zip(learning) {
        let scale = learning.scale();
        let layer = normalization_of(input);
        // An input that no output depends on has none.
        if model.weights().any(|(path, ..)| path == format!("{layer}/mean")) {
            model.set_weight(&format!("{layer}/mean"), &scale.mean)?;
            model.set_weight(&format!("{layer}/variance"), &scale.variance)?;
        }
    }
    Ok(())
}

fn hash(training: &Source, validation: Option<&Source>) -> Result<u64> {
    let mut hasher = Hasher::default();
    for source in [Some(training), validation].into_iter().flatten() {
        source.all(|samples| {
            samples.x.iter().chain(&samples.y).for_each(|array| hasher.add(&array.values));
            samples.weights.iter().for_each(|weights| hasher.add(weights));
            Ok(())
        })?;
    }
    Ok(hasher.0.digest())
}

#[derive(Default)]
pub(super) struct Hasher(pub Xxh3Default);

impl Hasher {
    pub fn add(&mut self, values: &[f32]) {
        let mut bytes = Vec::with_capacity(1 << 16);
        for part in values.chunks(1 << 14) {
            bytes.clear();
            bytes.extend(part.iter().flat_map(|value| value.to_le_bytes()));
            self.0.update(&bytes);
        }
    }
}

/// The hash of numbers, which says whether data is the same.
pub(super) fn hash_of<'a>(all: impl IntoIterator<Item = &'a [f32]>) -> u64 {
    let mut hasher = Hasher::default();
    all.into_iter().for_each(|values| hasher.add(values));
    hasher.0.digest()
}

/// Reads parts of the data alike; the training part first, which says what classes there are.
struct Reader<'a> {
    base: &'a Path,
    folder: &'a Path,
    data: &'a Data,
    outputs: Vec<String>,
    preparing: Preparing,
}

impl Reader<'_> {
    fn read(&mut self, part: Option<&Part>) -> Result<Source> {
        let is_text = self.data.is_text(part);
        let Reader { base, folder, data, outputs, preparing } = self;
        if !data.stream {
            let loaded = data::load(base, data, part, &preparing.inputs, outputs)?;
            return Ok(Source::Memory(Arc::new(preparing.prepared(loaded, is_text)?)));
        }
        let spool = data::spool(base, data, part, &preparing.inputs, outputs, folder)?;
        for (number, classes) in
            preparing.classes.iter_mut().enumerate().filter(|(_, classes)| classes.is_none())
        {
            *classes = spool.names(number);
        }
        Ok(Source::Disk(Arc::new(Spooled::new(spool, preparing.clone(), is_text))))
    }
}
