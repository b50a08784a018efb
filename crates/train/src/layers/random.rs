//! `RandomFlip` and `RandomCrop`: images changed at random while training. What is drawn follows from the seed, the step
//! and the place, so a fit that is resumed draws the same.

use serde::{Deserialize, Serialize};

use super::{Call, Layer, Weight, arguments, described, one_shape};
use crate::error::{Result, TrainError};
use crate::graph::{Function, Graph, Id};

/// Which way [`RandomFlip`] turns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FlipMode {
    /// Left to right.
    Horizontal,
    /// Top to bottom.
    Vertical,
    /// Both at once, or neither.
    #[default]
    HorizontalAndVertical,
}

/// Half of the images turned over, while training.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RandomFlip {
    pub mode: FlipMode,
}

impl RandomFlip {
    pub fn new() -> RandomFlip {
        RandomFlip::default()
    }

    arguments! { mode: FlipMode }
}

/// That there is one input of images, `[batch, height, width, channels]`.
pub(super) fn images(place: &str, inputs: &[Vec<usize>]) -> Result<[usize; 4]> {
    let shape = one_shape(place, inputs, 4)?;
    <[usize; 4]>::try_from(shape).map_err(|_| TrainError::Shape {
        layer: place.to_owned(),
        operation: "the layer",
        expected: "images: [batch, height, width, channels]".to_owned(),
        received: inputs.to_vec(),
    })
}

impl Layer for RandomFlip {
    described!("RandomFlip");

    fn weights(&self, inputs: &[Vec<usize>]) -> Result<Vec<Weight>> {
        images("RandomFlip", inputs).map(|_| vec![])
    }

    fn call(&self, call: &mut Call<'_>, inputs: &[Id], _: &[Id]) -> Result<Vec<Id>> {
        if !call.training {
            return Ok(vec![inputs[0]]);
        }
        let batch = call.graph.shape(inputs[0])[0];
        let draws = call.graph.uniform(call.seed, call.step, &[batch, 1, 1, 1]);
        let half = call.graph.scalar(0.5);
        let flips = call.graph.less(draws, half)?;
        let axes: &[usize] = match self.mode {
            FlipMode::Horizontal => &[2],
            FlipMode::Vertical => &[1],
            FlipMode::HorizontalAndVertical => &[1, 2],
        };
        let turned = call.graph.reverse(inputs[0], axes)?;
        Ok(vec![call.graph.select(flips, turned, inputs[0])?])
    }
}

/// A part of the images, at one place for a batch, drawn while training. Otherwise, and where images are no larger than
/// the part, the largest window in the middle of the same proportions, resized: this is what Keras documents. Keras
/// 3.15.1 leaves images as they are when it predicts, so that layers behind don't fit.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RandomCrop {
    pub height: usize,
    pub width: usize,
}

impl RandomCrop {
    pub fn new(height: usize, width: usize) -> RandomCrop {
        RandomCrop { height, width }
    }

    /// Where the window in the middle begins, and its size: rows and columns.
    fn middle(&self, height: usize, width: usize) -> [(usize, usize); 2] {
        let part = |whole: usize, across: usize, of: usize, to: usize| {
            let size = (across as f64 * of as f64 / to as f64) as usize;
            let size = size.min(whole).max(1);
            ((whole - size) / 2, size)
        };
        [part(height, width, self.height, self.width), part(width, height, self.width, self.height)]
    }
}

impl Layer for RandomCrop {
    described!("RandomCrop");

    fn weights(&self, inputs: &[Vec<usize>]) -> Result<Vec<Weight>> {
        images("RandomCrop", inputs)?;
        if self.height == 0 || self.width == 0 {
            let received = format!("{} and {}", self.height, self.width);
            return Err(super::argument_error("RandomCrop", "height", "sizes of 1 or more", received));
        }
        Ok(vec![])
    }

    fn call(&self, call: &mut Call<'_>, inputs: &[Id], _: &[Id]) -> Result<Vec<Id>> {
        let [_, height, width, _] = images("RandomCrop", &[call.graph.shape(inputs[0]).to_vec()])?;
        let mut x = inputs[0];
        if call.training && height > self.height && width > self.width {
            for (axis, from, to) in [(1, height, self.height), (2, width, self.width)] {
                let draw = call.graph.uniform(call.seed, call.step, &[1]);
                let place = call.graph.scale(draw, (from - to + 1) as f32)?;
                let start = call.graph.map(Function::Floor, place);
                x = window(call.graph, x, axis, start, to)?;
            }
            return Ok(vec![x]);
        }
        let [(top, rows), (left, columns)] = self.middle(height, width);
        x = call.graph.slice_axis(x, 1, top, rows)?;
        x = call.graph.slice_axis(x, 2, left, columns)?;
        x = resized(call.graph, x, 1, self.height)?;
        Ok(vec![resized(call.graph, x, 2, self.width)?])
    }
}

/// `size` elements of `axis` from one on that is known when a step runs.
fn window(graph: &mut Graph, x: Id, axis: usize, start: Id, size: usize) -> Result<Id> {
    let numbers = graph.iota(size);
    let numbers = graph.add(numbers, start)?;
    along_first(graph, x, axis, |graph, table| graph.take(table, numbers))
}

/// Applies `change` to `[elements of the axis, everything else]`.
fn along_first(
    graph: &mut Graph,
    x: Id,
    axis: usize,
    change: impl FnOnce(&mut Graph, Id) -> Result<Id>,
) -> Result<Id> {
    let rank = graph.shape(x).len();
    let axes: Vec<usize> = [axis].into_iter().chain((0..rank).filter(|&other| other != axis)).collect();
    let moved = graph.transpose(x, &axes)?;
    let mut shape = graph.shape(moved).to_vec();
    let table = graph.reshape(moved, &[shape[0], shape[1..].iter().product()])?;
    let changed = change(graph, table)?;
    shape[0] = graph.shape(changed)[0];
    let changed = graph.reshape(changed, &shape)?;
    let back: Vec<usize> = (1..=axis).chain([0]).chain(axis + 1..rank).collect();
    graph.transpose(changed, &back)
}

/// An axis stretched or squeezed to `size` elements, linearly between the two nearest, with centres on centres.
fn resized(graph: &mut Graph, x: Id, axis: usize, size: usize) -> Result<Id> {
    let from = graph.shape(x)[axis];
    if from == size {
        return Ok(x);
    }
    let mut shares = vec![0.0; from * size];
    for to in 0..size {
        let at = ((to as f32 + 0.5) * from as f32 / size as f32 - 0.5).max(0.0);
        let (low, share) = (at as usize, at.fract());
        shares[low * size + to] += 1.0 - share;
        shares[(low + 1).min(from - 1) * size + to] += share;
    }
    let shares = graph.constant(&shares, &[from, size])?;
    // Samples stay in front, so that a batch of any size is the same graph.
    let rank = graph.shape(x).len();
    let axes: Vec<usize> = (0..rank).filter(|&other| other != axis).chain([axis]).collect();
    let moved = graph.transpose(x, &axes)?;
    let mut shape = graph.shape(moved).to_vec();
    let rows = shape[..rank - 1].iter().product();
    let flat = graph.reshape(moved, &[rows, from])?;
    let stretched = graph.matmul(flat, shares)?;
    shape[rank - 1] = size;
    let stretched = graph.reshape(stretched, &shape)?;
    let back: Vec<usize> = (0..axis).chain([rank - 1]).chain(axis..rank - 1).collect();
    graph.transpose(stretched, &back)
}
