//! A run of a GAN before its first step: samples as the networks see them, their classes, and the networks.

use std::path::Path;

use super::super::checkpoint::Identity;
use super::super::session::hash_of;
use crate::data::{self, Loaded, Places, Target};
use crate::definition::{GanDefinition, Part};
use crate::error::{Result, TrainError};
use crate::gan::{Gan, LABEL, Labels};
use crate::losses::SparseCategoricalCrossentropy;
use crate::model::Array;

/// Classes of data whose classes are numbers.
const CLASSES_MAX: usize = 1 << 16;

/// What a run works on.
pub(super) struct Session {
    pub definition: GanDefinition,
    pub gan: Gan,
    /// As the networks see them.
    pub x: Array,
    /// Each sample's class, where the data has them.
    pub classes: Option<Vec<usize>>,
    /// How many there are.
    pub class_count: usize,
    /// Their names, where the data names them.
    pub names: Option<Vec<String>>,
    /// As the networks are given them, where they are.
    pub labels: Option<Labels>,
    /// Samples that nothing is trained with, and their classes.
    pub test: Option<(Array, Vec<usize>)>,
    /// The least and the greatest value, as the networks see them.
    pub bounds: [f32; 2],
    pub identity: Identity,
}

impl Session {
    /// Reads the data that `definition` names, from `base` on, and builds its networks.
    pub fn new(definition: GanDefinition, base: &Path) -> Result<Session> {
        let threads = definition.fit.threads;
        let threads = threads
            .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |threads| threads.get()));
        let gan = definition.build(threads)?;
        if definition.gan.grid.is_some() && super::grid::picture(gan.sample_shape()).is_none() {
            let problem = format!(
                "grid is of pictures, [height, width], with 1, 3 or 4 channels; samples have the shape {:?}",
                gan.sample_shape()
            );
            return Err(TrainError::Definition { place: "[gan]".to_owned(), problem });
        }
        if definition.data.stream {
            let problem = "stream is for models: the samples of a GAN are kept in memory";
            return Err(TrainError::data("[data]", problem));
        }
        let mut reader =
            Reader { base, definition: &definition, input: definition.samples()?, names: None, count: None };
        reader.count = gan.label_len().filter(|&len| len > 1);
        let (x, classes) = reader.read(None)?;
        if gan.label_len().is_some() && classes.is_none() {
            let problem = format!(
                "the networks have an input {LABEL}, and the data has no classes: say y, what they are read from"
            );
            return Err(TrainError::Definition { place: "[data]".to_owned(), problem });
        }
        if definition.data.test.is_some() && classes.is_none() {
            let problem = "test is what the figure is compared with, which needs classes: say y, what they are read from";
            return Err(TrainError::data("[data]", problem));
        }
        let test = definition.data.test.as_ref().map(|part| reader.read(Some(part))).transpose()?;
        let test = test.and_then(|(x, classes)| Some((x, classes?)));
        let class_count = reader.count.unwrap_or(0);
        let names = reader.names;
        let given = classes.as_deref().filter(|_| gan.label_len().is_some());
        let labels = gan.labels(x.samples(), given)?;
        let bounds = match definition.gan.range {
            Some(_) => [-1.0, 1.0],
            None => x.values.iter().fold([f32::INFINITY, f32::NEG_INFINITY], |[low, high], &value| {
                [low.min(value), high.max(value)]
            }),
        };
        let numbers: Vec<f32> = classes.iter().flatten().map(|&class| class as f32).collect();
        let identity =
            Identity { definition: definition.identity(), data: hash_of([&x.values[..], &numbers[..]]) };
        Ok(Session { definition, gan, x, classes, class_count, names, labels, test, bounds, identity })
    }
}

struct Reader<'a> {
    base: &'a Path,
    definition: &'a GanDefinition,
    input: (String, Vec<usize>),
    names: Option<Vec<String>>,
    /// Classes, once that is known.
    count: Option<usize>,
}

impl Reader<'_> {
    fn read(&mut self, part: Option<&Part>) -> Result<(Array, Option<Vec<usize>>)> {
        let inputs = std::slice::from_ref(&self.input);
        let Loaded { mut x, y, places, .. } =
            data::load(self.base, &self.definition.data, part, inputs, &[LABEL.to_owned()])?;
        let classes = y.into_iter().next().map(|target| self.classes(target, &places)).transpose()?;
        Ok((self.scaled(x.swap_remove(0), &places)?, classes))
    }

    fn classes(&mut self, target: Target, places: &Places) -> Result<Vec<usize>> {
        let greatest = match &target {
            Target::Numbers(array) => array.values.iter().copied().fold(0.0, f32::max),
            Target::Names(names) => names.len() as f32,
        };
        if self.count.is_none() && greatest >= CLASSES_MAX as f32 && matches!(target, Target::Numbers(_)) {
            let problem = format!("y has {greatest}; classes are numbers from 0 to {}", CLASSES_MAX - 1);
            return Err(TrainError::data(places.of(0), problem));
        }
        let room = self.count.unwrap_or(greatest as usize + 1);
        let loss = SparseCategoricalCrossentropy.into();
        let encoded = data::encode(target, &[room], &loss, &mut self.names, places)?;
        let classes: Vec<usize> = encoded.values.iter().map(|&class| class as usize).collect();
        let named = self.names.as_ref().map(Vec::len);
        self.count = self.count.or(named).or(Some(room));
        Ok(classes)
    }

    /// Brings samples from `range` to -1..1.
    fn scaled(&self, mut x: Array, places: &Places) -> Result<Array> {
        let Some([low, high]) = self.definition.gan.range else { return Ok(x) };
        let len = x.sample_len().max(1);
        if let Some(at) = x.values.iter().position(|value| !(low..=high).contains(value)) {
            let problem = format!("x has {}, and range in [gan] is [{low}, {high}]", x.values[at]);
            return Err(TrainError::data(places.of(at / len), problem));
        }
        x.values.iter_mut().for_each(|value| *value = (*value - low) / (high - low) * 2.0 - 1.0);
        Ok(x)
    }
}
