//! What training sees of a weight instead of its values: some of them zero, or all of them rounded, so that a network
//! learns to do with what is left. A rewrite of the graph of a step; layers know nothing of it.

use std::sync::Arc;

use super::Model;
use super::within::Weights;
use crate::error::{Result, TrainError};
use crate::graph::{Function, Graph, Id};

/// What stands for a weight's values.
#[derive(Clone, Debug, PartialEq)]
pub enum WeightView {
    /// Only values that this holds `true` for, in their order, and zero for others, which aren't trained.
    Masked(Arc<[bool]>),
    /// Values rounded to whole numbers from `-greatest` to `greatest` times the scale of their channel, the last axis.
    /// Gradients are those of the rounded values, applied to the values themselves (the straight-through estimator:
    /// Bengio, Leonard and Courville, arXiv:1308.3432; Jacob and others, arXiv:1712.05877).
    Rounded { greatest: u32 },
}

/// The greatest whole number that a value can be rounded to.
const GREATEST_MAX: u32 = 32767;

impl Model {
    /// What is trained and evaluated from now on instead of the weight at `path`; as it is with `None`. Predictions and files
    /// have the values themselves until [`Model::settle_views`].
    ///
    /// # Errors
    /// When there is no such trainable weight, or the view isn't one of it.
    pub fn view_weight(&mut self, path: &str, view: Option<WeightView>) -> Result<()> {
        let Some(which) =
            self.weights.iter().position(|placed| placed.path == path && placed.weight.trainable)
        else {
            let known: Vec<&str> = self.weights.iter().map(|placed| placed.path.as_str()).collect();
            let known = known.join(", ");
            return Err(TrainError::Unknown { kind: "trainable weight", name: path.to_owned(), known });
        };
        let elements = self.weights[which].range.len();
        let (is_right, expected) = match &view {
            Some(WeightView::Masked(mask)) => {
                (mask.len() == elements, format!("a mask of {elements} values"))
            }
            Some(WeightView::Rounded { greatest }) => (
                (1..=GREATEST_MAX).contains(greatest) && !self.weights[which].weight.shape.is_empty(),
                format!("a greatest whole number from 1 to {GREATEST_MAX}, of a weight with axes"),
            ),
            None => (true, String::new()),
        };
        if !is_right {
            let received = format!("{view:?}").chars().take(80).collect();
            return Err(TrainError::Argument {
                place: path.to_owned(),
                argument: "view",
                expected,
                received,
            });
        }
        self.weight_views.retain(|(other, _)| *other != which);
        self.weight_views.extend(view.map(|view| (which, view)));
        self.programs.clear();
        self.resident = None;
        Ok(())
    }

    /// Makes the values of weights what their views have shown, and takes the views away.
    pub fn settle_views(&mut self) {
        for (which, view) in std::mem::take(&mut self.weight_views) {
            let channels = self.weights[which].weight.shape.last().copied().unwrap_or(1);
            let values = self.values_mut(which);
            match view {
                WeightView::Masked(mask) => {
                    values.iter_mut().zip(mask.iter()).for_each(|(value, keeps)| {
                        if !keeps {
                            *value = 0.0;
                        }
                    });
                }
                WeightView::Rounded { greatest } => round(values, channels, greatest as f32),
            }
        }
        self.programs.clear();
        self.resident = None;
    }

    /// Puts views in the place of weights, in the graph of a step.
    pub(super) fn seen(&self, graph: &mut Graph, weights: &mut Weights) -> Result<()> {
        for (which, view) in &self.weight_views {
            let weight = weights.each[*which];
            match view {
                WeightView::Masked(mask) => {
                    let shape = graph.shape(weight).to_vec();
                    let mask: Vec<f32> = mask.iter().map(|&keeps| f32::from(u8::from(keeps))).collect();
                    let mask = graph.constant(&mask, &shape)?;
                    weights.each[*which] = graph.mul(weight, mask)?;
                }
                WeightView::Rounded { greatest } => {
                    let rounded = rounded(graph, weight, *greatest as f32)?;
                    weights.each[*which] = rounded;
                    let before = &self.weights[..*which];
                    let slice = before.iter().filter(|placed| placed.weight.trainable).count();
                    weights.slices[slice] = rounded;
                }
            }
        }
        Ok(())
    }
}

