//! Windows without weights: sums of windows and of overlapping windows' values, and what stands where a window is
//! greatest. Each pair is adjoint, so the four are closed under differentiation.

use super::Geometry;
use crate::compute::Compute;
use crate::lanes::{Kernel, Lanes, dispatch};
use crate::workspace::{Memory, View, Workspace};

/// Channels that are looked at together.
const CHANNELS: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pooling {
    /// `y` = the sum of each window of `x`.
    Sum,
    /// `x` = the sum of `y` over the windows that see a pixel.
    Spread,
    /// `y` = `values` where `x` is greatest in a window, the first of equals.
    Take,
    /// `values` = `y` added up where `x` is greatest in each window.
    Put,
}

/// A prepared pooling; `channels_out` and `channels_in` of the geometry are equal.
pub struct Pool {
    geometry: Geometry,
    pooling: Pooling,
    x: usize,
    values: usize,
    y: usize,
    needed: usize,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} {:?}", self.pooling, self.geometry)
    }
}

impl Pool {
    /// Prepares it: `x` and `values` are offsets of contiguous inputs of the windows, `y` of what windows give.
    /// [`Pooling::Sum`] and [`Pooling::Spread`] have no `x` but `values` alone.
    ///
    /// # Panics
    /// When places overlap.
    pub fn new(geometry: Geometry, pooling: Pooling, x: usize, values: usize, y: usize) -> Pool {
        assert_eq!(geometry.channels_in, geometry.channels_out, "pooling keeps channels apart");
        let image = |offset| View::contiguous(offset, &[geometry.batch * geometry.input_len()]);
        let results = View::contiguous(y, &[geometry.batch * geometry.output_len()]);
        let uses_x = matches!(pooling, Pooling::Take | Pooling::Put);
        let apart = image(values).is_apart(&results) && (!uses_x || image(x).is_apart(&results));
        let kept = pooling != Pooling::Put || image(x).is_apart(&image(values));
        assert!(apart && kept, "pooling writes over what it reads");
        let x_end = if uses_x { image(x).range().end } else { 0 };
        let needed = image(values).range().end.max(results.range().end).max(x_end);
        Pool { geometry, pooling, x, values, y, needed }
    }

    pub fn run(&self, compute: &Compute, workspace: &mut Workspace) {
        let memory = workspace.memory(self.needed, compute.pool());
        compute.pool().for_each(self.geometry.batch, |image| {
            dispatch(compute.isa(), Image { pool: self, memory, image });
        });
    }
}

struct Image<'a> {
    pool: &'a Pool,
    memory: Memory<'a>,
    image: usize,
}

impl Kernel for Image<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, _: L) {
        let Pool { geometry, pooling, x, values, y, .. } = self.pool;
        let (input_len, output_len) = (geometry.input_len(), geometry.output_len());
        // SAFETY: `new` found the images inside the workspace and what is written apart from what is read; each item has
        // its own image.
        unsafe {
            let input = |offset: usize| self.memory.at(offset + self.image * input_len);
            let y = self.memory.at(y + self.image * output_len);
            match pooling {
                Pooling::Sum => {
                    let from = std::slice::from_raw_parts(input(*values).cast_const(), input_len);
                    sum(geometry, from, std::slice::from_raw_parts_mut(y, output_len));
                }
                Pooling::Spread => {
                    let from = std::slice::from_raw_parts(y.cast_const(), output_len);
                    spread(geometry, from, std::slice::from_raw_parts_mut(input(*values), input_len));
                }
                Pooling::Take => {
                    let x = std::slice::from_raw_parts(input(*x).cast_const(), input_len);
                    let from = std::slice::from_raw_parts(input(*values).cast_const(), input_len);
                    let to = std::slice::from_raw_parts_mut(y, output_len);
                    if self.pool.x == *values {
                        greatest(geometry, x, to)
                    } else {
                        take(geometry, x, from, to)
                    }
                }
                Pooling::Put => {
                    let x = std::slice::from_raw_parts(input(*x).cast_const(), input_len);
                    let from = std::slice::from_raw_parts(y.cast_const(), output_len);
                    put(geometry, x, from, std::slice::from_raw_parts_mut(input(*values), input_len));
                }
            }
        }
    }
}

