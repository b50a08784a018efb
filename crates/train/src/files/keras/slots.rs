//! What an optimiser of Keras carries from step to step, in the order of its `optimizer/vars`.

use crate::model::Model;
use crate::optimizers::{Optimizer, Rule};
use crate::schedules::Schedule;

/// A variable of the optimiser.
#[derive(Clone, Copy)]
pub(super) enum Held {
    Iterations,
    LearningRate,
    /// The beginning of a slot's part for a weight.
    Part {
        weight: usize,
        slot: usize,
        shape: Shape,
    },
    /// A slot that is one number for all weights.
    Number(usize),
    /// Rows and columns of Adafactor's slots multiplied.
    Product {
        weight: usize,
        rows: usize,
        columns: usize,
    },
    /// A zero that stands for what a weight doesn't have.
    Nothing,
}

/// The shape of a variable for a weight.
#[derive(Clone, Copy)]
pub(super) enum Shape {
    Whole,
    /// Without the last size.
    Rows,
    /// Without the last size but one.
    Columns,
}

impl Shape {
    pub fn of(self, shape: &[usize]) -> Vec<usize> {
        match (self, shape) {
            (Shape::Rows, [rows @ .., _]) => rows.to_vec(),
            (Shape::Columns, [before @ .., _, last]) => [before, &[*last]].concat(),
            _ => shape.to_vec(),
        }
    }
}

/// The variables of an optimiser for the trainable weights in the order of `order`.
pub(super) fn held(model: &Model, optimizer: &Optimizer, order: &[usize]) -> Vec<Held> {
    let mut held = vec![Held::Iterations];
    if let Schedule::Constant { .. } = optimizer.learning_rate {
        held.push(Held::LearningRate);
    }
    let part = |weight: usize, slot: usize| Held::Part { weight, slot, shape: Shape::Whole };
    // Averages and gathered gradients come before what the rule keeps.
    let own = optimizer.slots().len() - optimizer.rule.slots().len();
    for slot in 0..own {
        held.extend(order.iter().map(|&weight| part(weight, slot)));
    }
    let grouped = |held: &mut Vec<Held>, groups: &[&[usize]]| {
        for group in groups {
            for &weight in order {
                held.extend(group.iter().map(|slot| part(weight, own + slot)));
            }
        }
    };
    match &optimizer.rule {
        Rule::SGD { momentum: 0.0, .. } => {}
        Rule::SGD { .. } | Rule::Adagrad { .. } | Rule::Lion { .. } => grouped(&mut held, &[&[0]]),
        rule @ Rule::RMSprop { .. } => {
            (0..rule.slots().len()).for_each(|slot| grouped(&mut held, &[&[slot]]));
        }
        Rule::Adam { amsgrad: true, .. } => grouped(&mut held, &[&[0, 1], &[2]]),
        Rule::Adam { .. } | Rule::Adamax { .. } | Rule::Adadelta { .. } | Rule::Lamb { .. } => {
            grouped(&mut held, &[&[0, 1]]);
        }
        Rule::Nadam { .. } => {
            grouped(&mut held, &[&[0, 1]]);
            held.push(Held::Number(own + 2));
        }
        Rule::Muon(muon) => {
            for &weight in order {
                held.push(part(weight, own));
                if !muon.is_for(&model.weights[weight].part()) {
                    held.push(part(weight, own + 1));
                }
            }
        }
        Rule::Adafactor { .. } => {
            for &weight in order {
                if model.weights[weight].weight.shape.len() < 2 {
                    held.extend([Held::Nothing, Held::Nothing, part(weight, own)]);
                    continue;
                }
                held.push(Held::Part { weight, slot: own, shape: Shape::Rows });
                held.push(Held::Part { weight, slot: own + 1, shape: Shape::Columns });
                held.push(Held::Product { weight, rows: own, columns: own + 1 });
            }
        }
    }
    held
}

/// Adafactor's second moment of a weight: its rows, by their mean, times its columns.
pub(super) fn product(shape: &[usize], rows: &[f32], columns: &[f32]) -> Vec<f32> {
    let [.., height, width] = *shape else { return rows.to_vec() };
    let count = shape[..shape.len() - 2].iter().product::<usize>();
    let mut values = Vec::with_capacity(count * height * width);
    for (rows, columns) in rows.chunks(height).zip(columns.chunks(width)).take(count) {
        let mean = rows.iter().sum::<f32>() / height as f32;
        for row in rows {
            values.extend(columns.iter().map(|column| row / mean * column));
        }
    }
    values
}
