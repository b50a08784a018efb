//! `RandomRotation`: images turned at random while training.

use std::f32::consts::TAU;

use serde::{Deserialize, Deserializer, Serialize};

use super::random::images;
use super::{Call, Layer, Weight, argument_error, arguments, described};
use crate::error::Result;
use crate::graph::{Function, Graph, Id};

/// Pixels of a batch: their numbers are exact as floats.
const PIXELS_MAX: usize = 1 << 24;

/// What is seen beyond the edges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FillMode {
    /// `fill_value`.
    Constant,
    /// The image in a mirror: `d c b a | a b c d | d c b a`.
    #[default]
    Reflect,
    /// The image again.
    Wrap,
    /// The pixel at the edge.
    Nearest,
}

/// What lies between pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Interpolation {
    Nearest,
    #[default]
    Bilinear,
}

/// Each image turned about its middle by an angle of its own, while training.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RandomRotation {
    /// Least and greatest angle in turns, counter-clockwise. One number is both, with and without its sign.
    #[serde(deserialize_with = "one_or_two")]
    pub factor: [f32; 2],
    #[serde(default)]
    pub fill_mode: FillMode,
    #[serde(default)]
    pub interpolation: Interpolation,
    #[serde(default)]
    pub fill_value: f32,
}

fn one_or_two<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<[f32; 2], D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Factor {
        One(f32),
        Two([f32; 2]),
    }
    Ok(match Factor::deserialize(deserializer)? {
        Factor::One(factor) => [-factor, factor],
        Factor::Two(factor) => factor,
    })
}

impl RandomRotation {
    /// By at most `factor` turns either way.
    pub fn new(factor: f32) -> RandomRotation {
        RandomRotation {
            factor: [-factor, factor],
            fill_mode: FillMode::Reflect,
            interpolation: Interpolation::Bilinear,
            fill_value: 0.0,
        }
    }

    arguments! { factor: [f32; 2], fill_mode: FillMode, interpolation: Interpolation, fill_value: f32 }
}

impl Layer for RandomRotation {
    described!("RandomRotation");

    fn weights(&self, inputs: &[Vec<usize>]) -> Result<Vec<Weight>> {
        images("RandomRotation", inputs)?;
        let [low, high] = self.factor;
        if low <= high && low >= -1.0 && high <= 1.0 {
            return Ok(vec![]);
        }
        let expected = "two shares of a turn from -1 to 1, the lower first";
        Err(argument_error("RandomRotation", "factor", expected, format!("{:?}", self.factor)))
    }

    fn call(&self, call: &mut Call<'_>, inputs: &[Id], _: &[Id]) -> Result<Vec<Id>> {
        if !call.training {
            return Ok(vec![inputs[0]]);
        }
        let batch = call.graph.shape(inputs[0])[0];
        let draws = call.graph.uniform(call.seed, call.step, &[batch]);
        let turns = call.graph.scale(draws, self.factor[1] - self.factor[0])?;
        let turns = call.graph.add_scalar(turns, self.factor[0])?;
        let angles = call.graph.scale(turns, TAU)?;
        Ok(vec![self.turned(call.graph, inputs[0], angles)?])
    }
}

impl RandomRotation {
    /// `x` `[batch, height, width, channels]` by `angles` `[batch]` in radians.
    fn turned(&self, graph: &mut Graph, x: Id, angles: Id) -> Result<Id> {
        let [batch, height, width, channels] = images("RandomRotation", &[graph.shape(x).to_vec()])?;
        if batch.saturating_mul(height * width) > PIXELS_MAX {
            let expected = format!("at most {PIXELS_MAX} pixels in a batch");
            return Err(graph.shape_error("RandomRotation", expected, &[x]));
        }
        let [rows, columns] = [height, width].map(|size| (size - 1) as f32 / 2.0);
        // Places of the result's pixels, from the middle.
        let y: Vec<f32> = (0..height).map(|i| i as f32 - rows).collect();
        let y = graph.constant(&y, &[1, height, 1])?;
        let across: Vec<f32> = (0..width).map(|i| i as f32 - columns).collect();
        let across = graph.constant(&across, &[1, 1, width])?;
        let angles = graph.reshape(angles, &[batch, 1, 1])?;
        let (cosine, sine) = (graph.map(Function::Cos, angles), graph.map(Function::Sin, angles));
        let combined = |graph: &mut Graph, x_by: Id, y_by: Id, middle: f32| {
            let [a, b] = [(across, x_by), (y, y_by)].map(|(place, by)| graph.mul(place, by));
            let sum = graph.add(a?, b?)?;
            graph.add_scalar(sum, middle)
        };
        let minus_sine = graph.map(Function::Neg, sine);
        let from_x = combined(graph, cosine, minus_sine, columns)?;
        let from_y = combined(graph, sine, cosine, rows)?;
        let from_x = self.within(graph, from_x, width)?;
        let from_y = self.within(graph, from_y, height)?;
        let table = graph.reshape(x, &[batch * height * width, channels])?;
        let first: Vec<f32> = (0..batch).map(|i| (i * height * width) as f32).collect();
        let first = graph.constant(&first, &[batch, 1, 1])?;
        let source = Pixels { table, first, height, width, beyond: self.beyond() };
        if self.interpolation == Interpolation::Nearest {
            let [x, y] = [from_x, from_y].map(|place| {
                let more = graph.add_scalar(place, 0.5)?;
                Ok(graph.map(Function::Floor, more))
            });
            return source.at(graph, x?, y?);
        }
        let low_x = graph.map(Function::Floor, from_x);
        let low_y = graph.map(Function::Floor, from_y);
        let (high_x, high_y) = (graph.add_scalar(low_x, 1.0)?, graph.add_scalar(low_y, 1.0)?);
        let [share_x, share_y] = [(from_x, low_x), (from_y, low_y)].map(|(place, low)| {
            let share = graph.sub(place, low)?;
            graph.reshape(share, &[batch, height, width, 1])
        });
        let (share_x, share_y) = (share_x?, share_y?);
        let mut lines = vec![];
        for y in [low_y, high_y] {
            let (left, right) = (source.at(graph, low_x, y)?, source.at(graph, high_x, y)?);
            lines.push(between(graph, left, right, share_x)?);
        }
        between(graph, lines[0], lines[1], share_y)
    }

