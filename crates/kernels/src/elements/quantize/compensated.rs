//! Rounding whose errors are made up for by the columns that are still to come (GPTQ: Frantar et al. 2022, arXiv
//! 2210.17323): what counts is what a row gives for the inputs that were seen, not each weight alone.
//!
//! Sixteen rows stand side by side, so that a number of the factor is read once for all of them. A block's scales are
//! searched when its turn comes, for the weights as they are by then; its codes follow column by column.

use super::{ElementType, LANES, pack, quantize};
use crate::compute::Isa;
use crate::elements::dequantize;

/// Whether codes of a type stand for evenly spaced numbers, and are few enough for it to matter.
pub fn is_compensable(element_type: ElementType) -> bool {
    use ElementType::*;
    matches!(element_type, Q4_0 | Q4_1 | Q5_0 | Q5_1 | Q2_K | Q3_K | Q4_K | Q5_K | Q6_K)
}

/// Up to sixteen rows of `columns` numbers, of at most 1e9 in size, as `element_type`, in the order of columns.
///
/// `factor` is `U [columns, columns]`, upper triangular with a positive diagonal, where `U' U` is the inverse of `X' X` of
/// the inputs, scaled as they are to count. Scales are searched with the weight `1 / U[i, i]^2` for column `i`, which is what an error there
/// costs once the later columns have made up for it.
///
/// Gives the sum of the squared errors of the weights.
///
/// # Panics
/// When the type isn't [`is_compensable`], or sizes don't agree.
pub fn quantize_compensated(
    isa: Isa,
    element_type: ElementType,
    rows: &[f32],
    columns: usize,
    factor: &[f32],
    out: &mut [u8],
) -> f64 {
    assert!(is_compensable(element_type), "{element_type} can't be compensated");
    assert!(
        columns > 0 && rows.len().is_multiple_of(columns) && rows.len() <= LANES * columns,
        "up to 16 rows"
    );
    let (elements, bytes) = (element_type.block_elements(), element_type.block_bytes());
    assert!(columns.is_multiple_of(elements), "whole blocks of {element_type}");
    assert_eq!(Some(out.len()), element_type.row_bytes(rows.len()), "bytes of {element_type}");
    assert_eq!(factor.len(), columns * columns, "a factor of {columns} columns");
    let count = rows.len() / columns;
    let importance: Vec<f32> = (0..columns).map(|i| factor[i * columns + i].powi(-2)).collect();
    let mean = importance.iter().sum::<f32>() / columns as f32;
    let importance: Vec<f32> = importance.iter().map(|x| x / mean).collect();

    // What is left of each weight, by column.
    let mut x = vec![[0.0f32; LANES]; columns];
    for (lane, row) in rows.chunks_exact(columns).enumerate() {
        x.iter_mut().zip(row).for_each(|(x, value)| x[lane] = *value);
    }
    let row_bytes = columns / elements * bytes;
    let mut block = Block {
        isa,
        element_type,
        values: vec![0.0; count * elements],
        packed: vec![0; count * bytes],
        lines: vec![Line::default(); elements],
    };
    let mut misses = vec![[0.0f32; LANES]; elements];
    let mut error = 0.0;
    for first in (0..columns).step_by(elements) {
        block.search(&x[first..][..elements], &importance[first..][..elements]);
        for at in 0..elements {
            let row = &factor[(first + at) * columns + first..][..elements];
            let (done, left) = x[first..][..elements].split_at_mut(at + 1);
            let rounded = block.round(at, &done[at]);
            misses[at] = std::array::from_fn(|lane| (done[at][lane] - rounded[lane]) / row[at]);
            take(left, &row[at + 1..], &misses[at]);
        }
        for (at, misses) in misses.iter().enumerate() {
            let row = &factor[(first + at) * columns + first + elements..][..columns - first - elements];
            take(&mut x[first + elements..], row, misses);
        }
        error += block.write(rows, columns, first, |row| row * row_bytes + first / elements * bytes, out);
    }
    error
}

