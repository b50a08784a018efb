//! Convolutions of one to three dimensions with channels last, and their two gradients: each linear in both operands,
//! so that the three are closed under differentiation.
//!
//! Windows of some pixels at a time become rows of a matrix in a worker's scratch, which a packed product takes from
//! there. Sums follow the order of pixels within blocks of images that the shape alone decides.

mod columns;
mod depthwise;
mod geometry;
pub mod pooling;

pub use geometry::Geometry;

use crate::compute::Compute;
use crate::compute::Isa;
use crate::gemm::{Panel, multiply_panel, padded_columns};
use crate::lanes::{Kernel, Lanes, dispatch};
use crate::workspace::{Memory, SCRATCH, View, Workspace};

/// Output pixels whose windows are made at once.
const PIXELS: usize = 96;
/// Blocks of images whose sums are taken apart from each other, at most.
const BLOCKS_MAX: usize = 16;
/// Floats of partial sums, at most.
const PARTIALS_MAX: usize = 4 * 1024 * 1024;

/// Which of the three operands is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// `y = x * w`.
    Output,
    /// `dx` from `dy` and `w`.
    Input,
    /// `dw` from `x` and `dy`.
    Kernel,
}

/// Offsets of the three contiguous operands: `x` `[batch, .., channels_in]`, `w` `[kernel.., channels_in / groups,
/// channels_out]`, `y` `[batch, .., channels_out]`; and of the packed kernel and of working memory.
#[derive(Clone, Copy, Debug)]
pub struct Operands {
    pub x: usize,
    pub w: usize,
    pub y: usize,
    pub packed: usize,
    pub working: usize,
}

/// A prepared convolution or gradient of one.
pub struct Convolution {
    geometry: Geometry,
    target: Target,
    operands: Operands,
    needed: usize,
}

impl Geometry {
    /// Whether every channel has a kernel of its own.
    pub(crate) fn is_depthwise(&self) -> bool {
        self.groups > 1 && self.groups == self.channels_in && self.groups == self.channels_out
    }

    fn kernel_len(&self) -> usize {
        self.window() * self.channels_out
    }

    /// Output pixels whose windows, results and packed gradients fit in the scratch together.
    fn pixels_at_once(&self) -> usize {
        let row = self.window() + self.channels_out.next_multiple_of(32);
        (SCRATCH / row.max(1)).min(PIXELS)
    }

    /// Blocks of images for sums over the batch.
    fn blocks(&self) -> usize {
        (PARTIALS_MAX / self.kernel_len().max(1)).clamp(1, BLOCKS_MAX).min(self.batch.max(1))
    }
}

impl std::fmt::Debug for Convolution {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} {:?}", self.target, self.geometry)
    }
}

impl Convolution {
    /// Whether windows are small enough for a worker's scratch.
    pub fn fits(geometry: &Geometry) -> bool {
        geometry.is_depthwise() || geometry.pixels_at_once() > 0
    }

    /// How the kernel has to be packed before: a view of `w` at `offset`, and the floats of the packed form. None where
    /// the kernel isn't packed.
    pub fn packing(isa: Isa, geometry: &Geometry, target: Target, offset: usize) -> Option<(View, usize)> {
        if geometry.is_depthwise() || target == Target::Kernel {
            return None;
        }
        let (groups, window) = (geometry.groups, geometry.window());
        let columns = geometry.channels_out / groups;
        let row = geometry.channels_out as isize;
        let each = columns as isize;
        let (shape, strides) = match target {
            Target::Input => (vec![groups, columns, window], vec![each, 1, row]),
            _ => (vec![groups, window, columns], vec![each, row, 1]),
        };
        let floats = groups * shape[1] * padded_columns(isa, shape[2]);
        Some((View { offset, shape, strides }, floats))
    }

    /// Floats of working memory.
    pub fn working_memory(geometry: &Geometry, target: Target) -> usize {
        if target == Target::Kernel { geometry.blocks() * geometry.kernel_len() } else { 0 }
    }

    /// Prepares it. The kernel must have been packed as [`Convolution::packing`] says.
    ///
    /// # Panics
    /// When places overlap or windows don't fit.
    pub fn new(isa: Isa, geometry: Geometry, target: Target, operands: Operands) -> Convolution {
        assert!(Convolution::fits(&geometry), "a window of {} is too large", geometry.window());
        let x = View::contiguous(operands.x, &[geometry.batch * geometry.input_len()]);
        let y = View::contiguous(operands.y, &[geometry.batch * geometry.output_len()]);
        let packing = Convolution::packing(isa, &geometry, target, operands.w);
        let w = match &packing {
            Some((_, floats)) => View::contiguous(operands.packed, &[*floats]),
            None => View::contiguous(operands.w, &[geometry.kernel_len()]),
        };
        let working = View::contiguous(operands.working, &[Convolution::working_memory(&geometry, target)]);
        let (to, read) = match target {
            Target::Output => (&y, [&x, &w]),
            Target::Input => (&x, [&y, &w]),
            Target::Kernel => (&w, [&x, &y]),
        };
        let apart =
            read.iter().all(|read| read.is_apart(to) && read.is_apart(&working)) && to.is_apart(&working);
        assert!(apart, "a convolution writes over what it reads");
        let needed = [&x, &y, &w, &working].iter().map(|view| view.range().end).max().unwrap_or(0);
        Convolution { geometry, target, operands, needed }
    }

