//! Products of f32 matrices: `c = init + a · b`, in batches, with operands at any strides.
//!
//! A sum begins with `init` (or 0) and takes the elements of `k` in their order: one fused multiply-add after another, or
//! in bfloat16 two products at a time. So bits depend neither on threads nor on how rows and columns are divided among
//! them.

#[cfg(target_arch = "x86_64")]
mod bf16;
mod pack;
mod tile;

use std::sync::atomic::{AtomicUsize, Ordering};

use pack::offset_of;
pub use pack::{Pack, Precision, packed_values, padded_columns, width};
use tile::{Tile, rows_at_once};

use crate::compute::Compute;
use crate::compute::Isa;
use crate::lanes::{Kernel, Lanes, dispatch};
use crate::workspace::{Memory, SCRATCH, View, Workspace};

/// Steps of `k` after which sums are put down: operands of a block stay in the second-level cache.
const STEPS: usize = 1024;
/// Rows of a task: a multiple of every number of rows that tiles have.
const ROWS: usize = 96;
/// Multiply-adds below which one thread does all.
const SERIAL: usize = 160 * 1024;
/// Columns from which on copying rows of `a` next to each other pays.
const COLUMNS_TO_PACK_FOR: usize = 160;

/// A prepared product.
pub struct Gemm {
    isa: Isa,
    precision: Precision,
    /// `[batch.., m, k]`.
    a: View,
    /// Strips of `[batch, k, n]` as [`Pack`] lays them out.
    b: usize,
    /// Whether all batches share the first packed matrix.
    b_shared: bool,
    init: Option<View>,
    c: View,
    needed: usize,
}

impl std::fmt::Debug for Gemm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} over {:?}", self.c.shape, self.a.shape.last())
    }
}

impl Gemm {
    /// Prepares `c = init + a · b` with `b` packed for the same instruction set and precision. The batch dimensions of `a`,
    /// `init` and `c` agree; `b` has as many matrices, or one if `b_shared`. The last strides of `c` and `init` are 1;
    /// `init` may be `c` itself.
    ///
    /// # Panics
    /// When shapes disagree, `c` overlaps an operand, or `isa` doesn't have the precision.
    pub fn new(
        (isa, precision): (Isa, Precision),
        a: View,
        b: usize,
        b_shared: bool,
        init: Option<View>,
        c: View,
    ) -> Gemm {
        assert!(precision.is_had_by(isa), "{isa} has no products of {precision:?}");
        let rank = c.shape.len();
        assert!(rank >= 2 && a.shape[..rank - 1] == c.shape[..rank - 1], "a product's rows are those of a");
        let (k, n) = (a.shape[rank - 1], c.shape[rank - 1]);
        assert!(c.strides[rank - 1] == 1 || n == 1, "columns of c stand side by side");
        let batches: usize = if b_shared { 1 } else { c.shape[..rank - 2].iter().product() };
        let packed = View::contiguous(b, &[batches * packed_values(isa, precision, k, n)]);
        assert!(c.is_apart(&a) && c.is_apart(&packed), "a product in place of its operand");
        let mut needed = a.range().end.max(packed.range().end).max(c.range().end);
        if let Some(init) = &init {
            assert!(init.shape == c.shape && (init.strides[rank - 1] == 1 || n == 1), "init is shaped as c");
            assert!(*init == c || init.is_apart(&c), "init is c or apart from it");
            needed = needed.max(init.range().end);
        }
        Gemm { isa, precision, a, b, b_shared, init, c, needed }
    }

