//! A run before its first step: samples as the model takes them, and the model, compiled.

use std::path::Path;

use xxhash_rust::xxh3::Xxh3Default;

use super::checkpoint::Identity;
use crate::data::{self, Loaded, Places, Scale, Target};
use crate::definition::{Data, Definition, Normalize, Part, normalization_of};
use crate::error::{Result, TrainError};
use crate::losses::Loss;
use crate::model::{Array, Model};

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

/// What a run works on.
pub struct Session {
    pub definition: Definition,
    pub model: Model,
    pub losses: Vec<Loss>,
    pub training: Samples,
    pub validation: Option<Samples>,
    pub test: Option<Samples>,
    /// Names of the outputs.
    pub outputs: Vec<String>,
    /// Names of the classes of each output, where data names them.
    pub classes: Vec<Option<Vec<String>>>,
    pub(super) identity: Identity,
}

impl Session {
    /// Reads the data that `definition` names, from `base` on, and builds its model.
    ///
    /// # Errors
    /// When the definition or the data isn't right.
    pub fn new(definition: Definition, base: &Path) -> Result<Session> {
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
            data: &definition.data,
            inputs: inputs.clone(),
            outputs: outputs.clone(),
            shapes: (0..losses.len()).map(|index| model.output_shape(index)).collect(),
            losses: &losses,
            classes: vec![None; losses.len()],
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
        let classes = reader.classes;
        if let Some(given) = &definition.fit.class_weight {
            let labels = data::classes_of(&training.y[0], &model.output_shape(0), &losses[0]);
            let by_class = data::class_weights(given, labels.as_ref(), classes[0].as_ref())?;
            training.weights = Some(match training.weights.take() {
                Some(weights) => weights.iter().zip(&by_class).map(|(a, b)| a * b).collect(),
                None => by_class,
            });
        }
        if definition.data.normalize != Normalize::None {
            adapt(&mut model, &inputs, &training.x, definition.data.normalize)?;
        }
        model.check_data(&training.x, Some(&training.y))?;
        let identity =
            Identity { definition: definition.identity(), data: hash(&training, validation.as_ref()) };
        Ok(Session { definition, model, losses, training, validation, test, outputs, classes, identity })
    }
}

impl Session {
    /// The samples that a finished model is judged by: the test part, or the validation part, or what it is trained on.
    pub fn judged_by(&self) -> &Samples {
        self.test.as_ref().or(self.validation.as_ref()).unwrap_or(&self.training)
    }
}

/// Sets each input's normalisation to what the training part is like.
fn adapt(
    model: &mut Model,
    inputs: &[(String, Vec<usize>)],
    x: &[Array],
    normalize: Normalize,
) -> Result<()> {
    for ((input, _), x) in inputs.iter().zip(x) {
        let scale = Scale::learned(x, normalize);
        let layer = normalization_of(input);
        // An input that no output depends on has none.
        if model.weights().any(|(path, ..)| path == format!("{layer}/mean")) {
            model.set_weight(&format!("{layer}/mean"), &scale.mean)?;
            model.set_weight(&format!("{layer}/variance"), &scale.variance)?;
        }
    }
    Ok(())
}

fn hash(training: &Samples, validation: Option<&Samples>) -> u64 {
    let mut all: Vec<&[f32]> = vec![];
    for samples in [Some(training), validation].into_iter().flatten() {
        all.extend(samples.x.iter().chain(&samples.y).map(|array| &array.values[..]));
        all.extend(samples.weights.as_deref());
    }
    hash_of(all)
}

/// The hash of numbers, which says whether data is the same.
pub(super) fn hash_of<'a>(all: impl IntoIterator<Item = &'a [f32]>) -> u64 {
    let mut hasher = Xxh3Default::new();
    let mut bytes = Vec::with_capacity(1 << 16);
    for part in all.into_iter().flat_map(|values| values.chunks(1 << 14)) {
        bytes.clear();
        bytes.extend(part.iter().flat_map(|value| value.to_le_bytes()));
        hasher.update(&bytes);
    }
    hasher.digest()
}

/// Reads parts of the data alike; the training part first, which says what classes there are.
struct Reader<'a> {
    base: &'a Path,
    data: &'a Data,
    inputs: Vec<(String, Vec<usize>)>,
    outputs: Vec<String>,
    shapes: Vec<Vec<usize>>,
    losses: &'a [Loss],
    classes: Vec<Option<Vec<String>>>,
}

impl Reader<'_> {
    fn read(&mut self, part: Option<&Part>) -> Result<Samples> {
        let Loaded { x, y, weights, places } =
            data::load(self.base, self.data, part, &self.inputs, &self.outputs)?;
        let y = if y.is_empty() { x.iter().cloned().map(Target::Numbers).collect() } else { y };
        if y.len() != self.losses.len() {
            let problem = format!("there are {} targets, and {} losses", y.len(), self.losses.len());
            return Err(TrainError::data("[data]", problem));
        }
        let is_text = self.data.is_text(part);
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