/// The smallest scale, so that a channel of zeros is divided by something.
const SCALE_MIN: f32 = 1e-20;

fn rounded(graph: &mut Graph, weight: Id, greatest: f32) -> Result<Id> {
    let shape = graph.shape(weight).to_vec();
    let axes: Vec<usize> = (0..shape.len() - 1).collect();
    let size = graph.map(Function::Abs, weight);
    let largest = graph.reduce_max(size, &axes)?;
    let scale = graph.scale(largest, 1.0 / greatest)?;
    let least = graph.full_like(SCALE_MIN, scale);
    let scale = graph.max(scale, least)?;
    let mut kept = vec![1; shape.len() - 1];
    kept.push(shape[shape.len() - 1]);
    let scale = graph.reshape(scale, &kept)?;
    let steps = graph.div(weight, scale)?;
    let steps = graph.add_scalar(steps, 0.5)?;
    let codes = graph.map(Function::Floor, steps);
    graph.mul(codes, scale)
}

/// The same for values.
fn round(values: &mut [f32], channels: usize, greatest: f32) {
    for channel in 0..channels {
        let of_channel = || (channel..values.len()).step_by(channels);
        let largest = of_channel().fold(0f32, |largest, at| largest.max(values[at].abs()));
        let scale = (largest * (1.0 / greatest)).max(SCALE_MIN);
        for at in (channel..values.len()).step_by(channels) {
            values[at] = (values[at] / scale + 0.5).floor() * scale;
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::model::WeightView;
    use crate::prelude::*;

    /// A model of one product, with the identity to learn from 8 samples.
    fn model() -> (Model, Array, Array) {
        let input = Input::new([3]);
        let output = Dense::new(2).named("dense").on(&input);
        let mut model = Model::new(&input, &output).unwrap();
        model.compile(SGD.learning_rate(0.1), MeanSquaredError, [] as [Metric; 0]).unwrap();
        let x = Array::new([8, 3], (0..24).map(|at| ((at * 7) % 11) as f32 / 11.0).collect()).unwrap();
        let y = Array::new([8, 2], (0..16).map(|at| ((at * 5) % 13) as f32 / 13.0).collect()).unwrap();
        (model, x, y)
    }

    fn kernel(model: &Model) -> Vec<f32> {
        model.weights().next().map(|(_, _, values)| values.to_vec()).unwrap()
    }

    #[test]
    fn masked_values_are_zero_and_stay_it() {
        let (mut model, x, y) = model();
        let mask = [true, false, true, true, false, true];
        model.view_weight("dense/kernel", Some(WeightView::Masked(mask.to_vec().into()))).unwrap();
        let before = model.evaluate(&x, &y, 8).unwrap()[0].1;
        model.fit(&x, &y, &Fit::epochs(50)).unwrap();
        let seen = model.evaluate(&x, &y, 8).unwrap()[0].1;
        assert!(seen < before, "{seen} of {before}");
        model.settle_views();
        assert_eq!(kernel(&model).iter().map(|value| *value != 0.0).collect::<Vec<_>>(), mask);
        assert_eq!(model.evaluate(&x, &y, 8).unwrap()[0].1, seen);
    }

    /// Gradients of rounded values reach the values: by hand for one step of gradient descent.
    #[test]
    fn rounded_values_are_trained_through() {
        let (mut model, x, y) = model();
        let free = kernel(&model);
        model.view_weight("dense/kernel", Some(WeightView::Rounded { greatest: 3 })).unwrap();
        model.train_on_batch(&x, &y).unwrap();
        let trained = kernel(&model);

        let (mut rounded, ..) = super::tests::model();
        rounded.view_weight("dense/kernel", Some(WeightView::Rounded { greatest: 3 })).unwrap();
        rounded.settle_views();
        let start = kernel(&rounded);
        assert_ne!(start, free);
        rounded.train_on_batch(&x, &y).unwrap();
        for at in 0..free.len() {
            let (through, plain) = (trained[at] - free[at], kernel(&rounded)[at] - start[at]);
            assert!((through - plain).abs() < 1e-6, "{through} and {plain}");
        }
        let seen = model.evaluate(&x, &y, 8).unwrap()[0].1;
        model.settle_views();
        let settled = model.evaluate(&x, &y, 8).unwrap()[0].1;
        assert!((seen - settled).abs() < 1e-6, "{seen} and {settled}");
    }
}
