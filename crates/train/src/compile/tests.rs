//! Compiled programs against the reference in f64.

use super::*;
use crate::graph::reference::Values;
use crate::graph::{Function, Windows};
use kernels::compute::Compute;
use kernels::workspace::Workspace;

/// Compiles what `build` describes of inputs with `shapes`, runs it, and compares all outputs with the reference.
fn check(shapes: &[&[usize]], build: impl Fn(&mut Graph, &[Id]) -> Result<Vec<Id>>) -> usize {
    let mut graph = Graph::new();
    let inputs: Vec<Id> = shapes.iter().enumerate().map(|(i, shape)| graph.input(i, shape)).collect();
    let outputs = build(&mut graph, &inputs).unwrap();
    let mut values = Values::new();
    let given: Vec<Vec<f32>> = shapes
        .iter()
        .enumerate()
        .map(|(which, shape)| {
            let n: usize = shape.iter().product();
            (0..n).map(|i| (((i + which * 131) * 7919) % 1009) as f32 / 504.5 - 1.0).collect()
        })
        .collect();
    for (id, given) in inputs.iter().zip(&given) {
        values.set(*id, given.iter().map(|&x| x as f64).collect());
    }
    let expected = values.of(&graph, &outputs).unwrap();
    let mut operations = 0;
    for isa in Isa::available() {
        let program = compile(&graph, &outputs, &[], &Variables::default(), isa).unwrap();
        operations = program.operations();
        let run = |threads: usize| {
            let mut workspace = Workspace::new(program.floats(), threads);
            // Whatever was in memory before must not matter.
            workspace.values_mut().fill(f32::NAN);
            program.prepare(&mut workspace);
            for (i, given) in given.iter().enumerate() {
                if let Some(to) = program.input(&mut workspace, i) {
                    to.copy_from_slice(given);
                }
            }
            program.run(&Compute::new(isa, threads), &mut workspace);
            (0..outputs.len()).map(|i| program.output(&workspace, i).to_vec()).collect::<Vec<_>>()
        };
        let found = run(1);
        for (output, (found, expected)) in found.iter().zip(&expected).enumerate() {
            assert_eq!(found.len(), expected.len());
            let size = expected.iter().fold(1.0f64, |size, x| size.max(x.abs()));
            for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
                let error = (*found as f64 - expected).abs();
                assert!(
                    error < 1e-4 * (size + expected.abs()),
                    "{isa}, output {output}[{i}]: {found} {expected}"
                );
            }
        }
        let bits = |outputs: &[Vec<f32>]| outputs.iter().flatten().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&found), bits(&run(3)), "{isa}: threads change bits");
    }
    operations
}

/// Outputs and the gradients of their sum for all inputs.
fn check_with_gradients(shapes: &[&[usize]], build: impl Fn(&mut Graph, &[Id]) -> Result<Id>) -> usize {
    check(shapes, |graph, inputs| {
        let y = build(graph, inputs)?;
        let square = graph.square(y)?;
        let loss = graph.sum_all(square)?;
        let mut outputs = graph.gradients(loss, inputs)?;
        outputs.push(y);
        Ok(outputs)
    })
}

fn softmax(graph: &mut Graph, x: Id) -> Result<Id> {
    let last = graph.shape(x).len() - 1;
    let greatest = graph.reduce_max(x, &[last])?;
    let less = graph.sub(x, greatest)?;
    let grown = graph.map(Function::Exp, less);
    let sum = graph.sum(grown, &[last])?;
    graph.div(grown, sum)
}

#[test]
fn softmax_is_one_pass() {
    for shape in [[4, 10], [300, 33], [2, 1000]] {
        assert_eq!(check(&[&shape], |graph, x| Ok(vec![softmax(graph, x[0])?])), 1);
        check_with_gradients(&[&shape], |graph, x| softmax(graph, x[0]));
    }
    check(&[&[3, 3000]], |graph, x| Ok(vec![softmax(graph, x[0])?]));
}

#[test]
fn dense_layers_match() {
    let operations = check_with_gradients(&[&[32, 100], &[100, 128], &[128], &[128, 10]], |graph, x| {
        let y = graph.matmul(x[0], x[1])?;
        let y = graph.add(y, x[2])?;
        let zero = graph.scalar(0.0);
        let y = graph.max(y, zero)?;
        let y = graph.matmul(y, x[3])?;
        softmax(graph, y)
    });
    assert!(operations <= 25, "{operations} operations");
}

