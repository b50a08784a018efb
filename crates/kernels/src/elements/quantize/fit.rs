//! The search for the scale (and minimum) of each lane's sub-block: ranges of codes a little wider and narrower than the
//! numbers' own, each with the scale that least squares gives for the codes that come of it, and from the best of these
//! on back and forth between codes and scale.

use super::{Group, GroupCodes, LANES, PerLane};
use crate::compute::Isa;
use crate::elements::NONLINEAR;
use crate::lanes::{Kernel, Lanes, dispatch};

/// How much wider or narrower than the numbers' own range ranges are tried, in codes, and which part of that is at the
/// lower end.
const RANGES: [(f32, f32); 18] = [
    (-0.9, 0.0),
    (-0.9, 0.5),
    (-0.9, 1.0),
    (-0.6, 0.0),
    (-0.6, 0.5),
    (-0.6, 1.0),
    (-0.3, 0.0),
    (-0.3, 0.5),
    (-0.3, 1.0),
    (0.0, 0.5),
    (0.4, 0.0),
    (0.4, 0.5),
    (0.4, 1.0),
    (0.9, 0.0),
    (0.9, 0.5),
    (0.9, 1.0),
    (1.5, 0.3),
    (1.5, 0.7),
];
/// How far from either end of the codes the number of largest size is placed, in codes.
const AT_LOW: [f32; 6] = [-0.9, -0.5, -0.1, 0.3, 0.7, 1.2];
const AT_HIGH: [f32; 2] = [-0.2, 0.5];
/// Times that codes are taken again from the best scale.
const REFINEMENTS: usize = 2;

/// The codes that a type has.
pub(super) trait Grid: Copy {
    /// The codes at the ends.
    fn ends(self) -> (f32, f32);
    /// What [`AT_LOW`] is in.
    fn step(self) -> f32;
    /// The code nearest to each of `x`.
    fn nearest<L: Lanes>(self, lanes: L, x: L::F) -> L::F;
}

/// All integers of a range.
#[derive(Clone, Copy)]
pub(super) struct Integers {
    pub low: f32,
    pub high: f32,
}

impl Grid for Integers {
    fn ends(self) -> (f32, f32) {
        (self.low, self.high)
    }

    fn step(self) -> f32 {
        1.0
    }

    #[inline(always)]
    fn nearest<L: Lanes>(self, lanes: L, x: L::F) -> L::F {
        lanes.min(lanes.max(lanes.round(x), lanes.splat(self.low)), lanes.splat(self.high))
    }
}

/// The numbers of [`NONLINEAR`].
#[derive(Clone, Copy)]
pub(super) struct Nonlinear;

impl Grid for Nonlinear {
    fn ends(self) -> (f32, f32) {
        (f32::from(NONLINEAR[0]), f32::from(NONLINEAR[15]))
    }

    fn step(self) -> f32 {
        16.0
    }

    #[inline(always)]
    fn nearest<L: Lanes>(self, lanes: L, x: L::F) -> L::F {
        let mut nearest = lanes.splat(f32::from(NONLINEAR[0]));
        for i in 1..NONLINEAR.len() {
            let (before, code) = (f32::from(NONLINEAR[i - 1]), f32::from(NONLINEAR[i]));
            let is_past = lanes.less(lanes.splat((before + code) / 2.0), x);
            nearest = lanes.select(is_past, lanes.splat(code), nearest);
        }
        nearest
    }
}

pub(super) fn run<K: Kernel>(isa: Isa, kernel: K) -> K::Output {
    dispatch(isa, kernel)
}

/// `1 / a`, or 0 where that is no number.
#[inline(always)]
fn inverse<L: Lanes>(lanes: L, a: L::F) -> L::F {
    let zero = lanes.splat(0.0);
    let smallest = lanes.splat(f32::MIN_POSITIVE);
    let size = lanes.max(a, lanes.sub(zero, a));
    lanes.select(lanes.less(size, smallest), zero, lanes.div(lanes.splat(1.0), a))
}

/// The smallest and the largest element of each lane.
#[inline(always)]
fn extremes<L: Lanes>(lanes: L, group: &Group, first: usize) -> (L::F, L::F) {
    let mut least = lanes.read(&group.x[0][first..]);
    let mut most = least;
    for i in 1..group.elements {
        let x = lanes.read(&group.x[i][first..]);
        (least, most) = (lanes.min(least, x), lanes.max(most, x));
    }
    (least, most)
}