    /// # Panics
    /// When `compute` has another instruction set than it was prepared for, or the workspace is too small.
    pub fn run(&self, compute: &Compute, workspace: &mut Workspace) {
        assert_eq!(self.isa, compute.isa(), "the instruction sets of a product and of its threads");
        let memory = workspace.memory(self.needed, compute.pool());
        let rank = self.c.shape.len();
        let (m, n, k) = (self.c.shape[rank - 2], self.c.shape[rank - 1], self.a.shape[rank - 1]);
        let batches: usize = self.c.shape[..rank - 2].iter().product();
        if batches * m * n == 0 {
            return;
        }
        let threads = compute.pool().threads();
        let strips = n.div_ceil(2 * width(self.isa));
        let row_blocks = m.div_ceil(ROWS);
        let column_blocks = (4 * threads).div_ceil(batches * row_blocks).min(strips);
        let strips_each = strips.div_ceil(column_blocks);
        let column_blocks = strips.div_ceil(strips_each);
        let items = batches * row_blocks * column_blocks;
        let next = AtomicUsize::new(0);
        let work = |worker: usize| loop {
            let item = next.fetch_add(1, Ordering::Relaxed);
            if item >= items {
                return;
            }
            let (block, batch) = (item % (row_blocks * column_blocks), item / (row_blocks * column_blocks));
            let first_row = block / column_blocks * ROWS;
            let first_strip = block % column_blocks * strips_each;
            let block = Block {
                gemm: self,
                memory,
                worker,
                batch,
                rows: first_row..(first_row + ROWS).min(m),
                strips: first_strip..(first_strip + strips_each).min(strips),
            };
            match self.precision {
                Precision::Float32 => dispatch(self.isa, block),
                // SAFETY: the instruction set has it, as `new` found, and is `compute`'s, so the machine has that; `new`
                // checked the views; blocks of `c` are apart.
                #[cfg(target_arch = "x86_64")]
                Precision::Bfloat16 => unsafe { bf16::multiply(&block) },
                #[cfg(not(target_arch = "x86_64"))]
                Precision::Bfloat16 => unreachable!("`new` refuses it here"),
            }
        };
        if batches * m * n * k <= SERIAL { work(0) } else { compute.pool().run(work) }
    }
}

/// Some rows and strips of one product of the batch.
struct Block<'a> {
    gemm: &'a Gemm,
    memory: Memory<'a>,
    worker: usize,
    batch: usize,
    rows: std::ops::Range<usize>,
    strips: std::ops::Range<usize>,
}

impl Block<'_> {
    /// The place of `(row, column)` of this batch.
    #[inline(always)]
    fn place(&self, view: &View, row: usize, column: usize) -> *mut f32 {
        let rank = view.shape.len();
        let batch = offset_of(&view.shape[..rank - 2], &view.strides[..rank - 2], self.batch);
        let at = row as isize * view.strides[rank - 2] + column as isize * view.strides[rank - 1];
        // SAFETY: an element of a view that `new` found inside the workspace.
        unsafe { self.memory.at((view.offset as isize + batch + at) as usize) }
    }
}

impl Kernel for Block<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let Gemm { a, c, init, .. } = self.gemm;
        let rank = c.shape.len();
        let (n, k) = (c.shape[rank - 1], a.shape[rank - 1]);
        let (a_row, a_step) = (a.strides[rank - 2], a.strides[rank - 1]);
        let rows = self.rows.len();
        let columns = self.strips.len() * 2 * L::WIDTH;
        let odd = (a_row != 1 && a_step != 1) || a_row < 0 || a_step < 0;
        let packs = rows > 1 && (odd || columns >= COLUMNS_TO_PACK_FOR);
        let padded = n.div_ceil(L::WIDTH) * L::WIDTH;
        let matrix = if self.gemm.b_shared { 0 } else { self.batch * k * padded };
        let mut first_step = 0;
        loop {
            let steps = STEPS.min(k - first_step);
            let from = self.place(a, self.rows.start, 0);
            // SAFETY: the block's rows and steps are inside the view of `a`.
            let from = unsafe { from.offset(first_step as isize * a_step) }.cast_const();
            if packs {
                // SAFETY: as above; a worker's scratch is its own, and a block fits.
                unsafe { pack_rows::<L>(from, a_row, a_step, rows, steps, self.memory.scratch(self.worker)) };
            }
            for strip in self.strips.clone() {
                let first = strip * 2 * L::WIDTH;
                let strip_width = (2 * L::WIDTH).min(padded - first);
                let start = match (first_step, init) {
                    (0, None) => std::ptr::null(),
                    (0, Some(init)) => self.place(init, self.rows.start, first).cast_const(),
                    _ => self.place(c, self.rows.start, first).cast_const(),
                };
                let start_row = if first_step == 0 { init.as_ref().unwrap_or(c) } else { c };
                let tile = Tile {
                    a: from,
                    a_row: a_row as usize,
                    a_step: a_step as usize,
                    // SAFETY: the strip of the packed operand, which `new` found inside the workspace.
                    b: unsafe {
                        let at = matrix + first * k + first_step * strip_width;
                        self.memory.at(self.gemm.b + at)
                    },
                    k: steps,
                    init: start,
                    init_row: start_row.strides[rank - 2] as usize,
                    c: self.place(c, self.rows.start, first),
                    c_row: c.strides[rank - 2] as usize,
                    columns: strip_width.min(n - first),
                };
                let vectors = strip_width / L::WIDTH;
                if packs {
                    // SAFETY: the scratch holds `rows` rows of `steps`, and the rest is as below.
                    unsafe { packed_rows(lanes, tile, rows, vectors, self.memory.scratch(self.worker)) };
                } else {
                    // SAFETY: the tile lies in views that `new` found inside the workspace; blocks of `c` are apart.
                    unsafe { tile::rows(lanes, tile, rows, vectors) };
                }
            }
            first_step += steps;
            if first_step >= k {
                return;
            }
        }
    }
}

