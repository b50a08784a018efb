//! Samples out of files: what a definition's `[data]` names becomes arrays as the model takes them, with errors that say
//! the file and the line or sample.

mod arrays;
mod chosen;
mod csv;
mod idx;
mod images;
mod jsonl;
mod npy;
mod parquet;
mod split;
mod spool;
mod targets;
mod text;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use split::{Learning, Scale, split};
pub(crate) use spool::Spool;
pub use targets::{class_weights, classes_of, encode, greatest};
pub use text::last_only;

use crate::definition::{Data, Format, OneOrMany, Part, Selection};
use crate::error::{Result, TrainError};
use crate::model::Array;

/// Values that one set of samples may have in memory: 8 GiB of them.
const VALUES_MAX: usize = 1 << 31;
/// Values that a reader hands on at once.
const BLOCK_VALUES: usize = 1 << 18;
/// Dimensions of an array in a file.
const DIMENSIONS_MAX: usize = 8;

/// Samples as files have them.
pub struct Loaded {
    /// One array an input.
    pub x: Vec<Array>,
    /// One an output; none where targets are the inputs.
    pub y: Vec<Target>,
    pub weights: Option<Vec<f32>>,
    pub places: Places,
}

/// What a file says of the targets.
#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    Numbers(Array),
    /// The name of each sample's class.
    Names(Vec<String>),
}

/// Where samples stand, for errors.
#[derive(Clone, Debug, PartialEq)]
pub enum Places {
    /// Sample numbers of a file, from this one on.
    Samples(String, usize),
    /// Lines of a file, from 1.
    Lines(String, Vec<u64>),
    /// Rows of a CSV file, by where they begin.
    Rows(PathBuf, Vec<u64>),
    /// Rows of a Parquet file, by how many each of its groups has.
    Groups(String, Vec<usize>),
    /// A file each.
    Files(Vec<PathBuf>),
    /// Some of other places.
    Some(Arc<Places>, Vec<usize>),
}

impl Places {
    pub fn of(&self, sample: usize) -> String {
        match self {
            Places::Samples(file, first) => format!("{file}, sample {}", first + sample),
            Places::Lines(file, lines) => {
                format!("{file}, line {}", lines.get(sample).copied().unwrap_or_default())
            }
            Places::Rows(path, starts) => {
                let line = starts.get(sample).map_or(1, |&start| csv::line_at(path, start));
                format!("{}, line {line}", path.display())
            }
            Places::Groups(file, rows) => {
                let (mut group, mut row) = (0, sample);
                while rows.get(group).is_some_and(|&rows| rows <= row) {
                    row -= rows[group];
                    group += 1;
                }
                format!("{file}, row group {group}, row {row}")
            }
            Places::Files(files) => {
                files.get(sample).map(|file| file.display().to_string()).unwrap_or_default()
            }
            Places::Some(all, which) => all.of(which.get(sample).copied().unwrap_or_default()),
        }
    }

    /// Adds the places of samples that follow.
    fn append(&mut self, more: Places) {
        match (self, more) {
            (Places::Lines(_, all), Places::Lines(_, more))
            | (Places::Rows(_, all), Places::Rows(_, more)) => {
                all.extend(more);
            }
            (Places::Groups(_, all), Places::Groups(_, more)) => all.extend(more),
            (Places::Files(all), Places::Files(more)) => all.extend(more),
            // These are their number alone.
            _ => {}
        }
    }
}

/// What is read: names of columns, keys or files for each input and output.
struct Wanted {
    /// None: all that isn't a target or a weight.
    x: Option<Vec<Vec<String>>>,
    y: Vec<Vec<String>>,
    weights: Option<String>,
}

/// One column or several side by side: values of each sample.
struct Column {
    /// Of a sample.
    shape: Vec<usize>,
    values: Values,
}

enum Values {
    Numbers(Vec<f32>),
    Names(Vec<String>),
    /// Of the columns `columns` of a table: numbers, if each is one, and names otherwise.
    Texts {
        texts: Vec<String>,
        columns: Vec<String>,
    },
}

impl Values {
    fn len(&self) -> usize {
        match self {
            Values::Numbers(values) => values.len(),
            Values::Names(texts) | Values::Texts { texts, .. } => texts.len(),
        }
    }

