//! Windows without weights: sums of windows and of overlapping windows' values, and what stands where a window is
//! greatest. Each pair is adjoint, so the four are closed under differentiation.

use super::Geometry;
use crate::compute::Compute;
use crate::lanes::{Kernel, Lanes, WIDTH_MAX, dispatch};
use crate::workspace::{Memory, View, Workspace};

/// Values of a window, at most: the number of the greatest is kept as an `f32`.
pub const TAPS_MAX: usize = 1 << 24;

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
    /// When places overlap, or windows have more than [`TAPS_MAX`] values.
    pub fn new(geometry: Geometry, pooling: Pooling, x: usize, values: usize, y: usize) -> Pool {
        assert_eq!(geometry.channels_in, geometry.channels_out, "pooling keeps channels apart");
        assert!(geometry.taps() <= TAPS_MAX, "a window of {} values", geometry.taps());
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
    fn run<L: Lanes>(self, lanes: L) {
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
                        greatest(lanes, geometry, x, to)
                    } else {
                        take(lanes, geometry, x, from, to)
                    }
                }
                Pooling::Put => {
                    let x = std::slice::from_raw_parts(input(*x).cast_const(), input_len);
                    let from = std::slice::from_raw_parts(y.cast_const(), output_len);
                    put(lanes, geometry, x, from, std::slice::from_raw_parts_mut(input(*values), input_len));
                }
            }
        }
    }
}

#[inline(always)]
fn sum(geometry: &Geometry, from: &[f32], to: &mut [f32]) {
    let channels = geometry.channels_in;
    for (at, to) in geometry.walk(0..geometry.output_pixels()).zip(to.chunks_exact_mut(channels)) {
        to.fill(0.0);
        for (_, source) in geometry.taps_at(at) {
            let from = &from[source * channels..][..channels];
            to.iter_mut().zip(from).for_each(|(to, x)| *to += x);
        }
    }
}

#[inline(always)]
fn spread(geometry: &Geometry, from: &[f32], to: &mut [f32]) {
    let channels = geometry.channels_in;
    to.fill(0.0);
    for (at, from) in geometry.walk(0..geometry.output_pixels()).zip(from.chunks_exact(channels)) {
        for (_, source) in geometry.taps_at(at) {
            let to = &mut to[source * channels..][..channels];
            to.iter_mut().zip(from).for_each(|(to, x)| *to += x);
        }
    }
}

/// Up to a vector of values, filled up with zeros.
#[inline(always)]
fn read<L: Lanes>(lanes: L, values: &[f32]) -> L::F {
    if values.len() == L::WIDTH {
        return lanes.read(values);
    }
    let mut edge = [0.0; WIDTH_MAX];
    edge[..values.len()].copy_from_slice(values);
    lanes.read(&edge)
}

/// The first of `values`, as many as `to` takes.
#[inline(always)]
fn write<L: Lanes>(lanes: L, to: &mut [f32], values: L::F) {
    if to.len() == L::WIDTH {
        return lanes.write(to, values);
    }
    let mut edge = [0.0; WIDTH_MAX];
    lanes.write(&mut edge, values);
    to.copy_from_slice(&edge[..to.len()]);
}

#[inline(always)]
fn greatest<L: Lanes>(lanes: L, geometry: &Geometry, x: &[f32], to: &mut [f32]) {
    let channels = geometry.channels_in;
    for (at, to) in geometry.walk(0..geometry.output_pixels()).zip(to.chunks_exact_mut(channels)) {
        for (chunk, to) in to.chunks_mut(L::WIDTH).enumerate() {
            let first = chunk * L::WIDTH;
            let mut best = lanes.splat(f32::NEG_INFINITY);
            for (_, source) in geometry.taps_at(at) {
                let value = read(lanes, &x[source * channels + first..][..to.len()]);
                best = lanes.select(lanes.less(best, value), value, best);
                // What is no number stays: it must not be hidden.
                best = lanes.select(lanes.equal(value, value), best, value);
            }
            write(lanes, to, best);
        }
    }
}

/// The tap at which each of `len` channels from `first` on is greatest, the first of equals; what is no number is.
#[inline(always)]
fn winners<L: Lanes>(
    lanes: L,
    geometry: &Geometry,
    x: &[f32],
    at: [usize; 3],
    first: usize,
    len: usize,
) -> L::F {
    let mut best = lanes.splat(f32::NEG_INFINITY);
    let mut winner = lanes.splat(-1.0);
    for (tap, source) in geometry.taps_at(at) {
        let value = read(lanes, &x[source * geometry.channels_in + first..][..len]);
        let tap = lanes.splat(tap as f32);
        let (above, is_number) = (lanes.less(best, value), lanes.equal(value, value));
        best = lanes.select(is_number, lanes.select(above, value, best), value);
        winner = lanes.select(is_number, lanes.select(above, tap, winner), tap);
        // The first of windows where nothing is above minus infinity.
        winner = lanes.select(lanes.less(winner, lanes.splat(0.0)), tap, winner);
    }
    winner
}

#[inline(always)]
fn take<L: Lanes>(lanes: L, geometry: &Geometry, x: &[f32], from: &[f32], to: &mut [f32]) {
    let channels = geometry.channels_in;
    for (at, to) in geometry.walk(0..geometry.output_pixels()).zip(to.chunks_exact_mut(channels)) {
        for (chunk, to) in to.chunks_mut(L::WIDTH).enumerate() {
            let (first, len) = (chunk * L::WIDTH, to.len());
            let winner = winners(lanes, geometry, x, at, first, len);
            let mut taken = lanes.splat(0.0);
            for (tap, source) in geometry.taps_at(at) {
                let value = read(lanes, &from[source * channels + first..][..len]);
                taken = lanes.select(lanes.equal(winner, lanes.splat(tap as f32)), value, taken);
            }
            write(lanes, to, taken);
        }
    }
}

#[inline(always)]
fn put<L: Lanes>(lanes: L, geometry: &Geometry, x: &[f32], from: &[f32], to: &mut [f32]) {
    let channels = geometry.channels_in;
    to.fill(0.0);
    for (at, from) in geometry.walk(0..geometry.output_pixels()).zip(from.chunks_exact(channels)) {
        for (chunk, from) in from.chunks(L::WIDTH).enumerate() {
            let (first, len) = (chunk * L::WIDTH, from.len());
            let winner = winners(lanes, geometry, x, at, first, len);
            let value = read(lanes, from);
            for (tap, source) in geometry.taps_at(at) {
                let to = &mut to[source * channels + first..][..len];
                let won = lanes.equal(winner, lanes.splat(tap as f32));
                let sum = lanes.add(read(lanes, to), lanes.select(won, value, lanes.splat(0.0)));
                write(lanes, to, sum);
            }
        }
    }
}