const _: () = assert!(ROWS * STEPS <= SCRATCH);

/// Lays rows out in runs: `[steps, run]` for each run of rows that a tile takes at once.
///
/// # Safety
/// `from` is the first of `rows` rows of `steps` elements; `to` has room for as many.
#[inline(always)]
unsafe fn pack_rows<L: Lanes>(
    from: *const f32,
    row_stride: isize,
    step: isize,
    rows: usize,
    steps: usize,
    to: *mut f32,
) {
    let mut row = 0;
    while row < rows {
        let run = rows_at_once(rows - row, L::ROWS_MAX);
        // SAFETY: the caller's promise; runs follow one another in `to`.
        unsafe {
            let to = to.add(row * steps);
            let from = from.offset(row as isize * row_stride);
            if row_stride == 1 {
                for i in 0..steps {
                    std::ptr::copy_nonoverlapping(from.offset(i as isize * step), to.add(i * run), run);
                }
            } else {
                for block in (0..steps).step_by(16) {
                    for r in 0..run {
                        let from = from.offset(r as isize * row_stride);
                        for i in block..(block + 16).min(steps) {
                            *to.add(i * run + r) = *from.offset(i as isize * step);
                        }
                    }
                }
            }
        }
        row += run;
    }
}

/// Multiplies the rows that [`pack_rows`] laid out at `packed`.
///
/// # Safety
/// As [`tile::rows`], with `a` at `packed`.
#[inline(always)]
unsafe fn packed_rows<L: Lanes>(lanes: L, tile: Tile, rows: usize, vectors: usize, packed: *const f32) {
    let mut row = 0;
    while row < rows {
        let run = rows_at_once(rows - row, L::ROWS_MAX);
        // SAFETY: `run` rows are left, in `packed` and in the tile's rows of `init` and `c`.
        unsafe {
            let init = if tile.init.is_null() { tile.init } else { tile.init.add(row * tile.init_row) };
            let c = tile.c.add(row * tile.c_row);
            let at = Tile { a: packed.add(row * tile.k), a_row: 1, a_step: run, init, c, ..tile };
            tile::some_rows(lanes, at, run, vectors);
        }
        row += run;
    }
}

/// Multiplies `rows` rows at `a` (row stride `a_row`, step `a_step`, one of them 1) with a packed matrix of `n` columns:
/// what convolutions do with their tiles. `init` says whether sums begin with what `c` holds.
pub(crate) struct Panel {
    pub a: *const f32,
    pub a_row: usize,
    pub a_step: usize,
    pub b: *const f32,
    pub k: usize,
    pub n: usize,
    pub c: *mut f32,
    pub c_row: usize,
    pub init: bool,
}

/// # Safety
/// The panel's pointers reach `rows` rows, `n` columns and `k` steps; `b` is packed.
#[inline(always)]
pub(crate) unsafe fn multiply_panel<L: Lanes>(lanes: L, panel: Panel, rows: usize) {
    let padded = panel.n.div_ceil(L::WIDTH) * L::WIDTH;
    for first in (0..panel.n).step_by(2 * L::WIDTH) {
        let strip_width = (2 * L::WIDTH).min(padded - first);
        // SAFETY: the caller's promise; strips follow one another in `b`.
        unsafe {
            let c = panel.c.add(first);
            let tile = Tile {
                a: panel.a,
                a_row: panel.a_row,
                a_step: panel.a_step,
                b: panel.b.add(first * panel.k),
                k: panel.k,
                init: if panel.init { c.cast_const() } else { std::ptr::null() },
                init_row: panel.c_row,
                c,
                c_row: panel.c_row,
                columns: strip_width.min(panel.n - first),
            };
            tile::rows(lanes, tile, rows, strip_width / L::WIDTH);
        }
    }
}

#[cfg(test)]
mod tests;
