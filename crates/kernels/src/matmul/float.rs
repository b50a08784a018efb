//! The product of float rows with panels of float weights: `[k, 2 · WIDTH]`, two vectors for each element of `k`.
//!
//! A sum is taken in the order of `k` by one fused multiply-add after another, so that its bits don't depend on how many
//! rows are computed together, nor on where it is put down and taken up again.

use half::{bf16, f16};

use super::Span;
use crate::compute::Isa;
use crate::elements::ElementType;
use crate::lanes::{Element, Kernel, Lanes, WIDTH_MAX, dispatch, for_runs_of_rows};
use crate::threads::DisjointMut;

/// Elements of `k` of a panel that all rows meet before the next ones: they stay in the first-level cache.
const STEPS: usize = 512;

/// Writes `out[row, column]`, `[m, n]`, for the span's rows and columns.
pub(super) fn product(
    isa: Isa,
    element_type: ElementType,
    span: &Span<'_, &[f32]>,
    out: &DisjointMut<'_, f32>,
) {
    for panel in span.panels.clone() {
        match element_type {
            ElementType::F16 => dispatch(isa, Panel::<f16>::new(span, panel, out)),
            ElementType::BF16 => dispatch(isa, Panel::<bf16>::new(span, panel, out)),
            _ => dispatch(isa, Panel::<f32>::new(span, panel, out)),
        }
    }
}

/// All rows of a span with one panel.
struct Panel<'a, E> {
    span: &'a Span<'a, &'a [f32]>,
    panel: usize,
    element: std::marker::PhantomData<E>,
    out: &'a DisjointMut<'a, f32>,
}

impl<'a, E> Panel<'a, E> {
    fn new(span: &'a Span<'a, &'a [f32]>, panel: usize, out: &'a DisjointMut<'a, f32>) -> Panel<'a, E> {
        Panel { span, panel, element: std::marker::PhantomData, out }
    }
}

impl<E: Element> Kernel for Panel<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let Span { activations: values, rows, weights, .. } = self.span;
        let k = weights.columns();
        let bytes = weights.panel(self.panel);
        assert!(weights.panel_columns() == 2 * L::WIDTH && bytes.len() == k * 2 * L::WIDTH * size_of::<E>());
        assert!(rows.end * k <= values.len());
        for first in (0..k).step_by(STEPS) {
            let steps = Steps {
                weights: bytes[first * 2 * L::WIDTH * size_of::<E>()..].as_ptr().cast::<E>(),
                values: values[first..].as_ptr(),
                first,
                count: STEPS.min(k - first),
                k,
            };
            let start = rows.start;
            for_runs_of_rows!(rows.len(), lanes, |row| tile(&steps, &self, start + row));
        }
    }
}

/// Some of a panel's elements of `k`.
struct Steps<E> {
    /// `[count, 2 · WIDTH]`.
    weights: *const E,
    /// The first row's, with a row every `k`.
    values: *const f32,
    first: usize,
    count: usize,
    k: usize,
}

/// Adds the steps to `R` rows from `row` on.
///
/// # Safety
/// There are such rows, and the steps' pointers are to as many elements as they say.
#[inline(always)]
unsafe fn tile<L: Lanes, E: Element, const R: usize>(
    lanes: L,
    steps: &Steps<E>,
    panel: &Panel<'_, E>,
    row: usize,
) {
    let mut edge = [[0.0f32; 2 * WIDTH_MAX]; R];
    let mut sums = [[lanes.splat(0.0); 2]; R];
    if steps.first > 0 {
        for r in 0..R {
            // SAFETY: a panel's columns of a row are used by one task.
            let before = unsafe { panel.span.place(panel.out, row + r, panel.panel) };
            edge[r][..before.len()].copy_from_slice(before);
            sums[r] = [lanes.read(&edge[r]), lanes.read(&edge[r][L::WIDTH..])];
        }
    }
    for i in 0..steps.count {
        // SAFETY: the caller's promise, and `i` is below the count.
        unsafe {
            let at = steps.weights.add(i * 2 * L::WIDTH);
            let weights = [E::load(lanes, at), E::load(lanes, at.add(L::WIDTH))];
            for r in 0..R {
                let value = lanes.splat(*steps.values.add((row + r) * steps.k + i));
                sums[r][0] = lanes.fma(value, weights[0], sums[r][0]);
                sums[r][1] = lanes.fma(value, weights[1], sums[r][1]);
            }
        }
    }
    for r in 0..R {
        lanes.write(&mut edge[r], sums[r][0]);
        lanes.write(&mut edge[r][L::WIDTH..], sums[r][1]);
        // SAFETY: as above.
        let place = unsafe { panel.span.place(panel.out, row + r, panel.panel) };
        place.copy_from_slice(&edge[r][..place.len()]);
    }
}