    pub fn run(&self, compute: &Compute, workspace: &mut Workspace) {
        let memory = workspace.memory(self.needed, compute.pool());
        let geometry = &self.geometry;
        let pixel_blocks = match self.target {
            Target::Output => geometry.output_pixels().div_ceil(geometry.pixels_at_once().max(1)),
            Target::Input => 1,
            Target::Kernel => 1,
        };
        let blocks = if self.target == Target::Kernel { geometry.blocks() } else { geometry.batch };
        let items = blocks * pixel_blocks;
        compute.pool().share_out(items, |worker, item| {
            let (block, part) = (item / pixel_blocks, item % pixel_blocks);
            dispatch(compute.isa(), Item { convolution: self, memory, worker, block, part });
        });
        if self.target == Target::Kernel {
            self.join_blocks(compute, memory);
        }
    }

    /// Adds the blocks' partial sums up, in their order.
    fn join_blocks(&self, compute: &Compute, memory: Memory<'_>) {
        let (len, blocks) = (self.geometry.kernel_len(), self.geometry.blocks());
        let part = 4096;
        compute.pool().for_each(len.div_ceil(part), |item| {
            let range = item * part..((item + 1) * part).min(len);
            // SAFETY: working memory and the kernel are inside the workspace and apart; each item has its own range.
            unsafe {
                let to =
                    std::slice::from_raw_parts_mut(memory.at(self.operands.w + range.start), range.len());
                for block in 0..blocks {
                    let from = memory.at(self.operands.working + block * len + range.start).cast_const();
                    let from = std::slice::from_raw_parts(from, range.len());
                    if block == 0 {
                        to.copy_from_slice(from);
                    } else {
                        to.iter_mut().zip(from).for_each(|(to, x)| *to += x);
                    }
                }
            }
        });
    }
}

/// Some pixels of an image, an image, or a block of images.
struct Item<'a> {
    convolution: &'a Convolution,
    memory: Memory<'a>,
    worker: usize,
    block: usize,
    part: usize,
}

impl Kernel for Item<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let Convolution { geometry, target, operands, .. } = self.convolution;
        // SAFETY: `new` found all places inside the workspace and what is written apart from what is read; an item writes
        // its own pixels, image or block.
        unsafe {
            let x = self.memory.at(operands.x + self.image() * geometry.input_len());
            let y = self.memory.at(operands.y + self.image() * geometry.output_len());
            match (target, geometry.is_depthwise()) {
                (Target::Output, false) => self.output(lanes, x, y),
                (Target::Input, false) => self.input(lanes, x, y),
                (Target::Kernel, false) => self.kernel(lanes),
                (Target::Output, true) => {
                    depthwise::output(geometry, x, self.memory.at(operands.w), y, self.pixels());
                }
                (Target::Input, true) => depthwise::input(geometry, x, self.memory.at(operands.w), y),
                (Target::Kernel, true) => {
                    let to = self.partial();
                    for image in self.images() {
                        let x = self.memory.at(operands.x + image * geometry.input_len());
                        let y = self.memory.at(operands.y + image * geometry.output_len());
                        depthwise::kernel(geometry, x, to, y);
                    }
                }
            }
        }
    }
}

