//! The plain meaning of every operation, in f64: what the compiled passes and the gradients are held against, and what
//! constants are worked out by.

use std::collections::HashMap;

use kernels::convolution::pooling::Pooling;
use kernels::convolution::{Geometry, Target};
use kernels::fused::{random_key, random_uniform};

use super::{Function, Graph, Id, Node, Op};
use crate::error::{Result, TrainError};

/// Values of nodes.
#[derive(Default, Clone)]
pub struct Values {
    given: HashMap<Id, Vec<f64>>,
}

impl Values {
    pub fn new() -> Values {
        Values::default()
    }

    /// Says what a node's value is.
    pub fn set(&mut self, id: Id, values: Vec<f64>) {
        self.given.insert(id, values);
    }

    /// The values of `wanted`.
    ///
    /// # Errors
    /// When an input or variable has no value.
    pub fn of(&self, graph: &Graph, wanted: &[Id]) -> Result<Vec<Vec<f64>>> {
        let mut needed = vec![false; graph.len()];
        wanted.iter().for_each(|id| needed[id.index()] = true);
        for index in (0..graph.len()).rev() {
            if needed[index] && !self.given.contains_key(&Id(index as u32)) {
                graph.nodes[index].inputs.iter().for_each(|input| needed[input.index()] = true);
            }
        }
        let mut values: HashMap<Id, Vec<f64>> = HashMap::new();
        for index in (0..graph.len()).filter(|&index| needed[index]) {
            let id = Id(index as u32);
            let value = match self.given.get(&id) {
                Some(value) => value.clone(),
                None => {
                    let node = graph.node(id);
                    let inputs: Vec<&[f64]> = node.inputs.iter().map(|input| &values[input][..]).collect();
                    let shapes: Vec<&[usize]> = node.inputs.iter().map(|&input| graph.shape(input)).collect();
                    evaluate(node, &inputs, &shapes)?
                }
            };
            values.insert(id, value);
        }
        Ok(wanted.iter().map(|id| values[id].clone()).collect())
    }
}

/// One value of a function. Random numbers are not a function of their operands' values alone.
pub fn function(function: Function, [x, y, z]: [f64; 3]) -> f64 {
    let truth = |holds: bool| if holds { 1.0 } else { 0.0 };
    match function {
        Function::Copy | Function::Uniform(_) | Function::RowSum | Function::RowMax | Function::Expand => x,
        Function::Neg => -x,
        Function::Exp => x.exp(),
        Function::Expm1 => x.exp_m1(),
        Function::Log => x.ln(),
        Function::Log1p => x.ln_1p(),
        Function::Sqrt => x.sqrt(),
        Function::Tanh => x.tanh(),
        Function::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        Function::Erf => erf(x),
        Function::Abs => x.abs(),
        Function::Sign => truth(x > 0.0) - truth(x < 0.0),
        Function::Floor => x.floor(),
        Function::Sin => x.sin(),
        Function::Cos => x.cos(),
        Function::Add => x + y,
        Function::Sub => x - y,
        Function::Mul => x * y,
        Function::Div => x / y,
        Function::Max => {
            if x.is_nan() || x > y {
                x
            } else {
                y
            }
        }
        Function::Min => {
            if x.is_nan() || x < y {
                x
            } else {
                y
            }
        }
        Function::Pow => x.powf(y),
        Function::Less => truth(x < y),
        Function::Equal => truth(x == y),
        Function::Select => {
            if x != 0.0 {
                y
            } else {
                z
            }
        }
    }
}

/// The error function by its Taylor series, whose terms fall quickly enough up to 6; beyond it is 1 in f64.
fn erf(x: f64) -> f64 {
    if x.abs() > 6.0 {
        return x.signum();
    }
    let (mut term, mut sum, mut n) = (x, x, 0.0);
    while term.abs() > 1e-18 * sum.abs().max(1e-300) {
        n += 1.0;
        // The series of e^(x²) erf x has positive terms only, so nothing cancels.
        term *= 2.0 * x * x / (2.0 * n + 1.0);
        sum += term;
    }
    sum * std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp()
}

fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis];
    }
    strides
}

/// The coordinates of element `index`.
fn coordinates(shape: &[usize], mut index: usize) -> Vec<usize> {
    let mut at = vec![0; shape.len()];
    for axis in (0..shape.len()).rev() {
        at[axis] = index % shape[axis];
        index /= shape[axis];
    }
    at
}

fn place(shape: &[usize], at: &[usize]) -> usize {
    strides(shape).iter().zip(at).map(|(stride, at)| stride * at).sum()
}

