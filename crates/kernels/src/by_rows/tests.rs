//! The same bits as one operation after the other, on any number of threads, and rows that aren't apart are found.

use super::*;
use crate::compute::Isa;
use crate::fused::{Argument, Expression, Function, Input, Step};
use crate::gemm::{Pack, Packed, Precision, packed_values};

const ROWS: usize = 37;
const UNITS: usize = 48;
const STEPS: usize = 5;

/// `state = tanh(x[step] + state · w)`, each step's state of its own.
struct Recurrence {
    pack: Pack,
    operations: Vec<Operation>,
    floats: usize,
}

fn tensor(at: usize) -> View {
    View::contiguous(at, &[ROWS, UNITS])
}

fn tanh(from: View, to: View) -> Operation {
    Operation::Pass(Fused::new(&Expression {
        shape: from.shape.clone(),
        inputs: vec![Input { view: from, row: false }],
        steps: vec![Step { function: Function::Tanh, arguments: vec![Argument::Input(0)], row: false }],
        outputs: vec![(0, to)],
    }))
}

fn recurrence(isa: Isa) -> Recurrence {
    let precision = Precision::Float32;
    let weights = View::contiguous(0, &[UNITS, UNITS]);
    let packed = UNITS * UNITS;
    let x = packed + packed_values(isa, precision, UNITS, UNITS);
    let sums = x + STEPS * ROWS * UNITS;
    let states = sums + STEPS * ROWS * UNITS;
    let step = |base: usize, step: usize| tensor(base + step * ROWS * UNITS);
    let mut operations = Vec::new();
    for index in 0..STEPS {
        let (init, to) = (Some(step(x, index)), step(sums, index));
        operations.push(Operation::Product(Gemm::new(
            (isa, precision),
            step(states, index),
            Packed::whole(packed, UNITS),
            true,
            init,
            to.clone(),
        )));
        operations.push(tanh(to, step(states, index + 1)));
    }
    let pack = Pack::new((isa, precision), weights, packed);
    Recurrence { pack, operations, floats: states + (STEPS + 1) * ROWS * UNITS }
}

fn last_state(isa: Isa, threads: usize, together: bool) -> Vec<u32> {
    let Recurrence { pack, operations, floats } = recurrence(isa);
    let compute = Compute::new(isa, threads);
    let mut workspace = Workspace::new(floats, threads);
    for (i, x) in workspace.values_mut()[..floats].iter_mut().enumerate() {
        *x = ((i * 7919 + 13) % 1009) as f32 / 504.5 - 1.0;
    }
    pack.run(&compute, &mut workspace);
    if together {
        ByRows::new(operations).run(&compute, &mut workspace);
    } else {
        operations.iter().for_each(|operation| operation.run(&compute, &mut workspace));
    }
    workspace.values()[floats - ROWS * UNITS..floats].iter().map(|x| x.to_bits()).collect()
}

#[test]
fn rows_go_through_all_operations_with_the_same_bits() {
    for isa in Isa::available() {
        let expected = last_state(isa, 1, false);
        for threads in [1, 2, 3, 4] {
            assert_eq!(last_state(isa, threads, true), expected, "{isa} on {threads} threads");
        }
    }
}

#[test]
fn rows_that_need_what_others_write_are_found() {
    let (a, b, c) = (tensor(0), tensor(ROWS * UNITS), tensor(2 * ROWS * UNITS));
    assert!(rows_are_apart(&[tanh(a.clone(), b.clone()), tanh(b.clone(), c.clone())]));
    // The second reads rows in another order.
    let last_row = c.offset + (ROWS - 1) * UNITS;
    let reversed = View { offset: last_row, shape: c.shape.clone(), strides: vec![-(UNITS as isize), 1] };
    assert!(rows_are_apart(&[tanh(a.clone(), reversed.clone())]));
    assert!(!rows_are_apart(&[tanh(a.clone(), c.clone()), tanh(reversed, b.clone())]));
    // Memory of a tensor that is no longer needed, with longer rows.
    let longer = View::contiguous(0, &[ROWS, 2 * UNITS]);
    let read = View::contiguous(4 * ROWS * UNITS, &[ROWS, 2 * UNITS]);
    assert!(!rows_are_apart(&[tanh(a.clone(), c.clone()), tanh(read, longer)]));
    // One row for all, which the first writes.
    let shared = View { offset: b.offset, shape: b.shape.clone(), strides: vec![0, 1] };
    assert!(rows_are_apart(&[tanh(shared.clone(), c.clone())]));
    assert!(!rows_are_apart(&[tanh(a, b), tanh(shared, c)]));
}

#[test]
#[should_panic(expected = "rows need what others write")]
fn operations_that_need_others_rows_are_refused() {
    let shared = View { offset: 0, shape: vec![ROWS, UNITS], strides: vec![0, 1] };
    ByRows::new(vec![tanh(tensor(ROWS * UNITS), tensor(0)), tanh(shared, tensor(2 * ROWS * UNITS))]);
}
