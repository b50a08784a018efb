//! Samples on the disk: each as long, one after the other in a file that nobody else sees, so that batches of any order are
//! read from data that memory can't hold.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::targets::{CLASSES_MAX, in_order};
use super::{Column, Columns, Loaded, Places, Values, no_number, shaped};
use crate::error::{Result, TrainError};

/// The file's name, as long as it has one.
const FILE_NAME: &str = "samples.spool";

/// Samples in a file.
pub(crate) struct Spool {
    file: File,
    path: PathBuf,
    parts: Vec<Part>,
    inputs: usize,
    weighted: bool,
    pub samples: usize,
    pub places: Arc<Places>,
}

/// An input, a target or the weight of a sample.
struct Part {
    shape: Vec<usize>,
    /// Values in the file.
    len: usize,
    kind: Kind,
    /// Names by number, once all are known.
    names: Vec<String>,
}

enum Kind {
    Numbers,
    /// The number in the file is of the names in the order in which they came.
    Names(Names),
    /// As [`Kind::Names`], with the text as a number before it: NaN where it is none.
    Either {
        names: Names,
        /// Columns, and where the first text is that is no number.
        columns: Vec<String>,
        no_number: Option<(usize, String)>,
    },
}

/// Names by number.
#[derive(Default)]
struct Names {
    numbers: HashMap<String, usize>,
    too_many: bool,
}

impl Names {
    fn number(&mut self, name: &str) -> f32 {
        if let Some(&number) = self.numbers.get(name) {
            return number as f32;
        }
        if self.numbers.len() >= CLASSES_MAX {
            self.too_many = true;
            return f32::NAN;
        }
        self.numbers.insert(name.to_owned(), self.numbers.len());
        (self.numbers.len() - 1) as f32
    }

    /// By number.
    fn all(&self) -> Vec<String> {
        let mut all: Vec<(&usize, &String)> =
            self.numbers.iter().map(|(name, number)| (number, name)).collect();
        all.sort();
        all.into_iter().map(|(_, name)| name.clone()).collect()
    }
}

/// A spool while it is written.
pub(super) struct Spooling {
    file: BufWriter<File>,
    path: PathBuf,
    parts: Vec<Part>,
    inputs: usize,
    weighted: bool,
    samples: usize,
    places: Option<Places>,
}

impl Spooling {
    /// A file in `folder` that goes when the last who has it open ends.
    pub fn new(folder: &Path) -> Result<Spooling> {
        let path = folder.join(FILE_NAME);
        let failed = |error: std::io::Error| TrainError::file(&path, "written", &error);
        let file =
            File::options().read(true).write(true).create(true).truncate(true).open(&path).map_err(failed)?;
        std::fs::remove_file(&path).map_err(failed)?;
        let file = BufWriter::with_capacity(1 << 20, file);
        Ok(Spooling { file, path, parts: vec![], inputs: 0, weighted: false, samples: 0, places: None })
    }

    pub fn add(&mut self, block: Columns) -> Result<()> {
        let Columns { x, y, weights, samples, places } = block;
        let inputs = x.len();
        self.weighted = weights.is_some();
        let weights = weights.map(|values| Column { shape: vec![], values: Values::Numbers(values) });
        let columns: Vec<Column> = x.into_iter().chain(y).chain(weights).collect();
        if self.places.is_none() {
            self.inputs = inputs;
            self.parts = columns.iter().map(part).collect();
        }
        let mut rows: Vec<Vec<f32>> = vec![];
        for (part, column) in self.parts.iter_mut().zip(columns) {
            if part.shape != column.shape {
                let problem =
                    format!("samples have the shape {:?}, and {:?} before", column.shape, part.shape);
                return Err(TrainError::data(places.of(0), problem));
            }
            let values = part.values(column.values, &places, self.samples);
            rows.push(values?);
        }
        let mut bytes = vec![];
        for sample in 0..samples {
            for (part, values) in self.parts.iter().zip(&rows) {
                let values = &values[sample * part.len..][..part.len];
                bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
            }
        }
        self.file.write_all(&bytes).map_err(|error| TrainError::file(&self.path, "written", &error))?;
        self.samples += samples;
        match &mut self.places {
            Some(all) => all.append(places),
            none => *none = Some(places),
        }
        Ok(())
    }

    pub fn finish(self) -> Result<Spool> {
        let Spooling { file, path, mut parts, inputs, weighted, samples, places } = self;
        let file = file.into_inner().map_err(|error| TrainError::file(&path, "written", error.error()))?;
        let Some(places) = places.filter(|_| samples > 0) else {
            return Err(TrainError::data("[data]", "there are no samples"));
        };
        for part in &mut parts {
            part.names = match &part.kind {
                Kind::Numbers | Kind::Either { no_number: None, .. } => continue,
                Kind::Either { columns, no_number: Some((at, text)), .. } if columns.len() > 1 => {
                    return Err(no_number(columns, *at, text, &places));
                }
                Kind::Names(names) | Kind::Either { names, .. } if names.too_many => {
                    let problem = format!("there are more than {CLASSES_MAX} classes");
                    return Err(TrainError::data(places.of(0), problem));
                }
                Kind::Names(names) | Kind::Either { names, .. } => names.all(),
            };
        }
        Ok(Spool { file, path, parts, inputs, weighted, samples, places: Arc::new(places) })
    }
}

