//! Sums of `x' x` over the rows `x` that products read, each scaled to a mean square of 1: how columns of weights can make up for each other.

use kernels::compute::Compute;
use kernels::gemm::{Gemm, Pack, Packed, Precision, packed_values};
use kernels::workspace::{LINE, View, Workspace};

/// One square matrix for each input that is watched.
pub(super) struct InputProducts {
    matrices: Vec<Matrix>,
    /// The matrices; then the rows of a step, and these packed.
    workspace: Workspace,
    rows_at: usize,
    packed_at: usize,
}

struct Matrix {
    columns: usize,
    at: usize,
}

impl std::fmt::Debug for InputProducts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} matrices", self.matrices.len())
    }
}

impl InputProducts {
    /// Zeros, for inputs of so many columns each and steps of at most `rows_max` rows.
    pub fn new(compute: &Compute, columns: &[usize], rows_max: usize) -> InputProducts {
        let mut end = 0;
        let mut place = |values: usize| {
            let at = end;
            end += values.next_multiple_of(LINE);
            at
        };
        let matrices =
            columns.iter().map(|&columns| Matrix { columns, at: place(columns * columns) }).collect();
        let widest = columns.iter().copied().max().unwrap_or(0);
        let rows_at = place(rows_max * widest);
        let packed_at = place(packed_values(compute.isa(), Precision::Float32, rows_max, widest));
        let workspace = Workspace::new(end, compute.pool().threads());
        InputProducts { matrices, workspace, rows_at, packed_at }
    }

    /// Adds `values [m, columns]`, each row scaled to a mean square of 1: what a product reads at a text's first token is often
    /// a thousand times as large as elsewhere, and would be all that counts.
    pub fn add(&mut self, compute: &Compute, index: usize, values: &[f32]) {
        let Matrix { columns: n, at } = self.matrices[index];
        let m = values.len() / n;
        let to = &mut self.workspace.values_mut()[self.rows_at..][..values.len()];
        for (to, row) in to.chunks_exact_mut(n).zip(values.chunks_exact(n)) {
            let square = row.iter().map(|x| x * x).sum::<f32>() / n as f32;
            let scale = if square > 0.0 { square.sqrt().recip() } else { 0.0 };
            to.iter_mut().zip(row).for_each(|(to, x)| *to = x * scale);
        }
        let rows = View::contiguous(self.rows_at, &[m, n]);
        let turned = View { offset: self.rows_at, shape: vec![n, m], strides: vec![1, n as isize] };
        let sums = View::contiguous(at, &[n, n]);
        let with = (compute.isa(), Precision::Float32);
        Pack::new(with, rows, self.packed_at).run(compute, &mut self.workspace);
        Gemm::new(with, turned, Packed::whole(self.packed_at, m), false, Some(sums.clone()), sums)
            .run(compute, &mut self.workspace);
    }

    /// The sums, `[columns, columns]`.
    pub fn of(&self, index: usize) -> &[f32] {
        let Matrix { columns, at } = self.matrices[index];
        &self.workspace.values()[at..][..columns * columns]
    }
}
