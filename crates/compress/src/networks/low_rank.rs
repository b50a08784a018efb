//! Products with two thin matrices instead of one: a weight's singular values decide how thin (Eckart and Young, 1936).

use super::changes::Change;
use super::coding::CODED_ELEMENTS_MIN;
use super::document::{Document, FLOAT, Node, Weight};
use super::error::Result;

/// Sweeps over all pairs of columns, at most; some eight are usual.
const SWEEPS_MAX: usize = 40;

/// What decides how many singular values are kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Budget {
    /// The relative error that a weight may have, from 0 to 1.
    Error(f64),
    /// The share of a weight's parameters that may be left, from 0 to 1.
    Share(f64),
}

/// `a` is `[rows, columns]`, with no more columns than rows: its columns turned until they are at right angles, as
/// columns one after the other; and the turns, alike (one-sided Jacobi rotations: Hestenes, 1958).
fn turned(a: &[f32], rows: usize, columns: usize) -> (Vec<Vec<f64>>, Vec<Vec<f64>>) {
    let column = |at: usize| (0..rows).map(|row| f64::from(a[row * columns + at])).collect();
    let mut u: Vec<Vec<f64>> = (0..columns).map(column).collect();
    let unit = |at: usize| (0..columns).map(|other| f64::from(u8::from(other == at))).collect();
    let mut v: Vec<Vec<f64>> = (0..columns).map(unit).collect();
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    for _ in 0..SWEEPS_MAX {
        let mut is_done = true;
        for p in 0..columns {
            for q in p + 1..columns {
                let (alpha, beta, gamma) = (dot(&u[p], &u[p]), dot(&u[q], &u[q]), dot(&u[p], &u[q]));
                if gamma.abs() <= 1e-9 * (alpha * beta).sqrt() {
                    continue;
                }
                is_done = false;
                let zeta = (beta - alpha) / (2.0 * gamma);
                let t = zeta.signum() / (zeta.abs() + (1.0 + zeta * zeta).sqrt());
                let c = 1.0 / (1.0 + t * t).sqrt();
                let s = c * t;
                for of in [&mut u, &mut v] {
                    let (before, from_q) = of.split_at_mut(q);
                    for (x, y) in before[p].iter_mut().zip(from_q[0].iter_mut()) {
                        (*x, *y) = (c * *x - s * *y, s * *x + c * *y);
                    }
                }
            }
        }
        if is_done {
            break;
        }
    }
    (u, v)
}

/// `w [rows, columns]` as `left [rows, rank]` times `right [rank, columns]`, where that has fewer numbers.
fn factors(w: &[f32], rows: usize, columns: usize, budget: Budget) -> Option<(Vec<f32>, Vec<f32>, usize)> {
    if columns > rows {
        let (left, right, rank) = factors(&transposed(w, rows, columns), columns, rows, budget)?;
        return Some((transposed(&right, rank, rows), transposed(&left, columns, rank), rank));
    }
    let (u, v) = turned(w, rows, columns);
    let mut order: Vec<(f64, usize)> =
        u.iter().enumerate().map(|(at, column)| (column.iter().map(|x| x * x).sum::<f64>(), at)).collect();
    order.sort_by(|a, b| b.0.total_cmp(&a.0));
    let all: f64 = order.iter().map(|(square, _)| square).sum();
    let rank = match budget {
        Budget::Share(share) => (share * (rows * columns) as f64 / (rows + columns) as f64) as usize,
        Budget::Error(error) => {
            let mut left = all;
            let enough = order.iter().position(|(square, _)| {
                let is_enough = left.max(0.0) <= error * error * all;
                left -= square;
                is_enough
            });
            enough.unwrap_or(order.len())
        }
    };
    let rank = rank.max(1);
    if rank * (rows + columns) >= rows * columns {
        return None;
    }
    let (mut left, mut right) = (vec![0f32; rows * rank], vec![0f32; rank * columns]);
    for (to, (square, from)) in order.iter().take(rank).enumerate() {
        // The size of a singular value is shared by both, so that neither is hard to say in few bits.
        let root = square.sqrt().sqrt().max(f64::MIN_POSITIVE);
        (0..rows).for_each(|row| left[row * rank + to] = (u[*from][row] / root) as f32);
        (0..columns).for_each(|column| right[to * columns + column] = (v[*from][column] * root) as f32);
    }
    Some((left, right, rank))
}

