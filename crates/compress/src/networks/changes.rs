//! What a rewrite did to a tensor, in figures.

use serde::Serialize;

/// A tensor before and after.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    pub tensor: String,
    pub shape: Vec<usize>,
    /// What became of it, such as `int8`.
    pub became: String,
    pub bytes_before: usize,
    pub bytes_after: usize,
    /// Root of the mean squared difference, over that of the values.
    pub relative_error: f64,
    /// The greatest difference.
    pub greatest_error: f64,
    /// Share of values that are zero now.
    pub zeros: f64,
}

impl Change {
    pub(super) fn new(
        (tensor, shape, became): (&str, &[usize], String),
        before: &[f32],
        after: &[f32],
        bytes_after: usize,
    ) -> Change {
        let (mut difference, mut size, mut greatest) = (0f64, 0f64, 0f64);
        for (a, b) in after.iter().zip(before) {
            let error = f64::from(a - b);
            difference += error * error;
            size += f64::from(*b).powi(2);
            greatest = greatest.max(error.abs());
        }
        let zeros = after.iter().filter(|value| **value == 0.0).count();
        Change {
            tensor: tensor.to_owned(),
            shape: shape.to_vec(),
            became,
            bytes_before: before.len() * 4,
            bytes_after,
            relative_error: if size > 0.0 { (difference / size).sqrt() } else { 0.0 },
            greatest_error: greatest,
            zeros: zeros as f64 / after.len().max(1) as f64,
        }
    }
}
