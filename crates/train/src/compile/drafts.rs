//! The operations of a program before their memory has offsets.

use std::collections::HashMap;

use kernels::convolution::pooling::Pooling;
use kernels::convolution::{Convolution, Geometry, Target};
use kernels::fused::{Argument, Function, Step};
use kernels::gemm::{Precision, packed_values};
use kernels::reduce::{Reduce, Reduction};
use kernels::workspace::View;

use super::Arithmetic;
use super::fuse::Groups;
use super::nodes::{Kind, Nodes};
use super::places::{Place, Places};
use crate::graph::{Id, Op};

/// Rows and multiply-adds from which on a product may be computed in bfloat16.
const ROUNDED_ROWS_MIN: usize = 8;
const ROUNDED_WORK_MIN: usize = 128 * 1024;

/// An operation with its places. Those that it writes are listed by [`Draft::writes`].
#[derive(Clone, Debug)]
pub(super) enum Draft {
    Fused {
        shape: Vec<usize>,
        inputs: Vec<(Place, bool)>,
        steps: Vec<Step>,
        outputs: Vec<(usize, Place)>,
    },
    Pack {
        precision: Precision,
        from: Place,
        to: Place,
    },
    /// `part` is the first of the steps that `b` packs, and how many it does.
    Gemm {
        precision: Precision,
        a: Place,
        b: Place,
        part: (usize, usize),
        b_shared: bool,
        init: Option<Place>,
        c: Place,
    },
    Reduce {
        reduction: Reduction,
        dims: [usize; 3],
        from: Place,
        to: Place,
        working: Place,
    },
    Convolution {
        target: Target,
        geometry: Geometry,
        read: [Place; 2],
        to: Place,
        working: Option<Place>,
    },
    Pool {
        pooling: Pooling,
        geometry: Geometry,
        read: Vec<Place>,
        to: Place,
    },
    Rows {
        adds: bool,
        table: Place,
        indices: Place,
        values: Place,
    },
}

impl Draft {
    pub(super) fn reads(&self) -> Vec<&Place> {
        match self {
            Draft::Fused { inputs, .. } => inputs.iter().map(|(place, _)| place).collect(),
            Draft::Pack { from, .. } | Draft::Reduce { from, .. } => vec![from],
            Draft::Gemm { a, b, init, .. } => [a, b].into_iter().chain(init).collect(),
            Draft::Convolution { read, .. } => read.iter().collect(),
            Draft::Pool { read, .. } => read.iter().collect(),
            Draft::Rows { adds: true, indices, values, .. } => vec![indices, values],
            Draft::Rows { table, indices, .. } => vec![table, indices],
        }
    }

    pub(super) fn writes(&self) -> Vec<&Place> {
        match self {
            Draft::Fused { outputs, .. } => outputs.iter().map(|(_, place)| place).collect(),
            Draft::Pack { to, .. } | Draft::Pool { to, .. } | Draft::Gemm { c: to, .. } => vec![to],
            Draft::Reduce { to, working, .. } => vec![to, working],
            Draft::Convolution { to, working, .. } => [to].into_iter().chain(working).collect(),
            Draft::Rows { adds: true, table, .. } => vec![table],
            Draft::Rows { values, .. } => vec![values],
        }
    }
}

pub(super) struct Drafts<'a> {
    pub nodes: &'a Nodes<'a>,
    pub groups: &'a Groups,
    pub places: Places,
    pub drafts: Vec<Draft>,
    arithmetic: Arithmetic,
    /// Packed forms that exist, by the node, the view that was packed and what it was packed for.
    packed: HashMap<(Id, View, Precision), Place>,
}

