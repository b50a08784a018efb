//! Passes against f64, on every instruction set, in place and at strides.

use super::*;
use crate::compute::Isa;

fn run(isa: Isa, threads: usize, expression: &Expression, values: &[f32]) -> Vec<f32> {
    let compute = Compute::new(isa, threads);
    let mut workspace = Workspace::new(values.len(), threads);
    workspace.values_mut()[..values.len()].copy_from_slice(values);
    Fused::new(expression).run(&compute, &mut workspace);
    workspace.values()[..values.len()].to_vec()
}

fn check(function: Function, inputs: [f32; 3], expected: f64, tolerance: f64) {
    let arity = function.arity();
    let mut values: Vec<f32> = inputs.iter().flat_map(|&x| [x; 19]).collect();
    values.resize(76, 0.0);
    let view = |i: usize| View::contiguous(i * 19, &[19]);
    let expression = Expression {
        shape: vec![19],
        inputs: (0..arity).map(|i| Input { view: view(i), row: false }).collect(),
        steps: vec![Step { function, arguments: (0..arity).map(Argument::Input).collect(), row: false }],
        outputs: vec![(0, view(3))],
    };
    for isa in Isa::available() {
        for &found in &run(isa, 1, &expression, &values)[57..] {
            let error = (found as f64 - expected).abs();
            let fits = error <= tolerance * expected.abs() + 1e-37;
            assert!(
                fits || found as f64 == expected,
                "{isa} {function:?} {inputs:?}: {found}, not {expected}"
            );
        }
    }
}

#[test]
fn functions_match_f64() {
    for i in 0..200 {
        let x = (i as f32 - 100.0) / 12.5 + 0.003;
        let y = x as f64;
        check(Function::Exp, [x; 3], y.exp(), 3e-7);
        check(Function::Expm1, [x / 100.0; 3], ((x / 100.0) as f64).exp_m1(), 5e-7);
        check(Function::Expm1, [x; 3], y.exp_m1(), 5e-7);
        check(Function::Log, [x.abs(); 3], y.abs().ln(), 3e-7);
        check(Function::Log, [1.0 + x / 1000.0; 3], ((1.0 + x / 1000.0) as f64).ln(), 3e-7);
        check(Function::Log1p, [x.abs() / 1000.0; 3], ((x.abs() / 1000.0) as f64).ln_1p(), 5e-7);
        check(Function::Tanh, [x; 3], y.tanh(), 4e-7);
        check(Function::Sigmoid, [x; 3], 1.0 / (1.0 + (-y).exp()), 4e-7);
    }
    // Values of the error function from Abramowitz and Stegun, table 7.1.
    for (x, erf) in [(0.1, 0.112_462_916), (0.5, 0.520_499_878), (1.0, 0.842_700_793), (2.0, 0.995_322_265)] {
        check(Function::Erf, [x; 3], erf, 3e-7);
        check(Function::Erf, [-x; 3], -erf, 3e-7);
    }
    check(Function::Log, [0.0; 3], f64::NEG_INFINITY, 0.0);
    check(Function::Select, [1.0, 2.0, 3.0], 2.0, 0.0);
    check(Function::Select, [0.0, 2.0, 3.0], 3.0, 0.0);
    check(Function::Pow, [2.0, -2.0, 0.0], 0.25, 1e-6);
    check(Function::Sign, [-3.0; 3], -1.0, 0.0);
    check(Function::Floor, [-1.5; 3], -2.0, 0.0);
}

/// Softmax in one pass: greatest of a row, exponentials, their sum, division; in place, and the same on 3 threads.
#[test]
fn rows_are_reduced_within_a_pass() {
    for (rows, row) in [(1, 1), (32, 10), (700, 67), (3, 1500)] {
        let step = |function, arguments, row| Step { function, arguments, row };
        use Argument::{Input as In, Step as At};
        let view = View::contiguous(0, &[rows, row]);
        let expression = Expression {
            shape: vec![rows, row],
            inputs: vec![Input { view: view.clone(), row: false }],
            steps: vec![
                step(Function::RowMax, vec![In(0)], true),
                step(Function::Expand, vec![At(0)], false),
                step(Function::Sub, vec![In(0), At(1)], false),
                step(Function::Exp, vec![At(2)], false),
                step(Function::RowSum, vec![At(3)], true),
                step(Function::Expand, vec![At(4)], false),
                step(Function::Div, vec![At(3), At(5)], false),
            ],
            outputs: vec![(6, view)],
        };
        let values: Vec<f32> = (0..rows * row).map(|i| ((i * 7919) % 1009) as f32 / 100.0).collect();
        for isa in Isa::available() {
            let found = run(isa, 1, &expression, &values);
            for (found, from) in found.chunks(row).zip(values.chunks(row)) {
                let sum: f64 = from.iter().map(|&x| (x as f64).exp()).sum();
                for (found, &x) in found.iter().zip(from) {
                    assert!((*found as f64 / ((x as f64).exp() / sum) - 1.0).abs() < 2e-6, "{isa}");
                }
            }
            assert_eq!(found, run(isa, 3, &expression, &values), "{isa}: threads change bits");
        }
    }
}

