//! A compiled graph: prepared operations over a workspace, run one after the other without allocating.

use std::ops::Range;
use std::sync::Arc;

use kernels::by_rows::{self, ByRows};
use kernels::compute::{Compute, Isa};
use kernels::convolution::pooling::{Pool, Pooling};
use kernels::convolution::{Convolution, Operands, Target};
use kernels::fused::{Expression, Fused, Input};
use kernels::gather::Rows;
use kernels::gemm::{Gemm, Pack, Packed};
use kernels::reduce::Reduce;
use kernels::workspace::{View, Workspace};

use super::drafts::Draft;
use super::places::Place;

enum Operation {
    ByRows(ByRows),
    Fused(Fused),
    Pack(Pack),
    Gemm(Gemm),
    Reduce(Reduce),
    Convolution(Convolution),
    Pool(Pool),
    Rows(Rows),
}

impl Operation {
    fn run(&self, compute: &Compute, workspace: &mut Workspace) {
        match self {
            Operation::ByRows(by_rows) => by_rows.run(compute, workspace),
            Operation::Fused(fused) => fused.run(compute, workspace),
            Operation::Pack(pack) => pack.run(compute, workspace),
            Operation::Gemm(gemm) => gemm.run(compute, workspace),
            Operation::Reduce(reduce) => reduce.run(compute, workspace),
            Operation::Convolution(convolution) => convolution.run(compute, workspace),
            Operation::Pool(pool) => pool.run(compute, workspace),
            Operation::Rows(rows) => rows.run(compute, workspace),
        }
    }

    fn name(&self) -> String {
        match self {
            Operation::ByRows(by_rows) => format!("{by_rows:?}"),
            Operation::Fused(fused) => format!("pass {fused:?}"),
            Operation::Pack(_) => "pack".to_owned(),
            Operation::Gemm(gemm) => format!("product {gemm:?}"),
            Operation::Reduce(reduce) => format!("reduction {reduce:?}"),
            Operation::Convolution(convolution) => format!("convolution {convolution:?}"),
            Operation::Pool(pool) => format!("pooling {pool:?}"),
            Operation::Rows(_) => "rows".to_owned(),
        }
    }
}

/// What a graph became.
pub struct Program {
    operations: Vec<Operation>,
    floats: usize,
    /// Numbers, places and shapes of inputs.
    inputs: Vec<(usize, usize, Vec<usize>)>,
    outputs: Vec<Range<usize>>,
    constants: Vec<(usize, Arc<[u32]>)>,
}

impl Program {
    pub(super) fn new(floats: usize) -> Program {
        Program { operations: vec![], floats, inputs: vec![], outputs: vec![], constants: vec![] }
    }

    pub(super) fn add_input(&mut self, number: usize, at: usize, shape: &[usize]) {
        self.inputs.push((number, at, shape.to_vec()));
    }

    pub(super) fn add_constant(&mut self, at: usize, bits: Arc<[u32]>) {
        self.constants.push((at, bits));
    }

    pub(super) fn add_output(&mut self, at: usize, len: usize) {
        self.outputs.push(at..at + len);
    }

    pub(super) fn add(&mut self, draft: &Draft, offsets: &[usize], isa: Isa) {
        self.operations.push(operation(draft, offsets, isa));
    }

    /// Adds operations through which threads go with rows of their own.
    pub(super) fn add_by_rows(&mut self, drafts: &[Draft], offsets: &[usize], isa: Isa) {
        let operations = drafts.iter().filter_map(|draft| by_rows(draft, offsets, isa)).collect();
        self.operations.push(Operation::ByRows(ByRows::new(operations)));
    }

    /// Values that a workspace must have for it.
    pub fn floats(&self) -> usize {
        self.floats
    }

    /// Operations of a run.
    pub fn operations(&self) -> usize {
        self.operations.len()
    }

    /// Writes the constants: needed once, and again after another program used the workspace.
    pub fn prepare(&self, workspace: &mut Workspace) {
        workspace.grow(self.floats);
        let values = workspace.values_mut();
        for (at, bits) in &self.constants {
            for (to, &bits) in values[*at..].iter_mut().zip(bits.iter()) {
                *to = f32::from_bits(bits);
            }
        }
    }