/// Turns `group.w` into weights of elements: large ones count more, by the root of their square and the sub-block's mean
/// square.
pub(super) struct Weigh<'a> {
    pub group: &'a mut Group,
}

impl Kernel for Weigh<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let group = self.group;
        for first in (0..LANES).step_by(L::WIDTH) {
            let mut squares = lanes.splat(0.0);
            for i in 0..group.elements {
                let x = lanes.read(&group.x[i][first..]);
                squares = lanes.fma(x, x, squares);
            }
            let mean = lanes.mul(squares, lanes.splat(1.0 / group.elements as f32));
            for i in 0..group.elements {
                let x = lanes.read(&group.x[i][first..]);
                let size = lanes.sqrt(lanes.fma(x, x, mean));
                let w = lanes.mul(lanes.read(&group.w[i][first..]), size);
                lanes.write(&mut group.w[i][first..], w);
            }
        }
    }
}

/// The scale of each lane for which `x ≈ scale · code`.
pub(super) struct FitSymmetric<'a, G> {
    pub group: &'a Group,
    pub grid: G,
    pub scale: &'a mut PerLane,
}

impl<G: Grid> Kernel for FitSymmetric<'_, G> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let FitSymmetric { group, grid, scale } = self;
        let zero = lanes.splat(0.0);
        let (low, high) = grid.ends();
        for first in (0..LANES).step_by(L::WIDTH) {
            let (least, most) = extremes(lanes, group, first);
            let is_below = lanes.less(most, lanes.sub(zero, least));
            // The number of largest size becomes about one end of the codes, or the other.
            let peak = inverse(lanes, lanes.select(is_below, least, most));
            let (mut best, mut best_gain) = (zero, zero);
            for stretch in AT_LOW {
                let per_unit = lanes.mul(peak, lanes.splat(low - stretch * grid.step()));
                let tried = symmetric(lanes, group, first, grid, per_unit);
                (best, best_gain) = better(lanes, (best, best_gain), tried);
            }
            for stretch in AT_HIGH {
                let per_unit = lanes.mul(peak, lanes.splat(high + stretch * grid.step()));
                let tried = symmetric(lanes, group, first, grid, per_unit);
                (best, best_gain) = better(lanes, (best, best_gain), tried);
            }
            for _ in 0..REFINEMENTS {
                let tried = symmetric(lanes, group, first, grid, inverse(lanes, best));
                (best, best_gain) = better(lanes, (best, best_gain), tried);
            }
            lanes.write(&mut scale[first..], best);
        }
    }
}

/// Of two scales with their gains, the one of the greater gain, lane by lane.
#[inline(always)]
fn better<L: Lanes>(lanes: L, one: (L::F, L::F), other: (L::F, L::F)) -> (L::F, L::F) {
    let is_better = lanes.less(one.1, other.1);
    (lanes.select(is_better, other.0, one.0), lanes.select(is_better, other.1, one.1))
}

/// The best scale for the codes nearest to `x · per_unit`, and by how much it lessens the squared error from that of
/// zeros.
#[inline(always)]
fn symmetric<L: Lanes, G: Grid>(
    lanes: L,
    group: &Group,
    first: usize,
    grid: G,
    per_unit: L::F,
) -> (L::F, L::F) {
    let (mut xq, mut qq) = (lanes.splat(0.0), lanes.splat(0.0));
    for i in 0..group.elements {
        let x = lanes.read(&group.x[i][first..]);
        let q = grid.nearest(lanes, lanes.mul(x, per_unit));
        let wq = lanes.mul(lanes.read(&group.w[i][first..]), q);
        xq = lanes.fma(wq, x, xq);
        qq = lanes.fma(wq, q, qq);
    }
    let scale = lanes.mul(xq, inverse(lanes, qq));
    (scale, lanes.mul(scale, xq))
}

/// Scale and minimum of each lane for which `x ≈ scale · code + min`, with codes from 0 to `top`.
pub(super) struct FitAffine<'a> {
    pub group: &'a Group,
    pub top: f32,
    /// Whether the minimum may be above 0.
    pub positive_min: bool,
    pub scale: &'a mut PerLane,
    pub min: &'a mut PerLane,
}