impl Item<'_> {
    fn image(&self) -> usize {
        if self.convolution.target == Target::Kernel { 0 } else { self.block }
    }

    fn images(&self) -> std::ops::Range<usize> {
        let (blocks, batch) = (self.convolution.geometry.blocks(), self.convolution.geometry.batch);
        let each = batch.div_ceil(blocks);
        (self.block * each).min(batch)..((self.block + 1) * each).min(batch)
    }

    fn pixels(&self) -> std::ops::Range<usize> {
        let geometry = &self.convolution.geometry;
        let at_once = geometry.pixels_at_once().max(1);
        self.part * at_once..((self.part + 1) * at_once).min(geometry.output_pixels())
    }

    /// The zeroed place of this block's partial sums.
    ///
    /// # Safety
    /// Called once an item.
    unsafe fn partial(&self) -> *mut f32 {
        let len = self.convolution.geometry.kernel_len();
        // SAFETY: each block has its own part of working memory.
        unsafe {
            let to = self.memory.at(self.convolution.operands.working + self.block * len);
            std::slice::from_raw_parts_mut(to, len).fill(0.0);
            to
        }
    }

    /// # Safety
    /// `x` and `y` are the item's images.
    #[inline(always)]
    unsafe fn output<L: Lanes>(&self, lanes: L, x: *const f32, y: *mut f32) {
        let geometry = &self.convolution.geometry;
        let window = geometry.window();
        let columns = geometry.channels_out / geometry.groups;
        let padded = columns.div_ceil(L::WIDTH) * L::WIDTH;
        // SAFETY: a worker uses its own scratch.
        let scratch = unsafe { self.memory.scratch(self.worker) };
        let pixels = self.pixels();
        for group in 0..geometry.groups {
            // SAFETY: windows of `pixels_at_once` pixels fit in the scratch; the packed kernel has a matrix a group.
            unsafe {
                for (row, at) in geometry.walk(pixels.clone()).enumerate() {
                    columns::window(geometry, x, at, group, scratch.add(row * window));
                }
                let panel = Panel {
                    a: scratch,
                    a_row: window,
                    a_step: 1,
                    b: self.memory.at(self.convolution.operands.packed + group * window * padded),
                    k: window,
                    n: columns,
                    c: y.add(pixels.start * geometry.channels_out + group * columns),
                    c_row: geometry.channels_out,
                    init: false,
                };
                multiply_panel(lanes, panel, pixels.len());
            }
        }
    }

    /// # Safety
    /// `x` and `y` are the item's images.
    #[inline(always)]
    unsafe fn input<L: Lanes>(&self, lanes: L, x: *mut f32, y: *const f32) {
        let geometry = &self.convolution.geometry;
        let window = geometry.window();
        let columns = geometry.channels_out / geometry.groups;
        let padded = window.div_ceil(L::WIDTH) * L::WIDTH;
        // SAFETY: a worker uses its own scratch.
        let scratch = unsafe { self.memory.scratch(self.worker) };
        // SAFETY: the image is this item's; the rest as in `output`.
        unsafe {
            std::slice::from_raw_parts_mut(x, geometry.input_len()).fill(0.0);
            for first in (0..geometry.output_pixels()).step_by(geometry.pixels_at_once()) {
                let pixels = first..(first + geometry.pixels_at_once()).min(geometry.output_pixels());
                for group in 0..geometry.groups {
                    let panel = Panel {
                        a: y.add(pixels.start * geometry.channels_out + group * columns),
                        a_row: geometry.channels_out,
                        a_step: 1,
                        b: self.memory.at(self.convolution.operands.packed + group * columns * padded),
                        k: columns,
                        n: window,
                        c: scratch,
                        c_row: window,
                        init: false,
                    };
                    multiply_panel(lanes, panel, pixels.len());
                    for (row, at) in geometry.walk(pixels.clone()).enumerate() {
                        columns::add_window(geometry, x, at, group, scratch.add(row * window));
                    }
                }
            }
        }
    }

    /// # Safety
    /// Called once an item.
    #[inline(always)]
    unsafe fn kernel<L: Lanes>(&self, lanes: L) {
        let Convolution { geometry, operands, .. } = self.convolution;
        let window = geometry.window();
        let columns = geometry.channels_out / geometry.groups;
        // SAFETY: a worker uses its own scratch.
        let scratch = unsafe { self.memory.scratch(self.worker) };
        // SAFETY: called once.
        let to = unsafe { self.partial() };
        for image in self.images() {
            for first in (0..geometry.output_pixels()).step_by(geometry.pixels_at_once()) {
                let pixels = first..(first + geometry.pixels_at_once()).min(geometry.output_pixels());
                for group in 0..geometry.groups {
                    // SAFETY: windows and packed gradients of these pixels fit in the scratch together.
                    unsafe {
                        let x = self.memory.at(operands.x + image * geometry.input_len()).cast_const();
                        let y = operands.y + image * geometry.output_len();
                        let y = self.memory.at(y + first * geometry.channels_out + group * columns);
                        for (row, at) in geometry.walk(pixels.clone()).enumerate() {
                            columns::window(geometry, x, at, group, scratch.add(row * window));
                        }
                        let packed = scratch.add(pixels.len() * window);
                        pack_strips::<L>(y, geometry.channels_out, pixels.len(), columns, packed);
                        let panel = Panel {
                            a: scratch,
                            a_row: 1,
                            a_step: window,
                            b: packed,
                            k: pixels.len(),
                            n: columns,
                            c: to.add(group * columns),
                            c_row: geometry.channels_out,
                            init: true,
                        };
                        multiply_panel(lanes, panel, window);
                    }
                }
            }
        }
    }
}

/// Packs `[k, n]` at `from` into strips, as a product's right operand.
///
/// # Safety
/// `from` has `k` rows every `row`, `to` room for `k` times the padded columns.
#[inline(always)]
unsafe fn pack_strips<L: Lanes>(from: *const f32, row: usize, k: usize, n: usize, to: *mut f32) {
    let padded = n.div_ceil(L::WIDTH) * L::WIDTH;
    for first in (0..n).step_by(2 * L::WIDTH) {
        let width = (2 * L::WIDTH).min(padded - first);
        let columns = width.min(n - first);
        for i in 0..k {
            // SAFETY: the caller's promise; strips follow one another.
            unsafe {
                let to = to.add(first * k + i * width);
                std::ptr::copy_nonoverlapping(from.add(i * row + first), to, columns);
                std::slice::from_raw_parts_mut(to.add(columns), width - columns).fill(0.0);
            }
        }
    }
}

#[cfg(test)]
mod tests;