fn transposed(w: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    (0..rows * columns).map(|at| w[at % rows * columns + at / rows]).collect()
}

fn product(left: &[f32], right: &[f32], [rows, rank, columns]: [usize; 3]) -> Vec<f32> {
    let mut product = vec![0f32; rows * columns];
    for row in 0..rows {
        for inner in 0..rank {
            let factor = left[row * rank + inner];
            let (to, from) = (&mut product[row * columns..][..columns], &right[inner * columns..][..columns]);
            to.iter_mut().zip(from).for_each(|(to, from)| *to += factor * from);
        }
    }
    product
}

/// Makes two products of each `MatMul` and `Gemm` with weights of its own, where that is less.
pub fn factorise(document: &mut Document, budget: Budget) -> Result<Vec<Change>> {
    let mut changes = vec![];
    let mut names = document.names();
    let mut nodes = vec![];
    for mut node in std::mem::take(&mut document.nodes) {
        let is_product = matches!(node.operator.as_str(), "MatMul" | "Gemm") && node.domain.is_empty();
        let is_turned = node.operator == "Gemm" && node.int("transB") == Some(1);
        let plain = node.operator == "MatMul"
            || (node.int("transA").unwrap_or(0) == 0 && node.float("alpha").is_none_or(|alpha| alpha == 1.0));
        let weight =
            node.inputs.get(1).and_then(|name| document.weights.iter().find(|weight| weight.name == *name));
        let weight = weight.filter(|weight| {
            weight.shape.len() == 2 && weight.element == FLOAT && weight.elements() >= CODED_ELEMENTS_MIN
        });
        let Some((weight, values)) = weight
            .filter(|_| is_product && plain)
            .and_then(|weight| Some((weight.clone(), weight.floats()?)))
        else {
            nodes.push(node);
            continue;
        };
        let [a, b] = [weight.shape[0], weight.shape[1]];
        let (w, rows, columns) = if is_turned { (transposed(&values, a, b), b, a) } else { (values, a, b) };
        let Some((left, right, rank)) = factors(&w, rows, columns, budget) else {
            nodes.push(node);
            continue;
        };
        let after = product(&left, &right, [rows, rank, columns]);
        let bytes = (left.len() + right.len()) * 4;
        let became = format!("two products of rank {rank}");
        changes.push(Change::new((&weight.name, &weight.shape, became), &w, &after, bytes));
        let [left_name, right_name] =
            ["left", "right"].map(|part| names.unique(&format!("{}_{part}", weight.name)));
        let right = if is_turned { transposed(&right, rank, columns) } else { right };
        let right_shape = if is_turned { [columns, rank] } else { [rank, columns] };
        document.weights.push(Weight::of_floats(&left_name, &[rows, rank], &left));
        document.weights.push(Weight::of_floats(&right_name, &right_shape, &right));
        let inner = names.unique(&format!("{}_inner", node.outputs[0]));
        nodes.push(Node::new("MatMul", &[&node.inputs[0], &left_name], &inner));
        node.inputs[0] = inner;
        node.inputs[1] = right_name;
        nodes.push(node);
    }
    document.nodes = nodes;
    document.swept();
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_product_of_thin_matrices_is_found_again() {
        for (rows, columns) in [(12, 9), (9, 12)] {
            let thin = |len: usize, by: usize| -> Vec<f32> {
                (0..len).map(|at| ((at * by) % 17) as f32 / 17.0 - 0.4).collect()
            };
            let w = product(&thin(rows * 2, 5), &thin(2 * columns, 7), [rows, 2, columns]);
            let (left, right, rank) = factors(&w, rows, columns, Budget::Error(1e-4)).unwrap();
            assert_eq!(rank, 2);
            for (a, b) in product(&left, &right, [rows, rank, columns]).iter().zip(&w) {
                assert!((a - b).abs() < 1e-5, "{a} and {b}");
            }
            assert!(factors(&w, rows, columns, Budget::Share(0.99)).is_some());
        }
    }

    /// A random matrix has no thin factors within a small error.
    #[test]
    fn what_would_be_more_numbers_is_left() {
        let w: Vec<f32> =
            (0..64).map(|at: u32| (at.wrapping_mul(2654435761) >> 8) as f32 / 16777216.0 - 0.5).collect();
        assert!(factors(&w, 8, 8, Budget::Error(0.01)).is_none());
    }
}