    /// The place of input `number`, to be written before each run; none if nothing depends on it.
    pub fn input<'a>(&self, workspace: &'a mut Workspace, number: usize) -> Option<&'a mut [f32]> {
        let (_, at, shape) = self.inputs.iter().find(|(other, ..)| *other == number)?;
        let len: usize = shape.iter().product();
        Some(&mut workspace.values_mut()[*at..*at + len])
    }

    /// What output `index` was in the last run.
    pub fn output<'a>(&self, workspace: &'a Workspace, index: usize) -> &'a [f32] {
        &workspace.values()[self.outputs[index].clone()]
    }

    pub fn run(&self, compute: &Compute, workspace: &mut Workspace) {
        self.operations.iter().for_each(|operation| operation.run(compute, workspace));
    }

    /// Runs it `runs` times and says where the time went: kind of operation, how often a run, microseconds a run.
    pub fn profile(&self, compute: &Compute, workspace: &mut Workspace, runs: usize) -> String {
        let mut times: Vec<(String, usize, f64)> = Vec::new();
        for _ in 0..runs {
            for operation in &self.operations {
                let started = std::time::Instant::now();
                operation.run(compute, workspace);
                let time = started.elapsed().as_secs_f64() * 1e6;
                let name = operation.name();
                match times.iter_mut().find(|(other, ..)| *other == name) {
                    Some((_, count, sum)) => (*count, *sum) = (*count + 1, *sum + time),
                    None => times.push((name, 1, time)),
                }
            }
        }
        times.sort_by(|a, b| b.2.total_cmp(&a.2));
        let line = |(name, count, time): &(String, usize, f64)| {
            format!("{:10.1} us  {:4} x {name}\n", time / runs as f64, count / runs.max(1))
        };
        times.iter().map(line).collect()
    }
}

/// A pass or a product.
pub(super) fn by_rows(draft: &Draft, offsets: &[usize], isa: Isa) -> Option<by_rows::Operation> {
    match operation(draft, offsets, isa) {
        Operation::Fused(fused) => Some(by_rows::Operation::Pass(fused)),
        Operation::Gemm(gemm) => Some(by_rows::Operation::Product(gemm)),
        _ => None,
    }
}

fn operation(draft: &Draft, offsets: &[usize], isa: Isa) -> Operation {
    let view =
        |place: &Place| View { offset: place.view.offset + offsets[place.storage], ..place.view.clone() };
    let at = |place: &Place| view(place).offset;
    match draft {
        Draft::Fused { shape, inputs, steps, outputs } => Operation::Fused(Fused::new(&Expression {
            shape: shape.clone(),
            inputs: inputs.iter().map(|(place, row)| Input { view: view(place), row: *row }).collect(),
            steps: steps.clone(),
            outputs: outputs.iter().map(|(step, place)| (*step, view(place))).collect(),
        })),
        Draft::Pack { precision, from, to } => {
            Operation::Pack(Pack::new((isa, *precision), view(from), at(to)))
        }
        Draft::Gemm { precision, a, b, part, b_shared, init, c } => {
            let (first, steps) = *part;
            let packed = Packed { at: at(b), steps, first };
            let init = init.as_ref().map(view);
            Operation::Gemm(Gemm::new((isa, *precision), view(a), packed, *b_shared, init, view(c)))
        }
        Draft::Reduce { reduction, dims, from, to, working } => {
            Operation::Reduce(Reduce::new(*reduction, *dims, at(from), at(to), at(working)))
        }
        Draft::Convolution { target, geometry, read, to, working } => {
            let working = working.as_ref().map_or(0, at);
            let (first, second, to) = (at(&read[0]), at(&read[1]), at(to));
            // A packed kernel is at `w` too where it isn't read: only its place counts.
            let operands = match target {
                Target::Output => Operands { x: first, w: second, packed: second, y: to, working },
                Target::Input => Operands { w: first, packed: first, y: second, x: to, working },
                Target::Kernel => Operands { x: first, y: second, w: to, packed: 0, working },
            };
            Operation::Convolution(Convolution::new(isa, *geometry, *target, operands))
        }
        Draft::Pool { pooling, geometry, read, to } => {
            let to = at(to);
            let operation = match pooling {
                Pooling::Sum => Pool::new(*geometry, *pooling, 0, at(&read[0]), to),
                Pooling::Spread => Pool::new(*geometry, *pooling, 0, to, at(&read[0])),
                Pooling::Take => Pool::new(*geometry, *pooling, at(&read[0]), at(&read[1]), to),
                Pooling::Put => Pool::new(*geometry, *pooling, at(&read[0]), to, at(&read[1])),
            };
            Operation::Pool(operation)
        }
        Draft::Rows { adds, table, indices, values } => {
            let dims = [table.view.shape[0], table.view.shape[1]];
            let count = indices.view.elements();
            let prepare = if *adds { Rows::add } else { Rows::take };
            Operation::Rows(prepare(dims, count, at(table), at(indices), at(values)))
        }
    }
}