impl<'a> Drafts<'a> {
    pub(super) fn new(
        nodes: &'a Nodes<'a>,
        groups: &'a Groups,
        places: Places,
        arithmetic: Arithmetic,
    ) -> Drafts<'a> {
        Drafts { nodes, groups, places, drafts: vec![], arithmetic, packed: HashMap::new() }
    }

    pub(super) fn group(&mut self, group: usize) {
        let group = &self.groups.groups[group];
        match &group.space {
            Some(space) => self.fused(space, &group.members),
            None => group.members.iter().for_each(|&id| self.own(id)),
        }
    }

    fn place(&self, id: Id) -> Place {
        self.places.place(self.nodes, id)
    }

    /// Copies elements in order.
    pub(super) fn copy(&mut self, from: Place, to: Place) {
        let shape = from.view.shape.clone();
        let step = Step { function: Function::Copy, arguments: vec![Argument::Input(0)], row: false };
        self.drafts.push(Draft::Fused {
            shape,
            inputs: vec![(from, false)],
            steps: vec![step],
            outputs: vec![(0, to)],
        });
    }

    /// The place of `id` with its elements one after the other, after a copy if they aren't.
    fn contiguous(&mut self, id: Id) -> Place {
        let place = self.place(id);
        if place.view.is_contiguous() {
            let view = View::contiguous(place.view.offset, &place.view.shape);
            return Place { storage: place.storage, view };
        }
        let to = self.places.temporary(&place.view.shape);
        self.copy(place, to.clone());
        to
    }

    fn fused(&mut self, space: &[usize], members: &[Id]) {
        let mut pass = Pass { drafts: self, space, inputs: vec![], steps: vec![], step_of: HashMap::new() };
        for &id in members {
            pass.member(id);
        }
        let Pass { inputs, steps, step_of, .. } = pass;
        let written =
            members.iter().filter_map(|id| Some((step_of[id], self.places.of[id.index()].clone()?)));
        let outputs = written.collect();
        self.drafts.push(Draft::Fused { shape: space.to_vec(), inputs, steps, outputs });
    }

    fn own(&mut self, id: Id) {
        let node = self.nodes.graph.node(id).clone();
        let to = self.place(id);
        if let Kind::ProductFrom { product, init } = self.nodes.kinds[id.index()] {
            let operands = self.nodes.graph.node(product).inputs.clone();
            let init = self.place(init);
            return self.product(operands[0], operands[1], Some(init), to);
        }
        match node.op {
            Op::MatMul => self.product(node.inputs[0], node.inputs[1], None, to),
            Op::Concat(axis) => self.concat(&node.inputs, axis, to),
            Op::Pad { start, step } => self.pad(node.inputs[0], &start, &step, to),
            Op::Sum(axes) => self.reduce(node.inputs[0], &axes, Reduction::Sum, to),
            Op::Max(axes) => self.reduce(node.inputs[0], &axes, Reduction::Max, to),
            Op::ArgMax(axis) => self.reduce(node.inputs[0], &[axis], Reduction::ArgMax, to),
            Op::Convolution { target, geometry } => self.convolution(target, geometry, &node.inputs, to),
            Op::Pool { pooling, geometry } => {
                let read = node.inputs.iter().map(|&input| self.contiguous(input)).collect();
                self.drafts.push(Draft::Pool { pooling, geometry, read, to });
            }
            Op::Take => {
                let (table, indices) = (self.contiguous(node.inputs[0]), self.contiguous(node.inputs[1]));
                self.drafts.push(Draft::Rows { adds: false, table, indices, values: to });
            }
            Op::Put => {
                let (indices, values) = (self.contiguous(node.inputs[0]), self.contiguous(node.inputs[1]));
                self.drafts.push(Draft::Rows { adds: true, table: to, indices, values });
            }
            // A movement that strides can't describe: out in order, then seen under its own shape.
            _ => {
                let from = self.place(node.inputs[0]);
                let view = View::contiguous(to.view.offset, &from.view.shape);
                self.copy(from, Place { storage: to.storage, view });
            }
        }
    }

    fn product(&mut self, a: Id, b: Id, init: Option<Place>, c: Place) {
        let a_place = self.place(a);
        let b_place = self.place(b);
        let rank = b_place.view.shape.len();
        let mut view = b_place.view.clone();
        let b_shared = view.strides[..rank - 2].iter().all(|&stride| stride == 0);
        if b_shared {
            view.shape.drain(..rank - 2);
            view.strides.drain(..rank - 2);
        }
        let k = a_place.view.shape[a_place.view.shape.len() - 1];
        let precision = self.precision(&c.view, k);
        let rank = view.shape.len();
        let matrices: usize = view.shape[..rank - 2].iter().product();
        let n = view.shape[rank - 1];
        let floats = matrices * packed_values(self.arithmetic.isa, precision, k, n);
        let packed = self.pack(b, Place { storage: b_place.storage, view }, precision, floats);
        self.drafts.push(Draft::Gemm { precision, a: a_place, b: packed, part: (0, k), b_shared, init, c });
    }

    /// What `from`, a view of `id`, is packed to: `floats` values. It is packed once.
    fn pack(&mut self, id: Id, from: Place, precision: Precision, floats: usize) -> Place {
        let key = (self.nodes.base(id), from.view.clone(), precision);
        if let Some(packed) = self.packed.get(&key) {
            return packed.clone();
        }
        let to = self.places.temporary(&[floats]);
        self.drafts.push(Draft::Pack { precision, from, to: to.clone() });
        self.packed.insert(key, to.clone());
        to
    }

    /// What a product with the result `c` over `k` terms is computed in: rounding operands costs small ones more than it
    /// saves.
    fn precision(&self, c: &View, k: usize) -> Precision {
        let rows = c.shape[c.shape.len() - 2];
        let is_large = rows >= ROUNDED_ROWS_MIN && c.elements() * k >= ROUNDED_WORK_MIN;
        if is_large { self.arithmetic.products } else { Precision::Float32 }
    }

    fn concat(&mut self, parts: &[Id], axis: usize, whole: Place) {
        let mut start = 0;
        for &part in parts {
            let from = self.place(part);
            let size = from.view.shape[axis];
            let offset = whole.view.offset + start * whole.view.strides[axis] as usize;
            start += size;
            let view = View { offset, shape: from.view.shape.clone(), strides: whole.view.strides.clone() };
            let to = Place { storage: whole.storage, view };
            // A part that was computed at its place is there already.
            if from.storage != to.storage
                || from.view.collapsed() != to.view.collapsed()
                || from.view.offset != offset
            {
                self.copy(from, to);
            }
        }
    }

    fn pad(&mut self, x: Id, start: &[usize], step: &[usize], whole: Place) {
        let zero = Step { function: Function::Copy, arguments: vec![Argument::Constant(0.0)], row: false };
        let shape = whole.view.shape.clone();
        self.drafts.push(Draft::Fused {
            shape,
            inputs: vec![],
            steps: vec![zero],
            outputs: vec![(0, whole.clone())],
        });
        let from = self.place(x);
        let mut view = whole.view.clone();
        for axis in 0..start.len() {
            view.offset += start[axis] * view.strides[axis] as usize;
            view.strides[axis] *= step[axis] as isize;
        }
        view.shape = from.view.shape.clone();
        self.copy(from, Place { storage: whole.storage, view });
    }

    /// Axes that lie side by side are reduced at once, the last ones first.
    fn reduce(&mut self, x: Id, axes: &[usize], reduction: Reduction, to: Place) {
        let mut from = self.contiguous(x);
        let mut shape = from.view.shape.clone();
        let mut left: Vec<usize> = axes.to_vec();
        while let Some(last) = left.pop() {
            let mut first = last;
            while let Some(&axis) = left.last() {
                if shape[axis + 1..first].iter().any(|&size| size != 1) {
                    break;
                }
                first = axis;
                left.pop();
            }
            let size = |range: std::ops::Range<usize>| shape[range].iter().product::<usize>();
            let dims = [size(0..first), size(first..last + 1), size(last + 1..shape.len())];
            shape[first..=last].fill(1);
            let target = if left.is_empty() { to.clone() } else { self.places.temporary(&shape) };
            let working = self.places.temporary(&[Reduce::working_memory(dims[0], dims[1], dims[2])]);
            self.drafts.push(Draft::Reduce { reduction, dims, from, to: target.clone(), working });
            from = target;
        }
    }

    fn convolution(&mut self, target: Target, geometry: Geometry, inputs: &[Id], to: Place) {
        let mut read = [self.contiguous(inputs[0]), self.contiguous(inputs[1])];
        let which = if target == Target::Output { 1 } else { 0 };
        let kernel = &read[which];
        if let Some((view, floats)) =
            Convolution::packing(self.arithmetic.isa, &geometry, target, kernel.view.offset)
        {
            let from = Place { storage: kernel.storage, view };
            read[which] = self.pack(inputs[which], from, Precision::Float32, floats);
        }
        let floats = Convolution::working_memory(&geometry, target);
        let working = (floats > 0).then(|| self.places.temporary(&[floats]));
        self.drafts.push(Draft::Convolution { target, geometry, read, to, working });
    }
}

