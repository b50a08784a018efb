//! The factor by which rounding errors are made up for: `U`, upper triangular, with `U' U` the inverse of a matrix of second
//! moments.
//!
//! With `H = R R'`, `R` upper triangular, `U` is `R^-1`: so the inverse itself is never made, which GPTQ's authors factor.

use std::sync::{Mutex, PoisonError};

use kernels::compute::Compute;

/// What is added to the diagonal, as a share of its mean: as the paper has it.
const DAMPING: f64 = 0.01;
/// The same where the matrix is too near to one without an inverse.
const DAMPING_MAX: f64 = 1.0;
/// Columns that are found in all rows at a time, so that they stay in a cache.
const COLUMNS: usize = 64;
/// Rows of the inverse that stand side by side.
const SIDE: usize = 16;

/// `U [n, n]` of `moments [n, n]`, symmetric. `None` where these are no numbers, or hold none but zeros.
pub fn factor(compute: &Compute, moments: &[f32], n: usize) -> Option<Vec<f32>> {
    let mean = (0..n).map(|i| f64::from(moments[i * n + i])).sum::<f64>() / n as f64;
    if !mean.is_finite() || mean <= 0.0 {
        return None;
    }
    let mut damping = DAMPING;
    while damping <= DAMPING_MAX {
        // Scaled so that sizes don't matter.
        let scale = 1.0 / mean;
        let mut rows: Vec<Vec<f32>> = moments
            .chunks_exact(n)
            .map(|row| row.iter().map(|x| (f64::from(*x) * scale) as f32).collect())
            .collect();
        rows.iter_mut().enumerate().for_each(|(i, row)| row[i] += damping as f32);
        if triangular(compute, &mut rows) {
            return Some(inverse(compute, &rows));
        }
        damping *= 10.0;
    }
    None
}

/// The upper triangle of `rows` becomes `R`; false where there is none.
fn triangular(compute: &Compute, rows: &mut [Vec<f32>]) -> bool {
    let n = rows.len();
    let mut end = n;
    while end > 0 {
        let begin = end.saturating_sub(COLUMNS);
        for j in (begin..end).rev() {
            let (before, from_j) = rows.split_at_mut(j);
            let row = &mut from_j[0];
            let rest = row[j] - dot(&row[j + 1..], &row[j + 1..]);
            if rest.is_nan() || rest <= f32::EPSILON {
                return false;
            }
            row[j] = rest.sqrt();
            for other in &mut before[begin..] {
                other[j] = (other[j] - dot(&other[j + 1..], &row[j + 1..])) / row[j];
            }
        }
        let (above, block) = rows.split_at_mut(begin);
        let parts: Vec<_> = above.chunks_mut(16).map(Mutex::new).collect();
        compute.pool().for_each(parts.len(), |part| {
            for row in parts[part].lock().unwrap_or_else(PoisonError::into_inner).iter_mut() {
                for j in (begin..end).rev() {
                    let with = &block[j - begin];
                    row[j] = (row[j] - dot(&row[j + 1..], &with[j + 1..])) / with[j];
                }
            }
        });
        end = begin;
    }
    true
}

/// The inverse of `R`.
fn inverse(compute: &Compute, r: &[Vec<f32>]) -> Vec<f32> {
    let n = r.len();
    let mut out = vec![0.0; n * n];
    let parts: Vec<_> = out.chunks_mut(SIDE * n).map(Mutex::new).collect();
    compute.pool().for_each(parts.len(), |part| {
        let first = part * SIDE;
        let mut u = vec![[0.0f32; SIDE]; n];
        (0..SIDE.min(n - first)).for_each(|lane| u[first + lane][lane] = 1.0);
        for k in first..n {
            let (done, left) = u.split_at_mut(k + 1);
            let here = &mut done[k];
            here.iter_mut().for_each(|x| *x /= r[k][k]);
            for (u, share) in left.iter_mut().zip(&r[k][k + 1..]) {
                for lane in 0..SIDE {
                    u[lane] -= here[lane] * share;
                }
            }
        }
        let mut rows = parts[part].lock().unwrap_or_else(PoisonError::into_inner);
        for (lane, row) in rows.chunks_exact_mut(n).enumerate() {
            row.iter_mut().zip(&u).for_each(|(to, u)| *to = u[lane]);
        }
    });
    out
}

/// Sixteen sums side by side, then together.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<16>(), b.as_chunks::<16>());
    let mut sums = [0.0f32; 16];
    for (a, b) in a.iter().zip(b) {
        for i in 0..16 {
            sums[i] += a[i] * b[i];
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use kernels::compute::Isa;

    use super::*;

    #[test]
    fn its_square_is_the_inverse() {
        let compute = Compute::new(Isa::detect(), 2);
        for n in [1, 3, 64, 150] {
            // Of rows that have much in common.
            let rows: Vec<Vec<f64>> = (0..3 * n)
                .map(|t| (0..n).map(|i| ((t * 7 + i * i) as f64).sin() + ((t * 3) as f64).cos()).collect())
                .collect();
            let moment = |i: usize, j: usize| rows.iter().map(|row| row[i] * row[j]).sum::<f64>();
            let mut moments = vec![0.0; n * n];
            (0..n * n).for_each(|at| moments[at] = moment(at / n, at % n) as f32);
            let u = factor(&compute, &moments, n).unwrap();
            let mean = (0..n).map(|i| moment(i, i)).sum::<f64>() / n as f64;
            for i in 0..n {
                assert!(u[i * n..][..i].iter().all(|x| *x == 0.0) && u[i * n + i] > 0.0);
                for j in 0..n {
                    // `(H / mean + 0.01) U' U` is one.
                    let entry: f64 = (0..n)
                        .map(|k| {
                            let damped = moment(i, k) / mean + if i == k { DAMPING } else { 0.0 };
                            damped
                                * (0..n)
                                    .map(|l| f64::from(u[l * n + k]) * f64::from(u[l * n + j]))
                                    .sum::<f64>()
                        })
                        .sum();
                    let expected = f64::from(u8::from(i == j));
                    assert!((entry - expected).abs() < 2e-3, "{n}: {i} {j} {entry}");
                }
            }
        }
        assert!(factor(&compute, &[0.0; 4], 2).is_none());
        assert!(factor(&compute, &[f32::NAN, 0.0, 0.0, 1.0], 2).is_none());
        // Of one direction alone.
        assert!(factor(&compute, &[1.0; 9], 3).is_some());
    }
}