    /// Numbers or names, of what may be either.
    fn settled(self, places: &Places) -> Result<Values> {
        let Values::Texts { texts, columns } = self else { return Ok(self) };
        let numbers: Vec<Option<f32>> = texts.iter().map(|text| text.parse().ok()).collect();
        match numbers.iter().position(Option::is_none) {
            None => Ok(Values::Numbers(numbers.into_iter().flatten().collect())),
            Some(_) if columns.len() == 1 => Ok(Values::Names(texts)),
            Some(at) => Err(no_number(&columns, at, &texts[at], places)),
        }
    }
}

fn no_number(columns: &[String], at: usize, text: &str, places: &Places) -> TrainError {
    let count = columns.len().max(1);
    let problem = format!("column {} has {text:?}, and a number was expected", columns[at % count]);
    TrainError::data(places.of(at / count), problem)
}

/// Takes samples as they are read, block after block.
type Each<'a> = &'a mut dyn FnMut(Columns) -> Result<()>;

/// Columns of all samples.
struct Columns {
    x: Vec<Column>,
    y: Vec<Column>,
    weights: Option<Vec<f32>>,
    samples: usize,
    places: Places,
}

impl Columns {
    /// Adds samples that follow.
    fn append(&mut self, more: Columns) -> Result<()> {
        let place = || more.places.of(0);
        for (all, more) in self.x.iter_mut().chain(&mut self.y).zip(more.x.into_iter().chain(more.y)) {
            if all.shape != more.shape {
                let problem = format!("samples have the shape {:?}, and {:?} before", more.shape, all.shape);
                return Err(TrainError::data(place(), problem));
            }
            match (&mut all.values, more.values) {
                (Values::Numbers(all), Values::Numbers(more)) => all.extend(more),
                (Values::Names(all), Values::Names(more))
                | (Values::Texts { texts: all, .. }, Values::Texts { texts: more, .. }) => all.extend(more),
                _ => {
                    return Err(TrainError::data(
                        place(),
                        "there are texts, and numbers before, or the other way",
                    ));
                }
            }
            if all.values.len() > VALUES_MAX {
                return Err(TrainError::data(
                    place(),
                    format!("there are more than {VALUES_MAX} values: set stream = true in [data]"),
                ));
            }
        }
        if let (Some(all), Some(more)) = (&mut self.weights, more.weights) {
            all.extend(more);
        }
        self.samples += more.samples;
        self.places.append(more.places);
        Ok(())
    }
}

/// Reads the samples that `data` names, or those of its part `part`.
///
/// # Errors
/// When a file can't be read, isn't what it should be, or has a value that is no finite number.
pub fn load(
    base: &Path,
    data: &Data,
    part: Option<&Part>,
    inputs: &[(String, Vec<usize>)],
    outputs: &[String],
) -> Result<Loaded> {
    shaped(together(|each| read(base, data, part, (inputs, outputs), false, each))?, inputs)
}

