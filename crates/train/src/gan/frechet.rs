//! How far what a generator makes is from real samples: the Fréchet distance of two normal distributions, fitted to
//! features of both. Source: Heusel et al. 2017, equation 6.

/// Sweeps of Jacobi's method; it converges quadratically, within ten for any matrix.
const SWEEPS_MAX: usize = 60;

/// Mean and covariance of features.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Statistics {
    mean: Vec<f64>,
    /// By rows.
    covariance: Vec<f64>,
}

impl Statistics {
    /// Of rows of `width` features. Fewer than two rows have no covariance: it is 0.
    pub fn of(features: &[f32], width: usize) -> Statistics {
        let count = features.len() / width;
        let mut mean = vec![0.0; width];
        for row in features.chunks_exact(width) {
            mean.iter_mut().zip(row).for_each(|(sum, &x)| *sum += x as f64);
        }
        mean.iter_mut().for_each(|sum| *sum /= count.max(1) as f64);
        let mut covariance = vec![0.0; width * width];
        let mut centred = vec![0.0; width];
        for row in features.chunks_exact(width) {
            for ((to, &x), mean) in centred.iter_mut().zip(row).zip(&mean) {
                *to = x as f64 - mean;
            }
            for (i, row) in covariance.chunks_exact_mut(width).enumerate() {
                row.iter_mut().zip(&centred).for_each(|(sum, x)| *sum += centred[i] * x);
            }
        }
        covariance.iter_mut().for_each(|sum| *sum /= count.saturating_sub(1).max(1) as f64);
        Statistics { mean, covariance }
    }
}

/// `|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))`, of features of one width.
pub(crate) fn frechet_distance(a: &Statistics, b: &Statistics) -> f64 {
    let width = a.mean.len();
    let apart: f64 = a.mean.iter().zip(&b.mean).map(|(x, y)| (x - y) * (x - y)).sum();
    let trace = |matrix: &[f64]| (0..width).map(|i| matrix[i * width + i]).sum::<f64>();
    // The product of two covariances has the eigenvalues of the symmetric R C2 R, where R is the root of C1.
    let root = root(&a.covariance, width);
    let product = multiplied(&multiplied(&root, &b.covariance, width), &root, width);
    let (values, _) = eigen(&product, width);
    let shared: f64 = values.iter().map(|value| value.max(0.0).sqrt()).sum();
    // Rounding may leave a little less than nothing.
    (apart + trace(&a.covariance) + trace(&b.covariance) - 2.0 * shared).max(0.0)
}

/// The root of a symmetric matrix without negative eigenvalues but those of rounding.
fn root(matrix: &[f64], width: usize) -> Vec<f64> {
    let (values, vectors) = eigen(matrix, width);
    let mut root = vec![0.0; width * width];
    for (k, value) in values.iter().enumerate() {
        let value = value.max(0.0).sqrt();
        for i in 0..width {
            let left = value * vectors[i * width + k];
            for j in 0..width {
                root[i * width + j] += left * vectors[j * width + k];
            }
        }
    }
    root
}

fn multiplied(a: &[f64], b: &[f64], width: usize) -> Vec<f64> {
    let mut product = vec![0.0; width * width];
    for i in 0..width {
        for k in 0..width {
            let left = a[i * width + k];
            for j in 0..width {
                product[i * width + j] += left * b[k * width + j];
            }
        }
    }
    product
}

/// Eigenvalues of a symmetric matrix, and its eigenvectors as columns, by Jacobi's rotations.
fn eigen(matrix: &[f64], width: usize) -> (Vec<f64>, Vec<f64>) {
    let mut a = matrix.to_vec();
    let mut vectors = vec![0.0; width * width];
    (0..width).for_each(|i| vectors[i * width + i] = 1.0);
    let size: f64 = a.iter().map(|x| x * x).sum();
    for _ in 0..SWEEPS_MAX {
        let rest: f64 =
            (0..width).flat_map(|i| (0..i).map(move |j| (i, j))).map(|(i, j)| a[i * width + j].powi(2)).sum();
        if rest <= 1e-30 * size {
            break;
        }
        for p in 0..width {
            for q in p + 1..width {
                rotate(&mut a, &mut vectors, width, p, q);
            }
        }
    }
    ((0..width).map(|i| a[i * width + i]).collect(), vectors)
}

/// Turns the plane of axes `p` and `q` so that their element is 0.
fn rotate(a: &mut [f64], vectors: &mut [f64], width: usize, p: usize, q: usize) {
    let between = a[p * width + q];
    if between == 0.0 {
        return;
    }
    let theta = (a[q * width + q] - a[p * width + p]) / (2.0 * between);
    let t = theta.signum() / (theta.abs() + (theta * theta + 1.0).sqrt());
    let t = if theta == 0.0 { 1.0 } else { t };
    let c = 1.0 / (t * t + 1.0).sqrt();
    let s = t * c;
    for k in 0..width {
        let (x, y) = (a[k * width + p], a[k * width + q]);
        (a[k * width + p], a[k * width + q]) = (c * x - s * y, s * x + c * y);
    }
    for k in 0..width {
        let (x, y) = (a[p * width + k], a[q * width + k]);
        (a[p * width + k], a[q * width + k]) = (c * x - s * y, s * x + c * y);
        let (x, y) = (vectors[k * width + p], vectors[k * width + q]);
        (vectors[k * width + p], vectors[k * width + q]) = (c * x - s * y, s * x + c * y);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(count: usize, salt: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * i * 31 + i * 7919 + salt * 131) % 1009) as f32 / 504.5 - 1.0).collect()
    }

    #[test]
    fn distances_are_those_of_numpy() {
        // fixtures/training/frechet.py computes them by scipy.linalg.sqrtm from the same formula.
        for (rows, width, expected) in [(40, 3, FRECHET[0]), (60, 12, FRECHET[1]), (20, 30, FRECHET[2])] {
            let a = Statistics::of(&numbers(rows * width, 0), width);
            let b: Vec<f32> = numbers(rows * width, 5).iter().map(|x| x * 0.5 + 0.25).collect();
            let b = Statistics::of(&b, width);
            let found = frechet_distance(&a, &b);
            assert!((found - expected).abs() < 1e-6 * expected, "{found} and {expected}");
            assert!(frechet_distance(&a, &a) < 1e-9);
        }
    }

    const FRECHET: [f64; 3] = [0.639_794_538_729_293_6, 2.068_791_072_057_014_6, 8.352_999_912_726_316];
}