#[test]
fn recurrences_match() {
    check_recurrence(0);
    check_recurrence(1);
}

/// Steps lie along `axis` of what is projected.
fn check_recurrence(axis: usize) {
    let operations = check_with_gradients(&[&[4, 6, 3], &[3, 8], &[4, 8], &[2, 8]], |graph, x| {
        let flat = graph.reshape(x[0], &[24, 3])?;
        let projected = graph.matmul(flat, x[1])?;
        let projected = graph.reshape(projected, [&[6, 4, 8], &[4, 6, 8]][axis])?;
        let mut h = graph.slice(x[2], &[0, 0], &[1, 1], &[4, 8])?;
        let bias = graph.slice_axis(x[3], 0, 1, 1)?;
        let gram = graph.transpose(x[2], &[1, 0])?;
        let gram = graph.matmul(gram, x[2])?;
        let kernel = graph.matmul(x[2], gram)?;
        let mut states = vec![];
        for step in 0..6 {
            let z = graph.slice_axis(projected, axis, step, 1)?;
            let z = graph.reshape(z, &[4, 8])?;
            let z = graph.add(z, bias)?;
            let recurrent = graph.transpose(kernel, &[1, 0])?;
            let part = graph.matmul(h, recurrent)?;
            let part = graph.matmul(part, x[2])?;
            let z = graph.add(z, part)?;
            let gate = graph.slice_axis(z, 1, 0, 4)?;
            let gate = graph.map(Function::Sigmoid, gate);
            let cell = graph.slice_axis(z, 1, 4, 4)?;
            let cell = graph.map(Function::Tanh, cell);
            let product = graph.mul(gate, cell)?;
            h = graph.concat(&[product, cell], 1)?;
            states.push(graph.reshape(h, [&[1, 4, 8], &[4, 1, 8]][axis])?);
        }
        graph.concat(&states, axis)
    });
    println!("{operations} operations");
}

#[test]
fn small_steps_over_rows_are_gone_through_at_once() {
    let steps = |graph: &mut Graph, x: &[Id], width: usize| {
        let mut h = x[0];
        for _ in 0..8 {
            let sums = graph.matmul(h, x[1])?;
            let halves = [0, 1].map(|which| graph.slice_axis(sums, 1, which * width, width));
            let [gate, cell] = halves;
            let gate = graph.map(Function::Sigmoid, gate?);
            let cell = graph.map(Function::Tanh, cell?);
            h = graph.mul(gate, cell)?;
        }
        Ok(h)
    };
    // All of the way there is one operation after packing the weights, and all of the way back beside their gradient.
    let forward = check(&[&[32, 40], &[40, 80]], |graph, x| Ok(vec![steps(graph, x, 40)?]));
    assert_eq!(forward, 2);
    let operations = check_with_gradients(&[&[32, 40], &[40, 80]], |graph, x| steps(graph, x, 40));
    assert!(operations <= 24, "{operations} operations");
    // Rows that see each other can't be.
    check_with_gradients(&[&[32, 32], &[32, 32]], |graph, x| {
        let mut h = x[0];
        for _ in 0..6 {
            let sums = graph.matmul(h, x[1])?;
            let turned = graph.transpose(sums, &[1, 0])?;
            h = graph.map(Function::Tanh, turned);
        }
        Ok(h)
    });
}

#[test]
fn what_is_part_of_a_packed_operand_is_not_packed_again() {
    for whole_first in [true, false] {
        let operations = check(&[&[40, 33], &[38, 29], &[40, 48]], |graph, x| {
            let part = graph.slice_axis(x[2], 0, 2, 38)?;
            let turned = [graph.transpose(x[0], &[1, 0])?, graph.transpose(x[1], &[1, 0])?];
            let products = [(turned[0], x[2]), (turned[1], part)];
            let order = if whole_first { products } else { [products[1], products[0]] };
            order.into_iter().map(|(a, b)| graph.matmul(a, b)).collect()
        });
        assert_eq!(operations, 3, "a packing and two products");
    }
}