/// All blocks that `read` hands on, as one.
fn together(read: impl FnOnce(Each<'_>) -> Result<()>) -> Result<Columns> {
    let mut all: Option<Columns> = None;
    read(&mut |block| match &mut all {
        Some(all) => all.append(block),
        None => {
            all = Some(block);
            Ok(())
        }
    })?;
    all.ok_or_else(|| TrainError::data("[data]", "there are no samples"))
}

/// As [`load`], into a file in `folder` that nobody else sees, from which batches are read.
///
/// # Errors
/// As [`load`], and when the file can't be written.
pub(crate) fn spool(
    base: &Path,
    data: &Data,
    part: Option<&Part>,
    inputs: &[(String, Vec<usize>)],
    outputs: &[String],
    folder: &Path,
) -> Result<Spool> {
    let mut spooling = spool::Spooling::new(folder)?;
    read(base, data, part, (inputs, outputs), true, &mut |block| spooling.add(block))?;
    spooling.finish()
}

/// Hands the samples that `data` names to `each`, block after block, at least one. Where they are not `streamed`, all must fit
/// in memory.
fn read(
    base: &Path,
    data: &Data,
    part: Option<&Part>,
    (inputs, outputs): (&[(String, Vec<usize>)], &[String]),
    streamed: bool,
    each: Each<'_>,
) -> Result<()> {
    let path = part.and_then(|part| part.path.as_ref()).or(data.path.as_ref());
    let x = part.and_then(|part| part.x.as_ref()).or(data.x.as_ref());
    let y = part.and_then(|part| part.y.as_ref()).or(data.y.as_ref());
    let input_names: Vec<&str> = inputs.iter().map(|(name, _)| name.as_str()).collect();
    let output_names: Vec<&str> = outputs.iter().map(String::as_str).collect();
    let mut wanted = Wanted {
        x: x.map(|x| chosen("x", x, &input_names)).transpose()?,
        y: y.map(|y| chosen("y", y, &output_names)).transpose()?.unwrap_or_default(),
        weights: part.and_then(|part| part.weights.as_ref()).or(data.weights.as_ref()).cloned(),
    };
    let format = format(data, path, &wanted)?;
    if let (Format::Npy | Format::Idx, Some(Part { x: Some(_), weights: None, .. })) = (format, part) {
        // Those of [data] are a file with as many numbers as there are samples there.
        wanted.weights = None;
    }
    match (format, path) {
        (Format::Npy | Format::Idx, _) => array_files(base, format, &wanted, streamed, each),
        (_, None) => Err(TrainError::data("[data]", "it needs `path`, the file or folder with the samples")),
        (Format::Csv, Some(path)) => {
            csv::read(&base.join(path), data.delimiter.unwrap_or(','), &wanted, each)
        }
        (Format::Jsonl, Some(path)) => jsonl::read(&base.join(path), &wanted, each),
        (Format::Parquet, Some(path)) => parquet::read(&base.join(path), &wanted, each),
        (Format::Npz, Some(path)) => npy::read_archive(&base.join(path), &wanted, streamed, each),
        (Format::Images, Some(path)) => {
            let size = inputs.first().map_or(&[][..], |(_, shape)| shape);
            images::read(&base.join(path), size, each)
        }
        (Format::Text, Some(path)) => {
            let [(_, shape)] = inputs else {
                return Err(TrainError::data("[data]", "text is read for a model of one input"));
            };
            let [length] = shape[..] else {
                let problem =
                    format!("text is read for an input of one size, the bytes seen at once; it is {shape:?}");
                return Err(TrainError::data("[data]", problem));
            };
            if x.is_some() || y.is_some() || data.weights.is_some() {
                return Err(TrainError::data(
                    "[data]",
                    "text has no x, y or weights: the target is what follows",
                ));
            }
            text::read(&base.join(path), length, data.stride.unwrap_or(length), each)
        }
    }
}

/// The rows of a CSV file: all columns but `target` as numbers, and the numbers of `classes` classes in it as rows of 0
/// and 1.
///
/// # Errors
/// As [`load`], and when a class isn't one of them.
pub fn read_csv(path: &Path, target: &str, classes: usize) -> Result<(Array, Array)> {
    let wanted = Wanted { x: None, y: vec![vec![target.to_owned()]], weights: None };
    let columns = together(|each| csv::read(path, ',', &wanted, each))?;
    let shape: Vec<usize> = columns.x.iter().flat_map(|column| column.shape.clone()).collect();
    let Loaded { mut x, y, places, .. } = shaped(columns, &[(target.to_owned(), shape)])?;
    let loss = crate::losses::CategoricalCrossentropy.into();
    let y = y.into_iter().map(|target| encode(target, &[classes], &loss, &mut None, &places));
    let mut y: Vec<Array> = y.collect::<Result<_>>()?;
    Ok((x.swap_remove(0), y.swap_remove(0)))
}

/// Names for each of `names`, the inputs or the outputs.
fn chosen(key: &str, selection: &Selection, names: &[&str]) -> Result<Vec<Vec<String>>> {
    let wrong = |problem: String| TrainError::data("[data]", problem);
    match selection {
        Selection::Plain(one) if names.len() == 1 => Ok(vec![one.as_slice().to_vec()]),
        Selection::Plain(OneOrMany::Many(many)) if many.len() == names.len() => {
            Ok(many.iter().map(|one| vec![one.clone()]).collect())
        }
        Selection::Plain(_) => Err(wrong(format!(
            "{key} is a table with the keys {} here, since the model has {} of them",
            names.join(", "),
            names.len()
        ))),
        Selection::ByName(by_name) => {
            if let Some(other) = by_name.keys().find(|name| !names.contains(&name.as_str())) {
                return Err(wrong(format!("{key} has the key {other}; the model has: {}", names.join(", "))));
            }
            let of = |name: &&str| match by_name.get(*name) {
                Some(selected) => Ok(selected.as_slice().to_vec()),
                None => Err(wrong(format!("{key} lacks the key {name}"))),
            };
            names.iter().map(of).collect()
        }
    }
}

fn format(data: &Data, path: Option<&PathBuf>, wanted: &Wanted) -> Result<Format> {
    if let Some(format) = data.format {
        return Ok(format);
    }
    let first = wanted.x.iter().flatten().flatten().next();
    let name = match (path, first) {
        (Some(path), _) => path.to_string_lossy().into_owned(),
        (None, Some(file)) => file.clone(),
        (None, None) => return Err(TrainError::data("[data]", "it needs `path`, or `x` and `y`")),
    };
    let plain = name.strip_suffix(".gz").unwrap_or(&name).to_lowercase();
    let ending = plain.rsplit('.').next().unwrap_or_default();
    match ending {
        "csv" | "tsv" => Ok(Format::Csv),
        "jsonl" | "ndjson" => Ok(Format::Jsonl),
        "npz" => Ok(Format::Npz),
        "npy" => Ok(Format::Npy),
        "parquet" => Ok(Format::Parquet),
        "txt" => Ok(Format::Text),
        _ if plain.contains("idx") && path.is_none() => Ok(Format::Idx),
        _ if path.is_some() && !plain.contains('.') => Ok(Format::Images),
        _ => Err(TrainError::data(
            "[data]",
            format!(
                "{name} doesn't say what it is by its ending: set format to csv, jsonl, parquet, npz, npy, idx, \
                 images or text"
            ),
        )),
    }
}

/// Inputs and targets that are a file each.
fn array_files(base: &Path, format: Format, wanted: &Wanted, streamed: bool, each: Each<'_>) -> Result<()> {
    let mut first = String::new();
    let mut open = |names: &[String]| {
        let [name] = names else {
            return Err(TrainError::data("[data]", format!("x and y are a file each; received {names:?}")));
        };
        if first.is_empty() {
            first = name.clone();
        }
        match format {
            Format::Idx => idx::open(&base.join(name)),
            _ => npy::open(&base.join(name)),
        }
    };
    let x = wanted.x.as_deref().unwrap_or_default().iter().map(|names| open(names)).collect::<Result<_>>()?;
    let y = wanted.y.iter().map(|names| open(names)).collect::<Result<_>>()?;
    let weights = wanted.weights.as_ref().map(|name| open(std::slice::from_ref(name))).transpose()?;
    arrays::ArrayFiles { x, y, weights }.read(&first, streamed, each)
}

/// Columns in the shapes of the model's inputs, every value a finite number.
fn shaped(columns: Columns, inputs: &[(String, Vec<usize>)]) -> Result<Loaded> {
    let Columns { x, y, weights, samples, places } = columns;
    if samples == 0 {
        return Err(TrainError::data(places.of(0), "there are no samples"));
    }
    if x.len() != inputs.len() {
        let problem = format!("x names {} inputs, and the model has {}", x.len(), inputs.len());
        return Err(TrainError::data("[data]", problem));
    }
    let mut arrays = vec![];
    for (column, (name, shape)) in x.into_iter().zip(inputs) {
        let Values::Numbers(values) = column.values else {
            return Err(TrainError::data(
                "[data]",
                format!("the input {name} is read from texts; it takes numbers"),
            ));
        };
        if column.shape.iter().product::<usize>() != shape.iter().product::<usize>() {
            let problem =
                format!("samples have the shape {:?}, and the input {name} takes {shape:?}", column.shape);
            return Err(TrainError::data(places.of(0), problem));
        }
        check_finite("x", &values, samples, &places)?;
        arrays.push(Array::new([&[samples], &shape[..]].concat(), values)?);
    }
    let mut targets = vec![];
    for column in y {
        targets.push(match column.values.settled(&places)? {
            Values::Names(names) | Values::Texts { texts: names, .. } => Target::Names(names),
            Values::Numbers(values) => {
                check_finite("y", &values, samples, &places)?;
                Target::Numbers(Array::new([&[samples], &column.shape[..]].concat(), values)?)
            }
        });
    }
    if let Some(weights) = &weights {
        check_finite("the weight", weights, samples, &places)?;
        if let Some(at) = weights.iter().position(|&weight| weight < 0.0) {
            return Err(TrainError::data(places.of(at), format!("the weight is {}", weights[at])));
        }
    }
    Ok(Loaded { x: arrays, y: targets, weights, places })
}

fn check_finite(what: &str, values: &[f32], samples: usize, places: &Places) -> Result<()> {
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok(()),
        Some(at) => {
            let len = (values.len() / samples.max(1)).max(1);
            let place = if len > 1 { format!(" at place {} of the sample", at % len) } else { String::new() };
            Err(TrainError::data(
                places.of(at / len),
                format!("{what} has {}{place}; every value is a finite number", values[at]),
            ))
        }
    }
}

#[cfg(test)]
mod tests;