/// What a column becomes in the file.
fn part(column: &Column) -> Part {
    let shape = column.shape.clone();
    let len: usize = shape.iter().product();
    match &column.values {
        Values::Numbers(_) => Part { shape, len, kind: Kind::Numbers, names: vec![] },
        Values::Names(_) => Part { shape, len: 1, kind: Kind::Names(Names::default()), names: vec![] },
        Values::Texts { columns, .. } => {
            let kind = Kind::Either { names: Names::default(), columns: columns.clone(), no_number: None };
            Part { shape, len: 2 * len, kind, names: vec![] }
        }
    }
}

impl Part {
    /// What is written of a block, of which the first sample is number `first`.
    fn values(&mut self, values: Values, places: &Places, first: usize) -> Result<Vec<f32>> {
        match (&mut self.kind, values) {
            (Kind::Numbers, Values::Numbers(values)) => Ok(values),
            (Kind::Names(names), Values::Names(texts)) => {
                Ok(texts.iter().map(|text| names.number(text)).collect())
            }
            (Kind::Either { names, no_number, .. }, Values::Texts { texts, columns }) => {
                let mut values = Vec::with_capacity(2 * texts.len());
                for (at, text) in texts.iter().enumerate() {
                    let number = text.parse();
                    if number.is_err() && no_number.is_none() {
                        *no_number = Some((first * columns.len() + at, text.clone()));
                    }
                    values.push(number.unwrap_or(f32::NAN));
                    values.push(names.number(text));
                }
                Ok(values)
            }
            _ => Err(TrainError::data(places.of(0), "there are texts, and numbers before, or the other way")),
        }
    }

    /// The values of samples out of those in the file.
    fn column(&self, values: Vec<f32>) -> Column {
        let every_other = |from: usize| values.iter().copied().skip(from).step_by(2).collect::<Vec<f32>>();
        let named = |numbers: Vec<f32>| {
            numbers.into_iter().map(|number| self.names[number as usize].clone()).collect()
        };
        let shape = self.shape.clone();
        match &self.kind {
            Kind::Numbers => Column { shape, values: Values::Numbers(values) },
            Kind::Names(_) => Column { shape, values: Values::Names(named(values)) },
            Kind::Either { no_number: None, .. } => Column { shape, values: Values::Numbers(every_other(0)) },
            Kind::Either { .. } => Column { shape, values: Values::Names(named(every_other(1))) },
        }
    }
}

impl Spool {
    pub fn is_weighted(&self) -> bool {
        self.weighted
    }

    /// The names of the classes of target `number`, in their order, where it has names.
    pub fn names(&self, number: usize) -> Option<Vec<String>> {
        let part = self.parts.get(self.inputs + number)?;
        (!part.names.is_empty()).then(|| in_order(part.names.clone()))
    }

    /// The samples `which`, checked, in the shapes of the model's inputs.
    pub fn read(&self, which: &[usize], inputs: &[(String, Vec<usize>)]) -> Result<Loaded> {
        shaped(self.columns(which)?, inputs)
    }

    /// The samples `which`, as a reader would hand them on.
    fn columns(&self, which: &[usize]) -> Result<Columns> {
        let record: usize = self.parts.iter().map(|part| part.len).sum();
        let mut bytes = vec![0u8; which.len() * record * 4];
        let mut at = 0;
        // Samples that follow each other are read at once.
        while at < which.len() {
            let mut count = 1;
            while at + count < which.len() && which[at + count] == which[at] + count {
                count += 1;
            }
            let to = &mut bytes[at * record * 4..][..count * record * 4];
            self.file
                .read_exact_at(to, which[at] as u64 * record as u64 * 4)
                .map_err(|error| TrainError::file(&self.path, "read", &error))?;
            at += count;
        }
        let mut columns: Vec<Column> = vec![];
        let mut start = 0;
        for part in &self.parts {
            let of = |sample: &[u8]| sample[start * 4..][..part.len * 4].to_vec();
            let bytes = bytes.chunks_exact((record * 4).max(1)).flat_map(of).collect::<Vec<u8>>();
            let float = |bytes: &[u8]| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            let values = bytes.chunks_exact(4).map(float).collect();
            columns.push(part.column(values));
            start += part.len;
        }
        let weights = match columns.pop_if(|_| self.weighted).map(|column| column.values) {
            Some(Values::Numbers(weights)) => Some(weights),
            _ => None,
        };
        let y = columns.split_off(self.inputs.min(columns.len()));
        let places = Places::Some(self.places.clone(), which.to_vec());
        Ok(Columns { x: columns, y, weights, samples: which.len(), places })
    }
}
