//! Super-blocks of 256: the sub-blocks' scales and minima are integers, times two floats.
//!
//! Both are chosen together: integers near what each sub-block would have alone, then in turn the floats by least
//! squares over the whole super-block, and for each sub-block the best of the integers nearby.

use super::fit::{self, Codes, Error, FitAffine, FitSymmetric, Integers, Sums};
use super::{ElementType, Group, LANES, PerLane, Work, by_lane, pack, round_to_f16};
use crate::compute::Isa;

/// Times that floats and integers are fitted to each other.
const ROUNDS: usize = 1;
/// How far beyond the largest integer the largest scale may lie, in integers: clipping one may serve the others.
const STRETCHES: [f32; 4] = [-0.4, 0.0, 0.5, 1.0];

/// What a type's integers can be.
#[derive(Clone, Copy)]
struct Layout {
    codes: Integers,
    scales: Integers,
    /// The largest minimum; 0 where the type has none.
    mins_high: f32,
}

fn layout(element_type: ElementType) -> Layout {
    let (codes, scales, mins_high) = match element_type {
        ElementType::Q2_K => ((0.0, 3.0), (0.0, 15.0), 15.0),
        ElementType::Q3_K => ((-4.0, 3.0), (-32.0, 31.0), 0.0),
        ElementType::Q4_K => ((0.0, 15.0), (0.0, 63.0), 63.0),
        ElementType::Q5_K => ((0.0, 31.0), (0.0, 63.0), 63.0),
        ElementType::Q6_K => ((-32.0, 31.0), (-128.0, 127.0), 0.0),
        _ => unreachable!("{element_type} has no super-blocks that are written"),
    };
    let integers = |(low, high)| Integers { low, high };
    Layout { codes: integers(codes), scales: integers(scales), mins_high }
}

/// A group's scales: element `i` of lane `l` is about `d[l] · scales[l] · code - m[l] · mins[l]`.
#[derive(Clone, Copy)]
struct Scales {
    /// Equal in the lanes of one super-block, and so is `m`.
    d: PerLane,
    m: PerLane,
    /// Integers.
    scales: PerLane,
    mins: PerLane,
}

impl Scales {
    fn scale(&self) -> PerLane {
        std::array::from_fn(|lane| self.d[lane] * self.scales[lane])
    }

    /// What is added.
    fn min(&self) -> PerLane {
        std::array::from_fn(|lane| -(self.m[lane] * self.mins[lane]))
    }
}

/// Writes the group's super-blocks, one or two, and gives their squared error.
pub(super) fn quantize_super_blocks<'o>(work: &mut Work, blocks: impl Iterator<Item = &'o mut [u8]>) -> f64 {
    let (isa, element_type, group, codes) = (work.isa, work.element_type, &work.group, &mut work.codes);
    let layout = layout(element_type);
    let per_block = 256 / group.elements;
    let mut scales = begin(isa, &layout, group, per_block);
    for _ in 0..ROUNDS {
        choose_integers(isa, &layout, group, &mut scales);
        fit_floats(isa, &layout, group, per_block, &mut scales);
    }
    choose_integers(isa, &layout, group, &mut scales);
    let (scale, min) = (&scales.scale(), &scales.min());
    let error = fit::run(isa, Codes { group, grid: layout.codes, scale, min, codes });
    let codes = by_lane(codes);
    for (index, out) in blocks.enumerate() {
        let first = index * per_block;
        let mut block = pack::SuperBlock { d: scales.d[first], m: scales.m[first], ..Default::default() };
        for lane in 0..per_block {
            block.scales[lane] = scales.scales[first + lane] as i32;
            block.mins[lane] = scales.mins[first + lane] as i32;
            let sub = &mut block.codes[lane * group.elements..][..group.elements];
            for (code, q) in sub.iter_mut().zip(&codes[first + lane]) {
                *code = (q - layout.codes.low as i8) as u8;
            }
        }
        pack::super_block(element_type, &block, out);
    }
    error
}

/// Each sub-block's own best scale and minimum, and integers near them.
fn begin(isa: Isa, layout: &Layout, group: &Group, per_block: usize) -> Scales {
    let (mut scale, mut min) = ([0.0; LANES], [0.0; LANES]);
    if layout.mins_high > 0.0 {
        let top = layout.codes.high;
        let (scale, min) = (&mut scale, &mut min);
        fit::run(isa, FitAffine { group, top, positive_min: false, scale, min });
    } else {
        fit::run(isa, FitSymmetric { group, grid: layout.codes, scale: &mut scale });
    }
    let sums = fit::run(isa, Sums { group, grid: layout.codes, scale: &scale, min: &min });
    let mut scales = Scales { d: [0.0; LANES], m: [0.0; LANES], scales: [0.0; LANES], mins: [0.0; LANES] };
    let taken = min.map(|min| -min);
    for first in (0..LANES).step_by(per_block) {
        let lanes = first..first + per_block;
        let d = common_factor(&scale[lanes.clone()], &sums.qq[lanes.clone()], layout.scales);
        let mins = Integers { low: 0.0, high: layout.mins_high };
        let m = common_factor(&taken[lanes.clone()], &sums.w[lanes.clone()], mins);
        for lane in lanes {
            (scales.d[lane], scales.m[lane]) = (d, m);
            scales.scales[lane] = integer(scale[lane], d, layout.scales);
            scales.mins[lane] = integer(taken[lane], m, mins);
        }
    }
    scales
}