/// A fused pass while its steps are collected.
struct Pass<'p, 'a> {
    drafts: &'p Drafts<'a>,
    space: &'p [usize],
    inputs: Vec<(Place, bool)>,
    steps: Vec<Step>,
    step_of: HashMap<Id, usize>,
}

impl Pass<'_, '_> {
    fn member(&mut self, id: Id) {
        let nodes = self.drafts.nodes;
        let node = nodes.graph.node(id);
        let row = node.shape != self.space;
        let (function, whole) = match (&nodes.kinds[id.index()], &node.op) {
            (Kind::RowStep(function), _) => (*function, true),
            (_, Op::Map(function)) => (*function, false),
            _ => (Function::Copy, false),
        };
        let uses_seed = matches!(function, Function::Uniform(_));
        let arguments = node
            .inputs
            .iter()
            .map(|&input| match nodes.graph.known_value(input) {
                Some(value) => Argument::Constant(value),
                None if uses_seed => self.seed(input, &node.shape, row),
                None => self.argument(input, row && !whole),
            })
            .collect();
        self.steps.push(Step { function, arguments, row });
        self.step_of.insert(id, self.steps.len() - 1);
    }

    fn argument(&mut self, input: Id, row: bool) -> Argument {
        if let Some((producer, by_rows)) = self.drafts.nodes.step_behind(input)
            && let Some(&step) = self.step_of.get(&producer)
        {
            if !by_rows {
                return Argument::Step(step);
            }
            let expanded =
                Step { function: Function::Expand, arguments: vec![Argument::Step(step)], row: false };
            let same =
                |step: &Step| step.function == Function::Expand && step.arguments == expanded.arguments;
            if let Some(at) = self.steps.iter().position(same) {
                return Argument::Step(at);
            }
            self.steps.push(expanded);
            return Argument::Step(self.steps.len() - 1);
        }
        let place = self.drafts.place(input);
        self.input(place, row)
    }

    fn input(&mut self, place: Place, row: bool) -> Argument {
        let given = (place, row);
        if let Some(at) = self.inputs.iter().position(|input| *input == given) {
            return Argument::Input(at);
        }
        self.inputs.push(given);
        Argument::Input(self.inputs.len() - 1)
    }

    /// A scalar for every element.
    fn seed(&mut self, input: Id, shape: &[usize], row: bool) -> Argument {
        let mut place = self.drafts.place(input);
        place.view = View { offset: place.view.offset, shape: shape.to_vec(), strides: vec![0; shape.len()] };
        self.input(place, row)
    }
}