#[inline(always)]
fn sum(geometry: &Geometry, from: &[f32], to: &mut [f32]) {
    let channels = geometry.channels_in;
    for (pixel, to) in to.chunks_exact_mut(channels).enumerate() {
        to.fill(0.0);
        let at = geometry.coordinates(pixel);
        for source in (0..geometry.taps()).filter_map(|tap| geometry.tap_pixel(at, tap)) {
            let from = &from[source * channels..][..channels];
            to.iter_mut().zip(from).for_each(|(to, x)| *to += x);
        }
    }
}

#[inline(always)]
fn spread(geometry: &Geometry, from: &[f32], to: &mut [f32]) {
    let channels = geometry.channels_in;
    to.fill(0.0);
    for (pixel, from) in from.chunks_exact(channels).enumerate() {
        let at = geometry.coordinates(pixel);
        for source in (0..geometry.taps()).filter_map(|tap| geometry.tap_pixel(at, tap)) {
            let to = &mut to[source * channels..][..channels];
            to.iter_mut().zip(from).for_each(|(to, x)| *to += x);
        }
    }
}

#[inline(always)]
fn greatest(geometry: &Geometry, x: &[f32], to: &mut [f32]) {
    let channels = geometry.channels_in;
    for (pixel, to) in to.chunks_exact_mut(channels).enumerate() {
        to.fill(f32::NEG_INFINITY);
        let at = geometry.coordinates(pixel);
        for source in (0..geometry.taps()).filter_map(|tap| geometry.tap_pixel(at, tap)) {
            let from = &x[source * channels..][..channels];
            // NaN stays.
            to.iter_mut().zip(from).for_each(|(to, &x)| *to = if x <= *to { *to } else { x });
        }
    }
}

/// The tap at which each of up to [`CHANNELS`] channels is greatest.
#[inline(always)]
fn winners(geometry: &Geometry, x: &[f32], at: [usize; 3], first: usize, len: usize) -> [u32; CHANNELS] {
    let mut best = [f32::NEG_INFINITY; CHANNELS];
    let mut winner = [u32::MAX; CHANNELS];
    for tap in 0..geometry.taps() {
        let Some(source) = geometry.tap_pixel(at, tap) else { continue };
        let from = &x[source * geometry.channels_in + first..][..len];
        for i in 0..len {
            // What is no number wins: it must not be hidden.
            #[allow(clippy::neg_cmp_op_on_partial_ord)]
            let wins = !(from[i] <= best[i]) || winner[i] == u32::MAX;
            best[i] = if wins { from[i] } else { best[i] };
            winner[i] = if wins { tap as u32 } else { winner[i] };
        }
    }
    winner
}

#[inline(always)]
fn take(geometry: &Geometry, x: &[f32], from: &[f32], to: &mut [f32]) {
    let channels = geometry.channels_in;
    for pixel in 0..geometry.output_pixels() {
        let at = geometry.coordinates(pixel);
        for first in (0..channels).step_by(CHANNELS) {
            let len = CHANNELS.min(channels - first);
            let winner = winners(geometry, x, at, first, len);
            let to = &mut to[pixel * channels + first..][..len];
            to.fill(0.0);
            for tap in 0..geometry.taps() {
                let Some(source) = geometry.tap_pixel(at, tap) else { continue };
                let from = &from[source * channels + first..][..len];
                for i in 0..len {
                    to[i] = if winner[i] == tap as u32 { from[i] } else { to[i] };
                }
            }
        }
    }
}

#[inline(always)]
fn put(geometry: &Geometry, x: &[f32], from: &[f32], to: &mut [f32]) {
    let channels = geometry.channels_in;
    to.fill(0.0);
    for pixel in 0..geometry.output_pixels() {
        let at = geometry.coordinates(pixel);
        for first in (0..channels).step_by(CHANNELS) {
            let len = CHANNELS.min(channels - first);
            let winner = winners(geometry, x, at, first, len);
            let from = &from[pixel * channels + first..][..len];
            for tap in 0..geometry.taps() {
                let Some(source) = geometry.tap_pixel(at, tap) else { continue };
                let to = &mut to[source * channels + first..][..len];
                for i in 0..len {
                    to[i] += if winner[i] == tap as u32 { from[i] } else { 0.0 };
                }
            }
        }
    }
}