    /// What pixels beyond the edges are worth, where any are looked at.
    fn beyond(&self) -> Option<f32> {
        (self.fill_mode == FillMode::Constant).then_some(self.fill_value)
    }

    /// Places along an axis brought to where there are pixels, as the fill mode has it.
    fn within(&self, graph: &mut Graph, place: Id, size: usize) -> Result<Id> {
        let last = (size - 1) as f32;
        let folded = match self.fill_mode {
            FillMode::Constant => return Ok(place),
            FillMode::Nearest => place,
            FillMode::Reflect => {
                let turns = graph.scale(place, 0.5 / size as f32)?;
                let turns = graph.map(Function::Floor, turns);
                let whole = graph.scale(turns, 2.0 * size as f32)?;
                let rest = graph.sub(place, whole)?;
                let back = graph.scalar_sub(2.0 * size as f32 - 1.0, rest)?;
                let limit = graph.scalar(size as f32);
                let is_first = graph.less(rest, limit)?;
                graph.select(is_first, rest, back)?
            }
            // As TensorFlow counts: images are `size` apart, and the last pixel of one is the edge.
            FillMode::Wrap if size == 1 => graph.scale(place, 0.0)?,
            FillMode::Wrap => {
                let (zero, end) = (graph.scalar(0.0), graph.scalar(last));
                let turns = graph.scale(place, 1.0 / last)?;
                let away = graph.map(Function::Abs, turns);
                let whole = graph.map(Function::Floor, away);
                let is_before = graph.less(place, zero)?;
                let is_after = graph.less(end, place)?;
                let shift = graph.scale(whole, size as f32)?;
                let forwards = graph.add(place, shift)?;
                let forwards = graph.add_scalar(forwards, size as f32)?;
                let backwards = graph.sub(place, shift)?;
                let moved = graph.select(is_after, backwards, place)?;
                graph.select(is_before, forwards, moved)?
            }
        };
        crate::activations::clip(graph, folded, 0.0, last)
    }
}

fn between(graph: &mut Graph, low: Id, high: Id, share: Id) -> Result<Id> {
    let rest = graph.scalar_sub(1.0, share)?;
    let (low, high) = (graph.mul(low, rest)?, graph.mul(high, share)?);
    graph.add(low, high)
}

/// All pixels of a batch, one after the other.
struct Pixels {
    table: Id,
    /// The number of each image's first pixel.
    first: Id,
    height: usize,
    width: usize,
    beyond: Option<f32>,
}

impl Pixels {
    /// The pixels at whole places `[batch, height, width]`.
    fn at(&self, graph: &mut Graph, x: Id, y: Id) -> Result<Id> {
        let inside_x = crate::activations::clip(graph, x, 0.0, (self.width - 1) as f32)?;
        let inside_y = crate::activations::clip(graph, y, 0.0, (self.height - 1) as f32)?;
        let rows = graph.scale(inside_y, self.width as f32)?;
        let number = graph.add(rows, inside_x)?;
        let number = graph.add(number, self.first)?;
        let pixels = graph.take(self.table, number)?;
        let Some(value) = self.beyond else { return Ok(pixels) };
        let same_x = graph.map2(Function::Equal, x, inside_x)?;
        let same_y = graph.map2(Function::Equal, y, inside_y)?;
        let is_inside = graph.mul(same_x, same_y)?;
        let shape = graph.shape(is_inside).to_vec();
        let is_inside = graph.reshape(is_inside, &[&shape[..], &[1]].concat())?;
        let value = graph.scalar(value);
        graph.select(is_inside, pixels, value)
    }
}

#[cfg(test)]
mod tests;
