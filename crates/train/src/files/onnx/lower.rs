//! Primitive operations as ONNX operators.
//!
//! Here channels come last, in ONNX's convolutions first. What comes out of a convolution stays with channels first
//! through everything that goes element by element, and is transposed only where something needs its order.

use std::collections::HashMap;
use std::sync::Arc;

use formats::onnx::{AttributeValue, GraphWriter};

use super::{Open, Size, failed};
use crate::error::Result;
use crate::graph::{Function, Graph, Id, Op};
use crate::model::Model;

/// Where channels are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    Last,
    First,
}

/// Names of a value, by layout.
#[derive(Clone, Debug, Default)]
struct Named {
    last: Option<String>,
    first: Option<String>,
}

pub(super) struct Lowering<'a> {
    pub graph: &'a Graph,
    pub sizes: &'a [Vec<Size>],
    pub out: GraphWriter,
    values: HashMap<Id, Named>,
    constants: HashMap<(Id, Vec<usize>), String>,
    /// Numbers, by their bits.
    scalars: HashMap<u32, String>,
    /// Multiples of the number of samples.
    batches: HashMap<usize, String>,
    inputs: Vec<String>,
    /// Names of weights, by their bits.
    weights: HashMap<Arc<[u32]>, &'a str>,
}

const FLOAT: AttributeValue = AttributeValue::Int(1);
const INT64: AttributeValue = AttributeValue::Int(7);

/// Axes of channels-last data in the order of channels first.
pub(super) fn to_first(rank: usize) -> Vec<usize> {
    [&[0, rank - 1][..], &(1..rank - 1).collect::<Vec<_>>()].concat()
}

fn to_last(rank: usize) -> Vec<usize> {
    [&[0][..], &(2..rank).collect::<Vec<_>>(), &[1]].concat()
}

pub(super) fn ints(values: &[usize]) -> AttributeValue {
    AttributeValue::Ints(values.iter().map(|&value| value as i64).collect())
}

/// `values` of `shape` with its axes in another order.
pub(super) fn transposed(values: &[f32], shape: &[usize], axes: &[usize]) -> Vec<f32> {
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis];
    }
    let mut at = vec![0; axes.len()];
    let mut result = Vec::with_capacity(values.len());
    for _ in 0..values.len() {
        result.push(values[at.iter().zip(axes).map(|(at, &axis)| at * strides[axis]).sum::<usize>()]);
        for (place, &axis) in axes.iter().enumerate().rev() {
            at[place] += 1;
            if at[place] < shape[axis] {
                break;
            }
            at[place] = 0;
        }
    }
    result
}