fn evaluate(node: &Node, inputs: &[&[f64]], shapes: &[&[usize]]) -> Result<Vec<f64>> {
    let elements: usize = node.shape.iter().product();
    let gathered = |from: &dyn Fn(&[usize]) -> Vec<usize>| gathered(&node.shape, inputs[0], shapes[0], from);
    Ok(match &node.op {
        Op::Input(number) => return Err(TrainError::Order(format!("input {number} has no value"))),
        Op::Variable(number) => return Err(TrainError::Order(format!("variable {number} has no value"))),
        Op::Constant(bits) => bits.iter().map(|&bits| f32::from_bits(bits) as f64).collect(),
        Op::Map(Function::Uniform(stream)) => {
            let key = random_key(*stream, inputs[0][0] as f32, inputs[1][0] as f32);
            (0..elements).map(|i| random_uniform(key, i as u32) as f64).collect()
        }
        Op::Map(map) => {
            let operand = |which: usize, i: usize| inputs.get(which).map_or(0.0, |values| values[i]);
            (0..elements).map(|i| function(*map, [operand(0, i), operand(1, i), operand(2, i)])).collect()
        }
        Op::Reshape | Op::Again => inputs[0].to_vec(),
        Op::Transpose(axes) => gathered(&|at| {
            let mut from = vec![0; at.len()];
            axes.iter().zip(at).for_each(|(&axis, &at)| from[axis] = at);
            from
        }),
        Op::Broadcast => {
            gathered(&|at| at.iter().zip(shapes[0]).map(|(&at, &size)| at.min(size - 1)).collect())
        }
        Op::Slice { start, step } => {
            gathered(&|at| (0..at.len()).map(|i| start[i] + at[i] * step[i]).collect())
        }
        Op::Reverse(axes) => gathered(&|at| {
            let flip = |axis: usize| axes.contains(&axis);
            (0..at.len()).map(|i| if flip(i) { node.shape[i] - 1 - at[i] } else { at[i] }).collect()
        }),
        Op::Pad { start, step } => {
            let mut result = vec![0.0; elements];
            let to = |at: &[usize]| (0..at.len()).map(|i| start[i] + at[i] * step[i]).collect();
            scatter(&mut result, &node.shape, inputs[0], shapes[0], &to);
            result
        }
        Op::Concat(axis) => concatenated(node, *axis, inputs, shapes),
        Op::Sum(_) => reduced(node, inputs[0], shapes[0], 0.0, |a, b| a + b),
        Op::Max(_) => reduced(node, inputs[0], shapes[0], f64::NEG_INFINITY, f64::max),
        Op::ArgMax(axis) => first_greatest(node, *axis, inputs[0], shapes[0]),
        Op::MatMul => matmul(node, inputs, shapes),
        Op::Convolution { target, geometry } => convolution(*target, geometry, inputs, elements),
        Op::Pool { pooling, geometry } => pool(*pooling, geometry, inputs, elements),
        Op::Take => {
            let width = shapes[0][1];
            let row = |&i: &f64| inputs[0][i as usize * width..][..width].to_vec();
            inputs[1].iter().flat_map(row).collect()
        }
        Op::Put => {
            let width = node.shape[1];
            let mut result = vec![0.0; elements];
            for (i, &row) in inputs[0].iter().enumerate() {
                (0..width).for_each(|j| result[row as usize * width + j] += inputs[1][i * width + j]);
            }
            result
        }
    })
}

/// What a result of `shape` holds whose element `at` is the one of `values` at `from(at)`.
fn gathered(
    shape: &[usize],
    values: &[f64],
    values_shape: &[usize],
    from: &dyn Fn(&[usize]) -> Vec<usize>,
) -> Vec<f64> {
    let source = |index| values[place(values_shape, &from(&coordinates(shape, index)))];
    (0..shape.iter().product()).map(source).collect()
}

/// Writes each of `values`, at `at`, to `to(at)` of a result of `shape`.
fn scatter(
    result: &mut [f64],
    shape: &[usize],
    values: &[f64],
    values_shape: &[usize],
    to: &dyn Fn(&[usize]) -> Vec<usize>,
) {
    for (index, &value) in values.iter().enumerate() {
        result[place(shape, &to(&coordinates(values_shape, index)))] = value;
    }
}

fn concatenated(node: &Node, axis: usize, inputs: &[&[f64]], shapes: &[&[usize]]) -> Vec<f64> {
    let mut result = vec![0.0; node.shape.iter().product()];
    let mut start = 0;
    for (values, shape) in inputs.iter().zip(shapes) {
        let to = |at: &[usize]| {
            let mut at = at.to_vec();
            at[axis] += start;
            at
        };
        scatter(&mut result, &node.shape, values, shape, &to);
        start += shape[axis];
    }
    result
}