#[test]
fn strides_and_broadcasts_are_read_and_written() {
    let transposed = View { offset: 0, shape: vec![5, 7], strides: vec![1, 5] };
    let row = View { offset: 35, shape: vec![5, 7], strides: vec![0, 1] };
    let reversed = View { offset: 41, shape: vec![5, 7], strides: vec![0, -1] };
    let out = View { offset: 48, shape: vec![5, 7], strides: vec![8, 1] };
    let inputs = [transposed, row, reversed].map(|view| Input { view, row: false }).to_vec();
    let add = |arguments| Step { function: Function::Add, arguments, row: false };
    let expression = Expression {
        shape: vec![5, 7],
        inputs,
        steps: vec![
            add(vec![Argument::Input(0), Argument::Input(1)]),
            add(vec![Argument::Step(0), Argument::Input(2)]),
        ],
        outputs: vec![(1, out)],
    };
    let values: Vec<f32> = (0..96).map(|i| i as f32).collect();
    let found = run(Isa::detect(), 1, &expression, &values);
    for i in 0..5 {
        for j in 0..7 {
            assert_eq!(found[48 + i * 8 + j], (i + 5 * j + 35 + j + 41 - j) as f32);
        }
    }
}

/// Columns of a wider matrix are computed on where they stand, with the bits of contiguous ones.
#[test]
fn lines_of_a_matrix_are_computed_in_place() {
    const ROWS: usize = 37;
    let columns = |first: usize, len: usize, strides: usize| View {
        offset: first,
        shape: vec![ROWS, len],
        strides: vec![strides as isize, 1],
    };
    // Lengths and what else a row has; the last lines are too long to stay where they are.
    for (len, other) in [(48, 64), (128, 5), (1040, 16)] {
        let wide = 3 * len + other;
        let expression = |gathered: bool| {
            let part = |which: usize| match gathered {
                true => columns(which * ROWS * len, len, len),
                false => columns(which * len, len, wide),
            };
            let step = |function, arguments| Step { function, arguments, row: false };
            use Argument::{Constant, Input as In, Step as At};
            Expression {
                shape: vec![ROWS, len],
                inputs: [part(0), part(1)].map(|view| Input { view, row: false }).to_vec(),
                steps: vec![
                    step(Function::Sigmoid, vec![In(0)]),
                    step(Function::Floor, vec![In(1)]),
                    step(Function::Mul, vec![At(0), At(1)]),
                    step(Function::Uniform(3), vec![Constant(1.0), Constant(2.0)]),
                    step(Function::Select, vec![At(1), At(2), At(3)]),
                ],
                outputs: vec![(4, part(2)), (0, part(0))],
            }
        };
        let value = |row: usize, column: usize| ((row * wide + column) * 7919 % 1009) as f32 / 100.0 - 5.0;
        let together: Vec<f32> = (0..ROWS * wide).map(|i| value(i / wide, i % wide)).collect();
        let parts = (0..3).flat_map(|part| (0..ROWS * len).map(move |i| (i / len, part * len + i % len)));
        let apart: Vec<f32> = parts.clone().map(|(row, column)| value(row, column)).collect();
        for isa in Isa::available() {
            let expected = run(isa, 1, &expression(true), &apart);
            for threads in [1, 3] {
                let found = run(isa, threads, &expression(false), &together);
                let found: Vec<f32> = parts.clone().map(|(row, column)| found[row * wide + column]).collect();
                assert_eq!(found, expected, "{isa}, lines of {len}, {threads} threads");
            }
        }
    }
}
