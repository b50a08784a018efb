//! Products of f32 matrices: `c = init + a · b`, in batches, with operands at any strides.
//!
//! A sum begins with `init` (or 0) and takes the elements of `k` in their order: one fused multiply-add after another, or
//! in bfloat16 two products at a time. So bits depend neither on threads nor on how rows and columns are divided among
//! them.

#[cfg(target_arch = "x86_64")]
mod bf16;
mod pack;
mod tile;

use std::ops::Range;

use pack::offset_of;
pub use pack::{Pack, Precision, packed_values, padded_columns, width};
use tile::{Tile, rows_at_once};

use crate::by_rows::Touch;
use crate::compute::{Compute, Isa};
use crate::lanes::{Kernel, Lanes, dispatch};
use crate::workspace::{LINE, Memory, SCRATCH, View, Workspace};

/// Steps of `k` after which sums are put down: operands of a block stay in the second-level cache.
const STEPS: usize = 1024;
/// Rows of a task.
const ROWS: usize = 128;
/// Rows of a task where there would be too few for all threads.
const ROWS_LEAST: usize = ROWS / 4;
/// Multiply-adds below which one thread does all.
const SERIAL: usize = 160 * 1024;
/// Columns from which on copying rows of `a` next to each other pays, where they don't fit in the first-level cache.
const COLUMNS_TO_COPY_FOR: usize = 160;
const L1_VALUES: usize = 4096;

/// Where the steps of `k` of a product's right operand are among those that [`Pack`] packed.
#[derive(Clone, Copy, Debug)]
pub struct Packed {
    pub at: usize,
    /// How many were packed.
    pub steps: usize,
    /// The first of the product.
    pub first: usize,
}

impl Packed {
    /// All that was packed.
    pub fn whole(at: usize, steps: usize) -> Packed {
        Packed { at, steps, first: 0 }
    }
}

/// A prepared product.
pub struct Gemm {
    isa: Isa,
    precision: Precision,
    /// `[batch.., m, k]`.
    a: View,
    /// Strips of `[batch, packed.steps, n]` as [`Pack`] lays them out.
    b: View,
    packed: Packed,
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
    /// When shapes disagree, `c` overlaps an operand, `isa` doesn't have the precision, or pairs of bfloat16 are cut apart.
    pub fn new(
        (isa, precision): (Isa, Precision),
        a: View,
        packed: Packed,
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
        let Packed { at, steps, first } = packed;
        assert!(first + k <= steps, "steps {first} to {} of {steps} that were packed", first + k);
        let cuts_pairs = first % 2 != 0 || k % 2 != 0 && first + k < steps;
        assert!(precision == Precision::Float32 || !cuts_pairs, "steps {first} to {} of pairs", first + k);
        let b = View::contiguous(at, &[batches * packed_values(isa, precision, steps, n)]);
        assert!(c.is_apart(&a) && c.is_apart(&b), "a product in place of its operand");
        let mut needed = a.range().end.max(b.range().end).max(c.range().end);
        if let Some(init) = &init {
            assert!(init.shape == c.shape && (init.strides[rank - 1] == 1 || n == 1), "init is shaped as c");
            assert!(*init == c || init.is_apart(&c), "init is c or apart from it");
            needed = needed.max(init.range().end);
        }
        Gemm { isa, precision, a, b, packed, b_shared, init, c, needed }
    }

    /// # Panics
    /// When `compute` has another instruction set than it was prepared for, or the workspace is too small.
    pub fn run(&self, compute: &Compute, workspace: &mut Workspace) {
        assert_eq!(self.isa, compute.isa(), "the instruction sets of a product and of its threads");
        let memory = workspace.memory(self.needed, compute.pool());
        let rank = self.c.shape.len();
        let (m, n, k) = (self.c.shape[rank - 2], self.c.shape[rank - 1], self.a.shape[rank - 1]);
        let batches = self.batches();
        if batches * m * n == 0 {
            return;
        }
        let threads = compute.pool().threads();
        let strips = n.div_ceil(2 * width(self.isa));
        let mut rows_each = ROWS;
        while rows_each > ROWS_LEAST && batches * m.div_ceil(rows_each) * strips < 2 * threads {
            rows_each /= 2;
        }
        let row_blocks = m.div_ceil(rows_each);
        let column_blocks = (2 * threads).div_ceil(batches * row_blocks).min(strips);
        let strips_each = strips.div_ceil(column_blocks);
        let column_blocks = strips.div_ceil(strips_each);
        let items = batches * row_blocks * column_blocks;
        let work = |worker: usize, item: usize| {
            let (block, batch) = (item % (row_blocks * column_blocks), item / (row_blocks * column_blocks));
            let first_row = block / column_blocks * rows_each;
            let first_strip = block % column_blocks * strips_each;
            let block = Block {
                gemm: self,
                memory,
                worker,
                batch,
                rows: first_row..(first_row + rows_each).min(m),
                strips: first_strip..(first_strip + strips_each).min(strips),
            };
            block.multiply();
        };
        if batches * m * n * k <= SERIAL {
            (0..items).for_each(|item| work(0, item));
        } else {
            compute.pool().share_out(items, work);
        }
    }