impl Kernel for FitAffine<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let FitAffine { group, top, positive_min, scale, min } = self;
        let zero = lanes.splat(0.0);
        for first in (0..LANES).step_by(L::WIDTH) {
            let (mut least, most) = extremes(lanes, group, first);
            if !positive_min {
                least = lanes.min(least, zero);
            }
            let per_range = inverse(lanes, lanes.sub(most, least));
            let search = Affine::new(lanes, group, first, top, positive_min);
            // Where all numbers are equal, a minimum alone says them.
            let mut mean = lanes.mul(search.wx, inverse(lanes, search.w));
            if !positive_min {
                mean = lanes.min(mean, zero);
            }
            let mut best = Fit { scale: zero, min: mean, gain: lanes.mul(mean, search.wx) };
            for (stretch, below) in RANGES {
                let per_unit = lanes.mul(per_range, lanes.splat(top + stretch));
                let at_least = lanes.sub(zero, lanes.mul(least, per_unit));
                let offset = lanes.sub(at_least, lanes.splat(below * stretch));
                best.improve(lanes, search.fit(lanes, per_unit, offset));
            }
            for _ in 0..REFINEMENTS {
                let per_unit = inverse(lanes, best.scale);
                let offset = lanes.sub(zero, lanes.mul(best.min, per_unit));
                best.improve(lanes, search.fit(lanes, per_unit, offset));
            }
            lanes.write(&mut scale[first..], best.scale);
            lanes.write(&mut min[first..], best.min);
        }
    }
}

/// A scale and a minimum, and by how much they lessen the squared error from that of zeros.
#[derive(Clone, Copy)]
struct Fit<F> {
    scale: F,
    min: F,
    gain: F,
}

impl<F: Copy> Fit<F> {
    #[inline(always)]
    fn improve<L: Lanes<F = F>>(&mut self, lanes: L, other: Fit<F>) {
        let is_better = lanes.less(self.gain, other.gain);
        self.scale = lanes.select(is_better, other.scale, self.scale);
        self.min = lanes.select(is_better, other.min, self.min);
        self.gain = lanes.select(is_better, other.gain, self.gain);
    }
}

/// Least squares over one vector of lanes.
struct Affine<'a, F> {
    group: &'a Group,
    first: usize,
    top: f32,
    positive_min: bool,
    /// Sums of the weights, and of the weighted numbers.
    w: F,
    wx: F,
}

impl<'a, F: Copy> Affine<'a, F> {
    #[inline(always)]
    fn new<L: Lanes<F = F>>(
        lanes: L,
        group: &'a Group,
        first: usize,
        top: f32,
        positive_min: bool,
    ) -> Affine<'a, F> {
        let (mut sum_w, mut sum_wx) = (lanes.splat(0.0), lanes.splat(0.0));
        for i in 0..group.elements {
            let w = lanes.read(&group.w[i][first..]);
            sum_w = lanes.add(sum_w, w);
            sum_wx = lanes.fma(w, lanes.read(&group.x[i][first..]), sum_wx);
        }
        Affine { group, first, top, positive_min, w: sum_w, wx: sum_wx }
    }

    /// The best scale and minimum for the codes nearest to `x · per_unit + offset`.
    #[inline(always)]
    fn fit<L: Lanes<F = F>>(&self, lanes: L, per_unit: F, offset: F) -> Fit<F> {
        let zero = lanes.splat(0.0);
        let grid = Integers { low: 0.0, high: self.top };
        let (mut q1, mut qq, mut xq) = (zero, zero, zero);
        for i in 0..self.group.elements {
            let x = lanes.read(&self.group.x[i][self.first..]);
            let q = grid.nearest(lanes, lanes.fma(x, per_unit, offset));
            let wq = lanes.mul(lanes.read(&self.group.w[i][self.first..]), q);
            q1 = lanes.add(q1, wq);
            qq = lanes.fma(wq, q, qq);
            xq = lanes.fma(wq, x, xq);
        }
        let whole = lanes.mul(self.w, qq);
        let determinant = lanes.sub(whole, lanes.mul(q1, q1));
        let per = inverse(lanes, determinant);
        let mut scale = lanes.mul(per, lanes.sub(lanes.mul(self.w, xq), lanes.mul(self.wx, q1)));
        let mut min = lanes.mul(per, lanes.sub(lanes.mul(qq, self.wx), lanes.mul(q1, xq)));
        // Where all codes are equal, what is left of the determinant is rounding.
        let without_min = lanes.mul(xq, inverse(lanes, qq));
        let is_flat = lanes.less(determinant, lanes.mul(whole, lanes.splat(1e-5)));
        scale = lanes.select(is_flat, without_min, scale);
        min = lanes.select(is_flat, zero, min);
        if !self.positive_min {
            let is_above = lanes.less(zero, min);
            scale = lanes.select(is_above, without_min, scale);
            min = lanes.min(min, zero);
        }
        let gain = lanes.fma(scale, xq, lanes.mul(min, self.wx));
        Fit { scale, min, gain }
    }
}