/// Where along `axis` the greatest value stands first; NaN where all are NaN.
fn first_greatest(node: &Node, axis: usize, values: &[f64], shape: &[usize]) -> Vec<f64> {
    let greatest = reduced(node, values, shape, f64::NEG_INFINITY, f64::max);
    let mut result = vec![f64::NAN; greatest.len()];
    for (index, &value) in values.iter().enumerate() {
        let mut at = coordinates(shape, index);
        let along = std::mem::replace(&mut at[axis], 0);
        let to = place(&node.shape, &at);
        if value == greatest[to] && result[to].is_nan() {
            result[to] = along as f64;
        }
    }
    result
}

fn reduced(
    node: &Node,
    values: &[f64],
    shape: &[usize],
    empty: f64,
    join: impl Fn(f64, f64) -> f64,
) -> Vec<f64> {
    let mut result = vec![empty; node.shape.iter().product()];
    for (index, &value) in values.iter().enumerate() {
        let at: Vec<usize> =
            coordinates(shape, index).iter().zip(&node.shape).map(|(&at, &size)| at.min(size - 1)).collect();
        let to = place(&node.shape, &at);
        result[to] = join(result[to], value);
    }
    result
}

fn matmul(node: &Node, inputs: &[&[f64]], shapes: &[&[usize]]) -> Vec<f64> {
    let rank = node.shape.len();
    let (m, n, k) = (node.shape[rank - 2], node.shape[rank - 1], shapes[0][rank - 1]);
    let mut result = vec![0.0; node.shape.iter().product()];
    for (index, result) in result.iter_mut().enumerate() {
        let (batch, row, column) = (index / (m * n), index / n % m, index % n);
        let a = &inputs[0][(batch * m + row) * k..][..k];
        *result = (0..k).map(|i| a[i] * inputs[1][(batch * k + i) * n + column]).sum();
    }
    result
}

/// The input pixel that tap `tap` sees from output pixel `pixel`.
fn seen(geometry: &Geometry, pixel: usize, tap: usize) -> Option<usize> {
    let [_, kh, kw] = geometry.kernel;
    let [_, oh, ow] = geometry.output;
    let taps = [tap / (kh * kw), tap / kw % kh, tap % kw];
    let at = [pixel / (oh * ow), pixel / ow % oh, pixel % ow];
    let mut found = 0;
    for axis in 0..3 {
        let place = (at[axis] * geometry.strides[axis] + taps[axis] * geometry.dilation[axis])
            .checked_sub(geometry.before[axis])
            .filter(|&place| place < geometry.input[axis])?;
        found = found * geometry.input[axis] + place;
    }
    Some(found)
}

fn convolution(target: Target, geometry: &Geometry, inputs: &[&[f64]], elements: usize) -> Vec<f64> {
    let per_in = geometry.channels_in / geometry.groups;
    let per_out = geometry.channels_out / geometry.groups;
    let mut result = vec![0.0; elements];
    for image in 0..geometry.batch {
        for pixel in 0..geometry.output_pixels() {
            for tap in 0..geometry.taps() {
                let Some(source) = seen(geometry, pixel, tap) else { continue };
                for out in 0..geometry.channels_out {
                    for i in 0..per_in {
                        let channel = out / per_out * per_in + i;
                        let x = (image * geometry.input_pixels() + source) * geometry.channels_in + channel;
                        let w = (tap * per_in + i) * geometry.channels_out + out;
                        let y = (image * geometry.output_pixels() + pixel) * geometry.channels_out + out;
                        let (to, a, b) = match target {
                            Target::Output => (y, x, w),
                            Target::Input => (x, w, y),
                            Target::Kernel => (w, x, y),
                        };
                        result[to] += inputs[0][a] * inputs[1][b];
                    }
                }
            }
        }
    }
    result
}

fn pool(pooling: Pooling, geometry: &Geometry, inputs: &[&[f64]], elements: usize) -> Vec<f64> {
    let channels = geometry.channels_in;
    let mut result = vec![0.0; elements];
    for image in 0..geometry.batch {
        for pixel in 0..geometry.output_pixels() {
            for channel in 0..channels {
                let y = (image * geometry.output_pixels() + pixel) * channels + channel;
                let sources = (0..geometry.taps())
                    .filter_map(|tap| seen(geometry, pixel, tap))
                    .map(|pixel| (image * geometry.input_pixels() + pixel) * channels + channel);
                match pooling {
                    Pooling::Sum => result[y] = sources.map(|x| inputs[0][x]).sum(),
                    Pooling::Spread => sources.for_each(|x| result[x] += inputs[0][y]),
                    Pooling::Take | Pooling::Put => {
                        let first_best =
                            |best: usize, x: usize| if inputs[0][x] > inputs[0][best] { x } else { best };
                        let Some(winner) = sources.reduce(first_best) else { continue };
                        if pooling == Pooling::Take {
                            result[y] = inputs[1][winner];
                        } else {
                            result[winner] += inputs[1][y];
                        }
                    }
                }
            }
        }
    }
    result
}