#[test]
fn sums_that_begin_with_parts_of_a_tensor_take_their_place() {
    let build = |graph: &mut Graph, x: &[Id]| {
        let projected = graph.matmul(x[0], x[1])?;
        let mut h = x[2];
        for step in 0..8 {
            let part = graph.slice_axis(projected, 0, step * 32, 32)?;
            let product = graph.matmul(h, x[3])?;
            let sums = graph.add(part, product)?;
            let gate = graph.slice_axis(sums, 1, 0, 40)?;
            let gate = graph.map(Function::Sigmoid, gate);
            let cell = graph.slice_axis(sums, 1, 40, 40)?;
            h = graph.mul(gate, cell)?;
        }
        Ok(vec![h])
    };
    let shapes: [&[usize]; 4] = [&[8 * 32, 16], &[16, 80], &[32, 40], &[40, 80]];
    check(&shapes, build);
    let mut graph = Graph::new();
    let inputs: Vec<Id> = shapes.iter().enumerate().map(|(i, shape)| graph.input(i, shape)).collect();
    let outputs = build(&mut graph, &inputs).unwrap();
    let program = compile(&graph, &outputs, &[], &Variables::default(), Isa::Portable).unwrap();
    // Beside the inputs and their packed forms: what is projected, and the states of a run.
    let operands = 8 * 32 * 16 + 2 * 16 * 80 + 32 * 40 + 2 * 40 * 80;
    let needed = operands + 8 * 32 * 80 + 8 * 32 * 40;
    assert!(program.floats() <= needed, "{} values, {needed} needed", program.floats());
}

#[test]
fn factors_of_a_gradient_are_not_kept_when_they_follow_from_what_is() {
    let mut graph = Graph::new();
    let (x, w, wanted) = (graph.input(0, &[8, 5]), graph.input(1, &[5, 5]), graph.input(2, &[8, 5]));
    let sums = graph.matmul(x, w).unwrap();
    let y = graph.map(Function::Tanh, sums);
    let product = graph.matmul(y, w).unwrap();
    let difference = graph.sub(product, wanted).unwrap();
    let square = graph.square(difference).unwrap();
    let loss = graph.sum_all(square).unwrap();
    let gradients = graph.gradients(loss, &[w]).unwrap();
    let (graph, moved) = graph.reduced(&gradients).unwrap();
    let nodes = Nodes::new(&graph, &moved);
    let mut groups = Groups::new(&nodes);
    let tanh = (0..graph.len()).find(|&i| graph.node(Id(i as u32)).op == Op::Map(Function::Tanh)).unwrap();
    let steps_beside_tanh = |groups: &Groups| {
        groups.groups[groups.group_of[tanh]].members.iter().filter(|id| id.index() != tanh).count()
    };
    assert!(steps_beside_tanh(&groups) > 0, "1 - y² is computed with y, and would be kept");
    sink::sink(&mut groups, &nodes);
    assert_eq!(steps_beside_tanh(&groups), 0);
}

#[test]
fn convolutions_and_pooling_match() {
    let windows = |size: usize, stride: usize, padding: usize| Windows {
        kernel: vec![size; 2],
        strides: vec![stride; 2],
        dilation: vec![1; 2],
        padding: vec![(padding, padding); 2],
    };
    check_with_gradients(&[&[2, 9, 9, 3], &[3, 3, 3, 8], &[8], &[1, 1, 8, 4]], |graph, x| {
        let y = graph.convolution(x[0], x[1], &windows(3, 1, 1), 1)?;
        let mean = graph.mean(y, &[0, 1, 2])?;
        let centred = graph.sub(y, mean)?;
        let square = graph.square(centred)?;
        let variance = graph.mean(square, &[0, 1, 2])?;
        let variance = graph.add_scalar(variance, 1e-3)?;
        let deviation = graph.map(Function::Sqrt, variance);
        let y = graph.div(centred, deviation)?;
        let y = graph.add(y, x[2])?;
        let y = graph.max_pool(y, &windows(2, 2, 0))?;
        let y = graph.convolution(y, x[3], &windows(1, 1, 0), 1)?;
        let y = graph.sum_pool(y, &windows(2, 1, 0))?;
        graph.sum(y, &[1, 2])
    });
}