/// The codes of each element for given scales and minima; gives the squared error, not weighted.
pub(super) struct Codes<'a, G> {
    pub group: &'a Group,
    pub grid: G,
    pub scale: &'a PerLane,
    pub min: &'a PerLane,
    pub codes: &'a mut GroupCodes,
}

impl<G: Grid> Kernel for Codes<'_, G> {
    type Output = f64;

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) -> f64 {
        let mut error = 0.0;
        for first in (0..LANES).step_by(L::WIDTH) {
            let scale = lanes.read(&self.scale[first..]);
            let per_unit = inverse(lanes, scale);
            let min = lanes.read(&self.min[first..]);
            let mut sum = lanes.splat(0.0);
            for i in 0..self.group.elements {
                let x = lanes.sub(lanes.read(&self.group.x[i][first..]), min);
                let q = self.grid.nearest(lanes, lanes.mul(x, per_unit));
                let off = lanes.sub(x, lanes.mul(scale, q));
                sum = lanes.fma(off, off, sum);
                lanes.write_i8(&mut self.codes[i][first..], q);
            }
            error += f64::from(lanes.sum(sum));
        }
        error
    }
}

/// The weighted squared error of each lane for given scales and minima, each element's code the nearest.
pub(super) struct Error<'a> {
    pub group: &'a Group,
    pub grid: Integers,
    pub scale: &'a PerLane,
    pub min: &'a PerLane,
}

impl Kernel for Error<'_> {
    type Output = PerLane;

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) -> PerLane {
        let mut error = [0.0; LANES];
        for first in (0..LANES).step_by(L::WIDTH) {
            let scale = lanes.read(&self.scale[first..]);
            let per_unit = inverse(lanes, scale);
            let min = lanes.read(&self.min[first..]);
            let mut sum = lanes.splat(0.0);
            for i in 0..self.group.elements {
                let x = lanes.sub(lanes.read(&self.group.x[i][first..]), min);
                let q = self.grid.nearest(lanes, lanes.mul(x, per_unit));
                let off = lanes.sub(x, lanes.mul(scale, q));
                let w = lanes.read(&self.group.w[i][first..]);
                sum = lanes.fma(lanes.mul(w, off), off, sum);
            }
            lanes.write(&mut error[first..], sum);
        }
        error
    }
}

/// Weighted sums over each lane's elements: of 1, the numbers `x` and the codes `q`, and of their products.
pub(super) struct LaneSums {
    pub w: PerLane,
    pub x: PerLane,
    pub q: PerLane,
    pub qq: PerLane,
    pub xq: PerLane,
}

/// The sums for the codes that given scales and minima lead to.
pub(super) struct Sums<'a> {
    pub group: &'a Group,
    pub grid: Integers,
    pub scale: &'a PerLane,
    pub min: &'a PerLane,
}

impl Kernel for Sums<'_> {
    type Output = LaneSums;

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) -> LaneSums {
        let zeros = [0.0; LANES];
        let mut sums = LaneSums { w: zeros, x: zeros, q: zeros, qq: zeros, xq: zeros };
        for first in (0..LANES).step_by(L::WIDTH) {
            let per_unit = inverse(lanes, lanes.read(&self.scale[first..]));
            let min = lanes.read(&self.min[first..]);
            let zero = lanes.splat(0.0);
            let (mut w1, mut x1, mut q1, mut qq, mut xq) = (zero, zero, zero, zero, zero);
            for i in 0..self.group.elements {
                let x = lanes.read(&self.group.x[i][first..]);
                let w = lanes.read(&self.group.w[i][first..]);
                let q = self.grid.nearest(lanes, lanes.mul(lanes.sub(x, min), per_unit));
                let wq = lanes.mul(w, q);
                w1 = lanes.add(w1, w);
                x1 = lanes.fma(w, x, x1);
                q1 = lanes.add(q1, wq);
                qq = lanes.fma(wq, q, qq);
                xq = lanes.fma(wq, x, xq);
            }
            lanes.write(&mut sums.w[first..], w1);
            lanes.write(&mut sums.x[first..], x1);
            lanes.write(&mut sums.q[first..], q1);
            lanes.write(&mut sums.qq[first..], qq);
            lanes.write(&mut sums.xq[first..], xq);
        }
        sums
    }
}