    fn batches(&self) -> usize {
        self.c.shape[..self.c.shape.len() - 2].iter().product()
    }

    /// The rows of the product, if it is one.
    pub(crate) fn rows(&self) -> Option<usize> {
        let rank = self.c.shape.len();
        (self.batches() == 1 && self.c.elements() > 0).then(|| self.c.shape[rank - 2])
    }

    pub(crate) fn multiply_adds(&self) -> usize {
        self.c.elements() * self.a.shape[self.a.shape.len() - 1]
    }

    pub(crate) fn touches(&self) -> Vec<Touch<'_>> {
        let axis = Some(self.c.shape.len() - 2);
        let read = |view| Touch { view, axis, writes: false };
        let mut touches = vec![read(&self.a), Touch { view: &self.c, axis, writes: true }];
        touches.push(Touch { view: &self.b, axis: None, writes: false });
        touches.extend(self.init.iter().map(read));
        touches
    }

    /// Computes `rows` of a product of which no other worker touches those rows.
    ///
    /// # Panics
    /// When `isa` is another than it was prepared for.
    pub(crate) fn some_rows(&self, isa: Isa, memory: Memory<'_>, worker: usize, rows: Range<usize>) {
        assert_eq!(self.isa, isa, "the instruction sets of a product and of its threads");
        let strips = self.c.shape[self.c.shape.len() - 1].div_ceil(2 * width(self.isa));
        for first in rows.clone().step_by(ROWS) {
            let rows = first..(first + ROWS).min(rows.end);
            Block { gemm: self, memory, worker, batch: 0, rows, strips: 0..strips }.multiply();
        }
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
    fn multiply(self) {
        match self.gemm.precision {
            Precision::Float32 => dispatch(self.gemm.isa, self),
            // SAFETY: the instruction set has it, as `new` found, and is that of the threads, so the machine has that;
            // `new` checked the views; blocks of `c` are apart.
            #[cfg(target_arch = "x86_64")]
            Precision::Bfloat16 => unsafe { bf16::multiply(&self) },
            #[cfg(not(target_arch = "x86_64"))]
            Precision::Bfloat16 => unreachable!("`new` refuses it here"),
        }
    }

    /// The place of `(row, column)` of this batch.
    #[inline(always)]
    fn place(&self, view: &View, row: usize, column: usize) -> *mut f32 {
        let rank = view.shape.len();
        let batch = offset_of(&view.shape[..rank - 2], &view.strides[..rank - 2], self.batch);
        let at = row as isize * view.strides[rank - 2] + column as isize * view.strides[rank - 1];
        // SAFETY: an element of a view that `new` found inside the workspace.
        unsafe { self.memory.at((view.offset as isize + batch + at) as usize) }
    }

    /// How rows of `a` are best multiplied with strips of `strip_width` columns.
    #[inline(always)]
    fn layout(&self, strip_width: usize) -> Layout {
        let a = &self.gemm.a;
        let rank = a.shape.len();
        let (rows, columns) = (self.rows.len(), self.strips.len() * strip_width);
        let copies = rows > 1 && columns >= COLUMNS_TO_COPY_FOR && rows * a.shape[rank - 1] > L1_VALUES;
        match (a.strides[rank - 2], a.strides[rank - 1]) {
            (1, 1..) if copies => Layout::Runs,
            (1.., 1) if copies => Layout::Rows,
            (1, 1..) | (1.., 1) => Layout::AsItIs,
            _ if rows > 1 => Layout::Runs,
            _ => Layout::AsItIs,
        }
    }

    /// Where the first row's elements are from `first_step` on, and the strides of rows and steps.
    ///
    /// # Safety
    /// The block's rows have so many steps from there on.
    #[inline(always)]
    unsafe fn lay_out<L: Lanes>(
        &self,
        layout: Layout,
        first_step: usize,
        steps: usize,
    ) -> (*const f32, usize, usize) {
        let a = &self.gemm.a;
        let (a_row, a_step) = (a.strides[a.shape.len() - 2], a.strides[a.shape.len() - 1]);
        let rows = self.rows.len();
        // SAFETY: the caller's promise; a worker's scratch is its own, and a block fits in either layout.
        unsafe {
            let from = self.place(a, self.rows.start, 0).offset(first_step as isize * a_step).cast_const();
            let scratch = self.memory.scratch(self.worker);
            match layout {
                Layout::AsItIs => (from, a_row as usize, a_step as usize),
                Layout::Rows => {
                    copy_rows(from, a_row, rows, steps, scratch);
                    (scratch.cast_const(), pitch(steps), 1)
                }
                Layout::Runs => {
                    pack_rows::<L>(from, a_row, a_step, rows, steps, scratch);
                    (scratch.cast_const(), 1, 0)
                }
            }
        }
    }
}