/// Takes each column's share of the misses off it.
fn take(x: &mut [[f32; LANES]], shares: &[f32], misses: &[f32; LANES]) {
    for (x, share) in x.iter_mut().zip(shares) {
        for lane in 0..LANES {
            x[lane] -= share * misses[lane];
        }
    }
}

/// What the codes of one column stand for, in each row: `start + step * code`.
#[derive(Clone, Copy, Default)]
struct Line {
    start: [f32; LANES],
    step: [f32; LANES],
    codes: [u8; LANES],
}

/// A block of each row.
struct Block {
    isa: Isa,
    element_type: ElementType,
    values: Vec<f32>,
    packed: Vec<u8>,
    lines: Vec<Line>,
}

impl Block {
    /// Searches scales for `x`.
    fn search(&mut self, x: &[[f32; LANES]], importance: &[f32]) {
        let elements = x.len();
        for (lane, values) in self.values.chunks_exact_mut(elements).enumerate() {
            values.iter_mut().zip(x).for_each(|(value, x)| *value = x[lane]);
        }
        quantize(self.isa, self.element_type, &self.values, elements, Some(importance), &mut self.packed);
        let bytes = self.element_type.block_bytes();
        let top = top(self.element_type);
        let (mut least, mut greatest) = (vec![0.0; elements], vec![0.0; elements]);
        for (lane, packed) in self.packed.chunks_exact_mut(bytes).enumerate() {
            let codes = pack::code_bytes(self.element_type);
            packed[codes.clone()].fill(0);
            dequantize(self.element_type, packed, &mut least);
            packed[codes].fill(u8::MAX);
            dequantize(self.element_type, packed, &mut greatest);
            for (at, line) in self.lines.iter_mut().enumerate() {
                (line.start[lane], line.step[lane]) = (least[at], (greatest[at] - least[at]) / top);
            }
        }
    }

    /// The nearest numbers that column `at` has.
    fn round(&mut self, at: usize, x: &[f32; LANES]) -> [f32; LANES] {
        let (line, top) = (&mut self.lines[at], top(self.element_type));
        std::array::from_fn(|lane| {
            let step = line.step[lane];
            let code =
                if step == 0.0 { 0.0 } else { ((x[lane] - line.start[lane]) / step).round_ties_even() };
            let code = code.clamp(0.0, top);
            line.codes[lane] = code as u8;
            line.start[lane] + step * code
        })
    }

    /// Puts the codes of every row where `place` says, and gives the squared error of what they stand for.
    fn write(
        &mut self,
        rows: &[f32],
        columns: usize,
        first: usize,
        place: impl Fn(usize) -> usize,
        out: &mut [u8],
    ) -> f64 {
        let bytes = self.element_type.block_bytes();
        let mut error = 0.0;
        let mut decoded = vec![0.0; self.lines.len()];
        for (row, packed) in self.packed.chunks_exact_mut(bytes).enumerate() {
            let codes: Vec<u8> = self.lines.iter().map(|line| line.codes[row]).collect();
            pack::put_codes(self.element_type, &codes, packed);
            out[place(row)..][..bytes].copy_from_slice(packed);
            dequantize(self.element_type, packed, &mut decoded);
            let values = &rows[row * columns + first..][..decoded.len()];
            error += values.iter().zip(&decoded).map(|(x, y)| f64::from((x - y) * (x - y))).sum::<f64>();
        }
        error
    }
}