#[test]
fn movements_match() {
    check_with_gradients(&[&[2, 3, 4], &[5, 3]], |graph, x| {
        let t = graph.transpose(x[0], &[2, 0, 1])?;
        let flat = graph.reshape(t, &[8, 3])?;
        let reversed = graph.reverse(flat, &[0])?;
        let padded = graph.pad(reversed, &[1, 0], &[2, 1], &[17, 3])?;
        let joined = graph.concat(&[padded, x[1], flat], 0)?;
        let indices = graph.constant(&[3.0, 0.0, 29.0, 3.0], &[2, 2])?;
        let rows = graph.take(joined, indices)?;
        let rows = graph.reshape(rows, &[4, 3])?;
        let products = graph.transposed(rows)?;
        let products = graph.matmul(rows, products)?;
        let most = graph.reduce_max(products, &[0])?;
        let argmax = graph.argmax(products, 1)?;
        let sum = graph.mul(argmax, most)?;
        let square = graph.square(sum)?;
        let divisor = graph.add_scalar(square, 0.5)?;
        let ratio = graph.div(products, divisor)?;
        graph.min(ratio, products)
    });
}

#[test]
fn batched_products_match() {
    check_with_gradients(&[&[2, 5, 3, 4], &[2, 6, 3, 4], &[2, 6, 3, 7]], |graph, x| {
        let q = graph.transpose(x[0], &[0, 2, 1, 3])?;
        let k = graph.transpose(x[1], &[0, 2, 3, 1])?;
        let v = graph.transpose(x[2], &[0, 2, 1, 3])?;
        let scores = graph.matmul(q, k)?;
        let weights = softmax(graph, scores)?;
        let mixed = graph.matmul(weights, v)?;
        let mixed = graph.transpose(mixed, &[0, 2, 1, 3])?;
        graph.reshape(mixed, &[2, 5, 21])
    });
}

/// Variables are updated in place where they can be, and come out right where they can't.
#[test]
fn variables_are_updated() {
    let mut variables = Variables::default();
    let (p, m, q) = (variables.add(6), variables.add(6), variables.add(4));
    let mut graph = Graph::new();
    let (vp, vm) = (graph.variable(p, &[6]), graph.variable(m, &[6]));
    let vq = graph.variable(q, &[2, 2]);
    let matrix = graph.slice_axis(vp, 0, 0, 4).unwrap();
    let matrix = graph.reshape(matrix, &[2, 2]).unwrap();
    let product = graph.matmul(matrix, vq).unwrap();
    let loss = graph.sum_all(product).unwrap();
    let gradient = graph.gradients(loss, &[vp]).unwrap()[0];
    let decayed = graph.scale(vm, 0.5).unwrap();
    let m_new = graph.add(decayed, gradient).unwrap();
    let p_new = graph.sub(vp, m_new).unwrap();
    let q_new = graph.transposed(vq).unwrap();
    let updates = [(p, p_new), (m, m_new), (q, q_new)];
    let program = compile(&graph, &[loss], &updates, &variables, Isa::detect()).unwrap();
    let mut workspace = Workspace::new(program.floats(), 1);
    workspace.values_mut()[variables.offset(p)..][..6].copy_from_slice(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    workspace.values_mut()[variables.offset(q)..][..4].copy_from_slice(&[1.0, 2.0, 3.0, 4.0]);
    program.prepare(&mut workspace);
    let compute = Compute::new(Isa::detect(), 1);
    let mut losses = vec![];
    for _ in 0..2 {
        program.run(&compute, &mut workspace);
        losses.push(program.output(&workspace, 0)[0]);
    }
    // By hand: loss = sum of p[:4] as [2, 2] times q; q's rows sum to 3, 7 and, transposed, to 4, 6.
    assert_eq!(losses, [1.0 * 3.0 + 2.0 * 7.0 + 3.0 * 3.0 + 4.0 * 7.0, -2.0 * 4.0 - 5.0 * 6.0 - 3.0 * 6.0]);
    let values = workspace.values();
    assert_eq!(values[variables.offset(p)..][..6], [-7.5, -14.5, -5.5, -12.5, 5.0, 6.0]);
    assert_eq!(values[variables.offset(m)..][..6], [5.5, 9.5, 5.5, 9.5, 0.0, 0.0]);
    assert_eq!(values[variables.offset(q)..][..4], [1.0, 2.0, 3.0, 4.0]);
}