/// The factor by which integers of the range come closest to `values`.
fn common_factor(values: &[f32], weights: &[f32], range: Integers) -> f32 {
    let peak = values.iter().fold(0.0, |peak: f32, x| if x.abs() > peak.abs() { *x } else { peak });
    if peak == 0.0 {
        return 0.0;
    }
    // All factors side by side: half of them put the peak near one end of the range, half near the other.
    let ends = [if range.low == 0.0 { range.high } else { range.low }, range.high];
    let factors: [f32; 2 * STRETCHES.len()] = std::array::from_fn(|i| {
        let end = ends[i / STRETCHES.len()];
        peak / (end + STRETCHES[i % STRETCHES.len()] * end.signum())
    });
    let inverses = factors.map(f32::recip);
    let (mut xq, mut qq) = ([0.0; 2 * STRETCHES.len()], [0.0; 2 * STRETCHES.len()]);
    for (x, w) in values.iter().zip(weights) {
        for (i, inverse) in inverses.iter().enumerate() {
            let q = whole(x * inverse, range);
            xq[i] += w * x * q;
            qq[i] += w * q * q;
        }
    }
    let (mut best, mut best_gain) = (peak / range.high, -1.0);
    for (xq, qq) in xq.into_iter().zip(qq) {
        if qq > 0.0 && xq / qq * xq > best_gain {
            (best, best_gain) = (xq / qq, xq / qq * xq);
        }
    }
    round_to_f16(best)
}

/// The integer of the range that is nearest to `x / factor`.
fn integer(x: f32, factor: f32, range: Integers) -> f32 {
    if factor == 0.0 { 0.0 } else { whole(x / factor, range) }
}

/// The integer of the range that is nearest to `x`.
fn whole(x: f32, range: Integers) -> f32 {
    // Adding it leaves no bits for a fraction; the library's function is a call on machines that have no such instruction.
    const WHOLE: f32 = 12_582_912.0;
    (x.clamp(range.low, range.high) + WHOLE) - WHOLE
}

/// For each sub-block, the best of the integers at most one away.
fn choose_integers(isa: Isa, layout: &Layout, group: &Group, scales: &mut Scales) {
    let begun = *scales;
    let mut least = [f32::INFINITY; LANES];
    const NEAR: [(f32, f32); 9] = [
        (0.0, 0.0),
        (1.0, 0.0),
        (-1.0, 0.0),
        (0.0, 1.0),
        (0.0, -1.0),
        (1.0, 1.0),
        (-1.0, -1.0),
        (1.0, -1.0),
        (-1.0, 1.0),
    ];
    let near = if layout.mins_high > 0.0 { &NEAR[..] } else { &NEAR[..3] };
    for (up_scale, up_min) in near {
        let mut tried = begun;
        for lane in 0..LANES {
            let scale = begun.scales[lane] + up_scale;
            tried.scales[lane] = scale.clamp(layout.scales.low, layout.scales.high);
            tried.mins[lane] = (begun.mins[lane] + up_min).clamp(0.0, layout.mins_high);
        }
        let (scale, min) = (&tried.scale(), &tried.min());
        let error = fit::run(isa, Error { group, grid: layout.codes, scale, min });
        for lane in 0..LANES {
            if error[lane] < least[lane] {
                least[lane] = error[lane];
                (scales.scales[lane], scales.mins[lane]) = (tried.scales[lane], tried.mins[lane]);
            }
        }
    }
}

/// The best floats for the codes that the scales give.
fn fit_floats(isa: Isa, layout: &Layout, group: &Group, per_block: usize, scales: &mut Scales) {
    let (scale, min) = (scales.scale(), scales.min());
    let sums = fit::run(isa, Sums { group, grid: layout.codes, scale: &scale, min: &min });
    for first in (0..LANES).step_by(per_block) {
        let (mut dd, mut dm, mut mm, mut dx, mut mx) = (0.0, 0.0, 0.0, 0.0, 0.0);
        for lane in first..first + per_block {
            let (k, l) = (f64::from(scales.scales[lane]), f64::from(scales.mins[lane]));
            dd += k * k * f64::from(sums.qq[lane]);
            dm -= k * l * f64::from(sums.q[lane]);
            mm += l * l * f64::from(sums.w[lane]);
            dx += k * f64::from(sums.xq[lane]);
            mx -= l * f64::from(sums.x[lane]);
        }
        let determinant = dd * mm - dm * dm;
        let (d, m) = if determinant > 1e-9 * dd * mm {
            ((mm * dx - dm * mx) / determinant, (dd * mx - dm * dx) / determinant)
        } else if dd > 0.0 {
            // Nothing is taken off.
            (dx / dd, f64::from(scales.m[first]))
        } else {
            continue;
        };
        if m < 0.0 {
            continue;
        }
        for lane in first..first + per_block {
            (scales.d[lane], scales.m[lane]) = (round_to_f16(d as f32), round_to_f16(m as f32));
        }
    }
}
