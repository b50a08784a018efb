//! Values for inputs and targets.

use crate::error::{Result, TrainError};

/// Samples one after the other: the first size is their number.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Array {
    pub shape: Vec<usize>,
    pub values: Vec<f32>,
}

impl Array {
    /// # Errors
    /// When the shape has another number of values.
    pub fn new(shape: impl Into<Vec<usize>>, values: Vec<f32>) -> Result<Array> {
        let shape = shape.into();
        if shape.is_empty() || shape.iter().product::<usize>() != values.len() {
            return Err(TrainError::Argument {
                place: "Array".to_owned(),
                argument: "shape",
                expected: format!("the sizes of {} values", values.len()),
                received: format!("{shape:?}"),
            });
        }
        Ok(Array { shape, values })
    }

    pub fn samples(&self) -> usize {
        self.shape[0]
    }

    /// Values of a sample.
    pub fn sample_len(&self) -> usize {
        self.shape[1..].iter().product()
    }

    /// The samples `which`.
    pub(crate) fn chosen(&self, which: &[usize]) -> Array {
        let mut values = vec![0.0; which.len() * self.sample_len()];
        self.gather(which, &mut values);
        Array { shape: [&[which.len()], &self.shape[1..]].concat(), values }
    }

    /// Copies the samples `which` one after the other.
    pub(crate) fn gather(&self, which: &[usize], to: &mut [f32]) {
        let len = self.sample_len();
        for (to, &sample) in to.chunks_exact_mut(len.max(1)).zip(which) {
            to.copy_from_slice(&self.values[sample * len..][..len]);
        }
    }
}

/// One array, or one for each input or output.
#[derive(Clone, Debug)]
pub struct Arrays(pub(super) Vec<Array>);

impl From<Array> for Arrays {
    fn from(array: Array) -> Arrays {
        Arrays(vec![array])
    }
}

impl From<&Array> for Arrays {
    fn from(array: &Array) -> Arrays {
        Arrays(vec![array.clone()])
    }
}

impl From<Vec<Array>> for Arrays {
    fn from(arrays: Vec<Array>) -> Arrays {
        Arrays(arrays)
    }
}
