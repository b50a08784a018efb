//! Arrays in files, read from their beginning some samples at a time.

use std::io::Read;

use super::{BLOCK_VALUES, Column, Columns, DIMENSIONS_MAX, Each, Places, VALUES_MAX, Values};
use crate::error::{Result, TrainError};

/// An array of which no more is in memory than was asked for.
pub(super) struct ArrayFile<'a> {
    file: String,
    /// Samples first.
    shape: Vec<usize>,
    source: Source<'a>,
}

/// Numbers out of their bytes.
type Numbers<'a> = Box<dyn Fn(&[u8]) -> Vec<f32> + 'a>;

enum Source<'a> {
    Bytes {
        from: Box<dyn Read + 'a>,
        /// Bytes of a value.
        width: usize,
        numbers: Numbers<'a>,
    },
    /// What couldn't be read in order.
    Values(std::vec::IntoIter<f32>),
}

impl<'a> ArrayFile<'a> {
    /// An array of `shape`, which a header said, whose values follow in `from`, `width` bytes each.
    ///
    /// # Errors
    /// When the shape has no dimension, too many, or samples of too many values.
    pub fn new(
        file: &str,
        shape: Vec<usize>,
        from: impl Read + 'a,
        width: usize,
        value: impl Fn(&[u8]) -> f32 + 'a,
    ) -> Result<ArrayFile<'a>> {
        let product =
            |sizes: &[usize]| sizes.iter().try_fold(1usize, |product, &size| product.checked_mul(size));
        if shape.is_empty() {
            return Err(TrainError::data(file, "its header has no shape with a dimension or more"));
        }
        let all = product(&shape).and_then(|len| len.checked_mul(width));
        let of_sample =
            product(&shape[1..]).filter(|&len| len <= VALUES_MAX && shape.len() <= DIMENSIONS_MAX);
        if all.is_none() || of_sample.is_none() {
            let problem = format!(
                "the shape {shape:?} has samples of more than {VALUES_MAX} values, or more than {DIMENSIONS_MAX} dimensions"
            );
            return Err(TrainError::data(file, problem));
        }
        let numbers = move |bytes: &[u8]| bytes.chunks_exact(width).map(&value).collect();
        let source = Source::Bytes { from: Box::new(from), width, numbers: Box::new(numbers) };
        Ok(ArrayFile { file: file.to_owned(), shape, source })
    }

    fn samples(&self) -> usize {
        self.shape[0]
    }

    fn sample_len(&self) -> usize {
        self.shape[1..].iter().product()
    }

    /// All values at once, in an order that `order` makes of them.
    ///
    /// # Errors
    /// As reading, and when there are too many for memory.
    pub fn reordered(mut self, order: impl Fn(&[usize], &[f32]) -> Vec<f32>) -> Result<ArrayFile<'a>> {
        let len = self.samples().saturating_mul(self.sample_len());
        if len > VALUES_MAX {
            let problem =
                format!("values in Fortran's order are read at once, and these are more than {VALUES_MAX}");
            return Err(TrainError::data(self.file, problem));
        }
        let values = self.next(self.samples())?;
        self.ends()?;
        let values = order(&self.shape, &values);
        Ok(ArrayFile { source: Source::Values(values.into_iter()), ..self })
    }

    /// Values of the next `samples` samples.
    fn next(&mut self, samples: usize) -> Result<Vec<f32>> {
        let len = samples * self.sample_len();
        match &mut self.source {
            Source::Values(values) => Ok(values.take(len).collect()),
            Source::Bytes { from, width, numbers } => {
                let mut bytes = vec![];
                let read = Read::take(from, (len * *width) as u64).read_to_end(&mut bytes);
                read.map_err(|error| TrainError::data(&self.file, format!("it is damaged: {error}")))?;
                if bytes.len() != len * *width {
                    return Err(self.another_length("fewer"));
                }
                Ok(numbers(&bytes))
            }
        }
    }

    /// Whether that was all: to the end, where an archive's sum is compared.
    fn ends(&mut self) -> Result<()> {
        match &mut self.source {
            Source::Values(_) => Ok(()),
            Source::Bytes { from, .. } => match from.read(&mut [0u8]) {
                Ok(0) => Ok(()),
                Ok(_) => Err(self.another_length("more")),
                Err(error) => Err(TrainError::data(&self.file, format!("it is damaged: {error}"))),
            },
        }
    }

    fn another_length(&self, which: &str) -> TrainError {
        let len = self.samples() * self.sample_len();
        let problem = format!("it has {which} values than the {len} of its shape {:?}", self.shape);
        TrainError::data(&self.file, problem)
    }
}

/// Inputs, targets and weights that are an array each.
pub(super) struct ArrayFiles<'a> {
    pub x: Vec<ArrayFile<'a>>,
    pub y: Vec<ArrayFile<'a>>,
    pub weights: Option<ArrayFile<'a>>,
}

impl ArrayFiles<'_> {
    /// Hands their samples on, block after block, as those of `file`.
    ///
    /// # Errors
    /// When they have different numbers of samples, end before, or go on after their shapes say, or are too many for memory and
    /// not `streamed`.
    pub fn read(mut self, file: &str, streamed: bool, each: Each<'_>) -> Result<()> {
        let Some(samples) = self.x.first().map(ArrayFile::samples) else {
            return Err(TrainError::data("[data]", "it needs `x`, what the model's input is read from"));
        };
        let all = || self.x.iter().chain(&self.y).chain(&self.weights);
        if let Some(other) = all().map(ArrayFile::samples).find(|&other| other != samples) {
            let problem = format!("x has {samples} samples, and another array has {other}");
            return Err(TrainError::data(file, problem));
        }
        if let Some(weights) = self.weights.as_ref().filter(|weights| weights.sample_len() != 1) {
            let problem =
                format!("weights are one number a sample, and these have the shape {:?}", weights.shape);
            return Err(TrainError::data(&weights.file, problem));
        }
        if let Some(large) = all().find(|array| !streamed && samples * array.sample_len() > VALUES_MAX) {
            let problem = format!(
                "the shape {:?} has more than {VALUES_MAX} values: set stream = true in [data]",
                large.shape
            );
            return Err(TrainError::data(&large.file, problem));
        }
        let of_sample: usize = all().map(ArrayFile::sample_len).sum();
        let most = (BLOCK_VALUES / of_sample.max(1)).max(1);
        let mut first = 0;
        // At least one block: that there are no samples is found by who takes them.
        loop {
            let count = most.min(samples - first);
            let column = |array: &mut ArrayFile<'_>| {
                let values = Values::Numbers(array.next(count)?);
                Ok(Column { shape: array.shape[1..].to_vec(), values })
            };
            let block = Columns {
                x: self.x.iter_mut().map(column).collect::<Result<_>>()?,
                y: self.y.iter_mut().map(column).collect::<Result<_>>()?,
                weights: self.weights.as_mut().map(|array| array.next(count)).transpose()?,
                samples: count,
                places: Places::Samples(file.to_owned(), first),
            };
            each(block)?;
            first += count;
            if first >= samples {
                break;
            }
        }
        self.x.iter_mut().chain(&mut self.y).chain(&mut self.weights).try_for_each(ArrayFile::ends)
    }
}