/// The greatest code.
fn top(element_type: ElementType) -> f32 {
    use ElementType::*;
    match element_type {
        Q2_K => 3.0,
        Q3_K => 7.0,
        Q5_0 | Q5_1 | Q5_K => 31.0,
        Q6_K => 63.0,
        _ => 15.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elements::quantize;

    /// Random, and as correlated as neighbours in a text's activations are.
    fn inputs(rows: usize, columns: usize) -> Vec<f32> {
        let mut state = 7u64;
        let mut normal = || {
            let mut uniform = || {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
            };
            (0..4).map(|_| uniform()).sum::<f32>()
        };
        let mut x = vec![0.0; rows * columns];
        for row in x.chunks_exact_mut(columns) {
            let shared: [f32; 8] = std::array::from_fn(|_| normal());
            for (i, x) in row.iter_mut().enumerate() {
                *x = shared[i * 7 % 8] + shared[i % 5] * 0.7 + 0.4 * normal();
            }
        }
        x
    }

    /// `U` with `U' U` the inverse of `x' x`, by elimination in f64.
    fn factor(x: &[f32], n: usize) -> Vec<f32> {
        let mut h = vec![0.0f64; n * n];
        for row in x.chunks_exact(n) {
            for i in 0..n {
                for j in 0..n {
                    h[i * n + j] += f64::from(row[i]) * f64::from(row[j]);
                }
            }
        }
        // `h = r r'` with `r` upper triangular, from the last column on; then `u = r^-1`.
        let mut r = vec![0.0f64; n * n];
        for j in (0..n).rev() {
            for i in (0..=j).rev() {
                let sum: f64 = (j + 1..n).map(|k| r[i * n + k] * r[j * n + k]).sum();
                let rest = h[i * n + j] - sum;
                r[i * n + j] = if i == j { rest.sqrt() } else { rest / r[j * n + j] };
            }
        }
        let mut u = vec![0.0f64; n * n];
        for i in 0..n {
            u[i * n + i] = 1.0 / r[i * n + i];
            for j in i + 1..n {
                let sum: f64 = (i..j).map(|k| u[i * n + k] * r[k * n + j]).sum();
                u[i * n + j] = -sum / r[j * n + j];
            }
        }
        u.into_iter().map(|x| x as f32).collect()
    }

    /// What rows give for inputs is nearer to what it was, by a lot where inputs are correlated.
    #[test]
    fn products_come_nearer_than_by_rounding_each_weight() {
        let n = 512;
        let x = inputs(2048, n);
        let u = factor(&x, n);
        let weights = inputs(16, n);
        let off = |element_type, bytes: &[u8]| {
            let mut decoded = vec![0.0; weights.len()];
            dequantize(element_type, bytes, &mut decoded);
            let mut sum = 0.0;
            for (row, decoded) in weights.chunks_exact(n).zip(decoded.chunks_exact(n)) {
                let miss: Vec<f32> = row.iter().zip(decoded).map(|(a, b)| a - b).collect();
                for x in x.chunks_exact(n) {
                    let y: f32 = x.iter().zip(&miss).map(|(x, miss)| x * miss).sum();
                    sum += f64::from(y * y);
                }
            }
            sum
        };
        use ElementType::*;
        for element_type in [Q4_0, Q4_1, Q5_0, Q5_1, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K] {
            let mut plain = vec![0; element_type.row_bytes(weights.len()).unwrap()];
            let mut better = plain.clone();
            quantize(Isa::detect(), element_type, &weights, n, None, &mut plain);
            let error = quantize_compensated(Isa::detect(), element_type, &weights, n, &u, &mut better);
            let (before, after) = (off(element_type, &plain), off(element_type, &better));
            println!("{element_type} {:.3}", after / before);
            assert!(after < 0.7 * before, "{element_type}: {after} of {before}");
            // What it says of weights is what they are.
            let mut decoded = vec![0.0; weights.len()];
            dequantize(element_type, &better, &mut decoded);
            let exact: f64 = weights.iter().zip(&decoded).map(|(a, b)| f64::from((a - b) * (a - b))).sum();
            assert!((error - exact).abs() <= 1e-6 * exact, "{element_type}: {error}, {exact}");
            // Rows are on their own.
            let bytes = better.len() / 16;
            let mut alone = vec![0; bytes];
            quantize_compensated(Isa::detect(), element_type, &weights[5 * n..][..n], n, &u, &mut alone);
            assert_eq!(alone, better[5 * bytes..][..bytes], "{element_type}");
        }
    }
}