impl Kernel for Block<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let Gemm { a, c, init, .. } = self.gemm;
        let rank = c.shape.len();
        let (n, k) = (c.shape[rank - 1], a.shape[rank - 1]);
        let rows = self.rows.len();
        let layout = self.layout(2 * L::WIDTH);
        let padded = n.div_ceil(L::WIDTH) * L::WIDTH;
        let Packed { steps: packed_steps, first: packed_first, .. } = self.gemm.packed;
        let matrix = if self.gemm.b_shared { 0 } else { self.batch * packed_steps * padded };
        let mut first_step = 0;
        loop {
            let steps = STEPS.min(k - first_step);
            // SAFETY: the block's rows have these steps.
            let (from, a_row, a_step) = unsafe { self.lay_out::<L>(layout, first_step, steps) };
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
                    a_row,
                    a_step,
                    // SAFETY: the strip of the packed operand, which `new` found inside the workspace.
                    b: unsafe {
                        let at = matrix + first * packed_steps + (packed_first + first_step) * strip_width;
                        self.memory.at(self.gemm.b.offset + at)
                    },
                    k: steps,
                    init: start,
                    init_row: start_row.strides[rank - 2] as usize,
                    c: self.place(c, self.rows.start, first),
                    c_row: c.strides[rank - 2] as usize,
                    columns: strip_width.min(n - first),
                };
                let vectors = strip_width / L::WIDTH;
                // SAFETY: the tile lies in the scratch and in views that `new` found inside the workspace; blocks of `c` are
                // apart.
                unsafe {
                    match layout {
                        Layout::Runs => packed_rows(lanes, tile, rows, vectors, from),
                        _ => tile::rows(lanes, tile, rows, vectors),
                    }
                }
            }
            first_step += steps;
            if first_step >= k {
                return;
            }
        }
    }
}

/// Where a block's rows of `a` are multiplied.
#[derive(Clone, Copy)]
enum Layout {
    AsItIs,
    /// Copied below each other at a distance of [`pitch`].
    Rows,
    /// In runs, as [`pack_rows`] lays them out.
    Runs,
}

/// The distance of copied rows: not a power of two, so that they don't take each other's place in the first-level cache.
#[inline(always)]
fn pitch(steps: usize) -> usize {
    steps.next_multiple_of(LINE) + LINE
}

const _: () = assert!(ROWS * (STEPS + LINE) <= SCRATCH && STEPS.is_multiple_of(LINE));

/// Copies rows to below each other.
///
/// # Safety
/// `from` is the first of `rows` rows of `steps` elements side by side; `to` has room for as many at their [`pitch`].
#[inline(always)]
unsafe fn copy_rows(from: *const f32, row_stride: isize, rows: usize, steps: usize, to: *mut f32) {
    for row in 0..rows {
        // SAFETY: a row of either.
        unsafe {
            let from = from.offset(row as isize * row_stride);
            std::ptr::copy_nonoverlapping(from, to.add(row * pitch(steps)), steps);
        }
    }
}

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
