//! Which columns of a table are inputs, targets and weights, by the names that a definition gives.

use super::Wanted;
use crate::definition::nearest;
use crate::error::{Result, TrainError};

/// Names that an error shows, at most.
const SHOWN_MAX: usize = 30;

/// Numbers of columns.
pub(super) struct Chosen {
    pub x: Vec<Vec<usize>>,
    pub y: Vec<Vec<usize>>,
    pub weights: Option<usize>,
}

impl Chosen {
    /// Of `count` columns those that are wanted; `column` finds one by its name. Without names of inputs, they are all
    /// that are neither targets nor weights.
    pub fn new(wanted: &Wanted, count: usize, column: impl Fn(&String) -> Result<usize>) -> Result<Chosen> {
        let all = |groups: &[Vec<String>]| -> Result<Vec<Vec<usize>>> {
            groups.iter().map(|names| names.iter().map(&column).collect()).collect()
        };
        let y = all(&wanted.y)?;
        let weights = wanted.weights.as_ref().map(&column).transpose()?;
        let x = match &wanted.x {
            Some(x) => all(x)?,
            None => {
                let taken = |column: &usize| y.iter().flatten().chain(&weights).any(|other| other == column);
                vec![(0..count).filter(|column| !taken(column)).collect()]
            }
        };
        Ok(Chosen { x, y, weights })
    }
}

/// There is no such column, but these are.
pub(super) fn no_column(place: impl Into<String>, name: &str, names: &[String]) -> TrainError {
    let tip = nearest(name, names.iter().map(String::as_str));
    let shown: Vec<&str> = names.iter().take(SHOWN_MAX).map(String::as_str).collect();
    let more = if names.len() > shown.len() { ", ..." } else { "" };
    TrainError::data(place, format!("there is no column {name}{tip}; there are: {}{more}", shown.join(", ")))
}