impl<'a> Lowering<'a> {
    pub fn new(model: &'a Model, open: &'a Open, out: GraphWriter) -> Lowering<'a> {
        let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect();
        Lowering {
            graph: &open.graph,
            sizes: &open.sizes,
            out,
            values: HashMap::new(),
            constants: HashMap::new(),
            scalars: HashMap::new(),
            batches: HashMap::new(),
            inputs: model.inputs.iter().map(|(name, _)| name.clone()).collect(),
            weights: model.weights().map(|(path, _, values)| (bits(values), path)).collect(),
        }
    }

    pub fn into_writer(self) -> GraphWriter {
        self.out
    }

    /// Lowers all nodes, in order. Constants and broadcasts are lowered where they are used.
    pub fn all(&mut self) -> Result<()> {
        for index in 0..self.graph.len() {
            self.lower(Id(index as u32))?;
        }
        Ok(())
    }

    /// Says that the value of `id` is called `name`.
    pub fn set(&mut self, id: Id, layout: Layout, name: String) {
        let named = self.values.entry(id).or_default();
        match layout {
            Layout::Last => named.last = Some(name),
            Layout::First => named.first = Some(name),
        }
    }

    /// The name of a value as it is in the graph.
    pub fn last(&mut self, id: Id) -> Result<String> {
        let named = self.values.get(&id).cloned().unwrap_or_default();
        if let Some(name) = named.last {
            return Ok(name);
        }
        let name = if let Some(first) = named.first {
            let axes = ints(&to_last(self.graph.shape(id).len()));
            self.out.node("Transpose", &[&first], &[("perm", axes)])
        } else if self.constant(id).is_some() {
            return self.constant_named(id, &[]);
        } else if self.graph.node(id).op == Op::Broadcast {
            self.expanded(id)?
        } else {
            return Err(failed(format!("{:?} has no value", self.graph.node(id).op)));
        };
        self.set(id, Layout::Last, name.clone());
        Ok(name)
    }

    /// The name of a value with its channels first.
    pub fn first(&mut self, id: Id) -> Result<String> {
        if let Some(name) = self.values.get(&id).and_then(|named| named.first.clone()) {
            return Ok(name);
        }
        let axes = to_first(self.graph.shape(id).len());
        if self.constant(id).is_some() {
            return self.constant_named(id, &axes);
        }
        let last = self.last(id)?;
        let name = self.out.node("Transpose", &[&last], &[("perm", ints(&axes))]);
        self.set(id, Layout::First, name.clone());
        Ok(name)
    }

    pub fn named(&mut self, id: Id, layout: Layout) -> Result<String> {
        match layout {
            Layout::Last => self.last(id),
            Layout::First => self.first(id),
        }
    }

    /// The layout in which an operation on these goes with the fewest transpositions.
    fn layout(&self, ids: &[Id]) -> Layout {
        let first =
            |id: &Id| self.values.get(id).is_some_and(|named| named.first.is_some() && named.last.is_none());
        if ids.iter().any(first) { Layout::First } else { Layout::Last }
    }

    /// The values of a constant, which may be seen under another shape.
    pub fn constant(&self, id: Id) -> Option<Arc<[u32]>> {
        match &self.graph.node(id).op {
            Op::Constant(bits) => Some(bits.clone()),
            Op::Reshape => self.constant(self.graph.node(id).inputs[0]),
            _ => None,
        }
    }

    /// A constant with its axes in the order of `axes`, or as they are if there are none.
    pub fn constant_named(&mut self, id: Id, axes: &[usize]) -> Result<String> {
        let Some(bits) = self.constant(id) else {
            return Err(failed("a kernel that isn't a weight"));
        };
        let key = (id, axes.to_vec());
        if let Some(name) = self.constants.get(&key) {
            return Ok(name.clone());
        }
        let shape = self.graph.shape(id);
        let mut values: Vec<f32> = bits.iter().map(|&bits| f32::from_bits(bits)).collect();
        let mut sizes = shape.to_vec();
        if !axes.is_empty() {
            values = transposed(&values, shape, axes);
            sizes = axes.iter().map(|&axis| shape[axis]).collect();
        }
        let wanted =
            if bits.len() == 1 { "scalar" } else { self.weights.get(&bits).copied().unwrap_or("constant") };
        let name = self.out.floats(wanted, &sizes, &values);
        self.constants.insert(key, name.clone());
        Ok(name)
    }

    /// One number, for all elements.
    pub fn scalar(&mut self, value: f32) -> String {
        if let Some(name) = self.scalars.get(&value.to_bits()) {
            return name.clone();
        }
        let name = self.out.floats("scalar", &[], &[value]);
        self.scalars.insert(value.to_bits(), name.clone());
        name
    }

    fn expanded(&mut self, id: Id) -> Result<String> {
        let from = self.graph.node(id).inputs[0];
        let source = self.last(from)?;
        let (sizes, before) = (&self.sizes[id.index()], &self.sizes[from.index()]);
        // A size of 1 leaves what is there.
        let mut parts: Vec<Vec<i64>> = vec![vec![]];
        let mut samples = vec![];
        for (&size, &before) in sizes.iter().zip(before) {
            match size {
                Size::Fixed(size) => parts[samples.len()].push(size as i64),
                Size::Samples(_) if before == size => parts[samples.len()].push(1),
                Size::Samples(each) => {
                    samples.push(each);
                    parts.push(vec![]);
                }
            }
        }
        let mut names = vec![self.out.ints(&parts[0])];
        for (&each, part) in samples.iter().zip(&parts[1..]) {
            names.push(self.batch(each));
            names.push(self.out.ints(part));
        }
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let shape = match names[..] {
            [one] => one.to_owned(),
            _ => self.out.node("Concat", &names, &[("axis", AttributeValue::Int(0))]),
        };
        Ok(self.out.node("Expand", &[&source, &shape], &[]))
    }

    /// The number of samples times `each`, as a vector of one.
    fn batch(&mut self, each: usize) -> String {
        if let Some(name) = self.batches.get(&each) {
            return name.clone();
        }
        let input = self.inputs[0].clone();
        let shape = self.out.node("Shape", &[&input], &[]);
        let zero = self.out.ints(&[0]);
        let mut name = self.out.node("Gather", &[&shape, &zero], &[("axis", AttributeValue::Int(0))]);
        if each != 1 {
            let factor = self.out.ints(&[each as i64]);
            name = self.out.node("Mul", &[&name, &factor], &[]);
        }
        self.batches.insert(each, name.clone());
        name
    }

    fn lower(&mut self, id: Id) -> Result<()> {
        let node = self.graph.node(id);
        let x = node.inputs.first().copied().unwrap_or(id);
        let (layout, name) = match &node.op {
            Op::Constant(_) | Op::Broadcast => return Ok(()),
            Op::Reshape if self.constant(id).is_some() => return Ok(()),
            Op::Input(number) => (Layout::Last, self.inputs[*number].clone()),
            Op::Map(function) => self.map(*function, id)?,
            Op::Reshape => {
                let x = self.in_order(x)?;
                (Layout::Last, self.reshaped(&x, &self.sizes[id.index()].to_vec()))
            }
            Op::Transpose(axes) => {
                let x = self.last(x)?;
                (Layout::Last, self.out.node("Transpose", &[&x], &[("perm", ints(axes))]))
            }
            Op::Slice { .. } | Op::Reverse(_) | Op::Pad { .. } | Op::Concat(_) | Op::Sum(_) | Op::Max(_) => {
                self.along_axes(id)?
            }
            Op::ArgMax(axis) => {
                let x = self.last(x)?;
                let axis = AttributeValue::Int(*axis as i64);
                let place = self.out.node("ArgMax", &[&x], &[("axis", axis)]);
                (Layout::Last, self.out.node("Cast", &[&place], &[("to", FLOAT)]))
            }
            Op::MatMul => {
                let (x, y) = (self.last(x)?, self.last(node.inputs[1])?);
                (Layout::Last, self.out.node("MatMul", &[&x, &y], &[]))
            }
            Op::Take => {
                let (table, numbers) = (self.last(x)?, self.last(node.inputs[1])?);
                let numbers = self.out.node("Cast", &[&numbers], &[("to", INT64)]);
                let axis = AttributeValue::Int(0);
                (Layout::Last, self.out.node("Gather", &[&table, &numbers], &[("axis", axis)]))
            }
            Op::Convolution { target, geometry } => self.convolution(id, *target, geometry)?,
            Op::Pool { pooling, geometry } => self.pool(id, *pooling, geometry)?,
            Op::Variable(_) | Op::Put | Op::Again => {
                return Err(failed(format!("{:?} is no part of a prediction", node.op)));
            }
        };
        self.set(id, layout, name);
        Ok(())
    }

    /// A value whose elements are in order, whichever layout it has: with one pixel both are the same.
    fn in_order(&mut self, id: Id) -> Result<String> {
        let sizes = &self.sizes[id.index()];
        let one_pixel =
            sizes.len() > 2 && sizes[1..sizes.len() - 1].iter().all(|&size| size == Size::Fixed(1));
        self.named(id, if one_pixel { self.layout(&[id]) } else { Layout::Last })
    }

    /// At most one size may follow the batch.
    pub fn reshaped(&mut self, x: &str, sizes: &[Size]) -> String {
        let sizes: Vec<i64> = sizes
            .iter()
            .map(|&size| match size {
                Size::Fixed(size) => size as i64,
                Size::Samples(_) => -1,
            })
            .collect();
        let shape = self.out.ints(&sizes);
        self.out.node("Reshape", &[x, &shape], &[])
    }

    /// Operations that name axes and work in either layout.
    fn along_axes(&mut self, id: Id) -> Result<(Layout, String)> {
        let node = self.graph.node(id);
        let layout = self.layout(&node.inputs);
        let rank = node.shape.len();
        let place = |axis: usize| match layout {
            Layout::Last => axis,
            Layout::First => to_first(rank).iter().position(|&from| from == axis).unwrap_or(axis),
        };
        let x = self.named(node.inputs[0], layout)?;
        let from = self.graph.shape(node.inputs[0]);
        let name = match &node.op {
            Op::Slice { start, step } => {
                let axes: Vec<usize> = (0..rank).filter(|&axis| from[axis] != node.shape[axis]).collect();
                let each = |value: &dyn Fn(usize) -> usize| -> Vec<i64> {
                    axes.iter().map(|&axis| value(axis) as i64).collect()
                };
                let end = |axis: usize| start[axis] + (node.shape[axis] - 1) * step[axis] + 1;
                let [starts, ends, places, steps] =
                    [each(&|axis| start[axis]), each(&end), each(&place), each(&|axis| step[axis])];
                self.sliced(&x, [&starts, &ends, &places, &steps])
            }
            Op::Reverse(axes) => {
                let places: Vec<i64> = axes.iter().map(|&axis| place(axis) as i64).collect();
                let each = |value: i64| vec![value; axes.len()];
                let ends: Vec<i64> = axes.iter().map(|&axis| -1 - from[axis] as i64).collect();
                self.sliced(&x, [&each(-1), &ends, &places, &each(-1)])
            }
            Op::Pad { start, step } => {
                if step.iter().zip(from).any(|(&step, &size)| step != 1 && size > 1) {
                    return Err(failed("zeros between values are no part of a prediction"));
                }
                let mut pads = vec![0; 2 * rank];
                for axis in 0..rank {
                    pads[place(axis)] = start[axis] as i64;
                    pads[rank + place(axis)] = (node.shape[axis] - from[axis] - start[axis]) as i64;
                }
                let pads = self.out.ints(&pads);
                self.out.node("Pad", &[&x, &pads], &[])
            }
            Op::Concat(axis) => {
                let names: Vec<String> =
                    node.inputs.iter().map(|&part| self.named(part, layout)).collect::<Result<_>>()?;
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                self.out.node("Concat", &names, &[("axis", AttributeValue::Int(place(*axis) as i64))])
            }
            Op::Sum(axes) => {
                let places: Vec<i64> = axes.iter().map(|&axis| place(axis) as i64).collect();
                let places = self.out.ints(&places);
                self.out.node("ReduceSum", &[&x, &places], &[])
            }
            Op::Max(axes) => {
                let places: Vec<usize> = axes.iter().map(|&axis| place(axis)).collect();
                self.out.node("ReduceMax", &[&x], &[("axes", ints(&places))])
            }
            other => return Err(failed(format!("{other:?} names no axes"))),
        };
        Ok((layout, name))
    }

    /// Of starts, ends, axes and steps.
    pub fn sliced(&mut self, x: &str, parts: [&[i64]; 4]) -> String {
        let [starts, ends, axes, steps] = parts.map(|part| self.out.ints(part));
        self.out.node("Slice", &[x, &starts, &ends, &axes, &steps], &[])
    }

    fn map(&mut self, function: Function, id: Id) -> Result<(Layout, String)> {
        if let Some(x) = self.softmax(id) {
            let x = self.last(x)?;
            return Ok((Layout::Last, self.out.node("Softmax", &[&x], &[("axis", AttributeValue::Int(-1))])));
        }
        let inputs = &self.graph.node(id).inputs;
        // Sizes of 1 grow by themselves, where another operand has the whole size.
        let mut operands: Vec<Id> = inputs
            .iter()
            .map(|&input| match &self.graph.node(input).op {
                Op::Broadcast => self.graph.node(input).inputs[0],
                _ => input,
            })
            .collect();
        let whole = |axis: usize| {
            operands.iter().any(|operand| self.sizes[operand.index()][axis] == self.sizes[id.index()][axis])
        };
        if !(0..self.graph.shape(id).len()).all(whole) {
            operands[0] = inputs[0];
        }
        let layout = self.layout(&operands);
        if function == Function::Max && inputs.len() == 2 && self.graph.known_value(inputs[1]) == Some(0.0) {
            let x = self.named(operands[0], layout)?;
            return Ok((layout, self.out.node("Relu", &[&x], &[])));
        }
        let mut names = vec![];
        for (number, &operand) in operands.iter().enumerate() {
            let condition = function == Function::Select && number == 0;
            names.push(match self.graph.known_value(operand) {
                Some(value) if self.graph.node(operand).op != Op::Broadcast => self.scalar(value),
                _ if condition => self.condition(operand, layout)?,
                _ => self.named(operand, layout)?,
            });
        }
        Ok((layout, self.function(function, &names)?))
    }

    /// A value that is 0 or 1, as a truth.
    fn condition(&mut self, id: Id, layout: Layout) -> Result<String> {
        let name = self.named(id, layout)?;
        Ok(self.out.node("Cast", &[&name], &[("to", AttributeValue::Int(9))]))
    }

    /// What `id` is the softmax of, along the last axis.
    fn softmax(&self, id: Id) -> Option<Id> {
        let last = [self.graph.shape(id).len().checked_sub(1)?];
        let inner = |id: Id, wanted: &Op| {
            let node = self.graph.node(id);
            (node.op == *wanted).then_some(&node.inputs[..])
        };
        let &[grown, all] = inner(id, &Op::Map(Function::Div))? else { return None };
        let &[sum] = inner(all, &Op::Broadcast)? else { return None };
        let &[summed] = inner(sum, &Op::Sum(last.to_vec()))? else { return None };
        let &[less] = inner(grown, &Op::Map(Function::Exp))? else { return None };
        let &[x, all] = inner(less, &Op::Map(Function::Sub))? else { return None };
        let &[greatest] = inner(all, &Op::Broadcast)? else { return None };
        let &[of] = inner(greatest, &Op::Max(last.to_vec()))? else { return None };
        (summed == grown && of == x).then_some(x)
    }

    fn function(&mut self, function: Function, names: &[String]) -> Result<String> {
        let operands: Vec<&str> = names.iter().map(String::as_str).collect();
        let operator = match function {
            Function::Copy => "Identity",
            Function::Neg => "Neg",
            Function::Exp => "Exp",
            Function::Log => "Log",
            Function::Sqrt => "Sqrt",
            Function::Tanh => "Tanh",
            Function::Sigmoid => "Sigmoid",
            Function::Erf => "Erf",
            Function::Abs => "Abs",
            Function::Sign => "Sign",
            Function::Floor => "Floor",
            Function::Sin => "Sin",
            Function::Cos => "Cos",
            Function::Add => "Add",
            Function::Sub => "Sub",
            Function::Mul => "Mul",
            Function::Div => "Div",
            Function::Max => "Max",
            Function::Min => "Min",
            Function::Pow => "Pow",
            Function::Select => "Where",
            Function::Expm1 => {
                let (grown, one) = (self.out.node("Exp", &operands, &[]), self.scalar(1.0));
                return Ok(self.out.node("Sub", &[&grown, &one], &[]));
            }
            Function::Log1p => {
                let one = self.scalar(1.0);
                let more = self.out.node("Add", &[operands[0], &one], &[]);
                return Ok(self.out.node("Log", &[&more], &[]));
            }
            Function::Less | Function::Equal => {
                let operator = if function == Function::Less { "Less" } else { "Equal" };
                let truth = self.out.node(operator, &operands, &[]);
                return Ok(self.out.node("Cast", &[&truth], &[("to", FLOAT)]));
            }
            Function::Uniform(_) | Function::RowSum | Function::RowMax | Function::Expand => {
                return Err(failed(format!("{function:?} is no part of a prediction")));
            }
        };
        Ok(self.out.node(operator, &operands, &[]))
    }
}
