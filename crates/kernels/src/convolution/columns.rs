//! The windows of some output pixels as rows of a matrix, and the sum of such rows back into an image.

use super::geometry::Geometry;

/// A stretch of a window's row: `len` channels-of-pixels at `place` of the image, or padding.
#[inline(always)]
fn stretches(
    geometry: &Geometry,
    at: [usize; 3],
    group: usize,
    mut each: impl FnMut(usize, Option<usize>, usize),
) {
    let channels = geometry.channels_in / geometry.groups;
    let [kernel_depth, kernel_height, kernel_width] = geometry.kernel;
    let [_, height, width] = geometry.input;
    let mut row = 0;
    for z in 0..kernel_depth {
        for y in 0..kernel_height {
            let line = match (geometry.source(0, at[0], z), geometry.source(1, at[1], y)) {
                (Some(z), Some(y)) => Some((z * height + y) * width),
                _ => None,
            };
            let Some(line) = line else {
                each(row, None, kernel_width * channels);
                row += kernel_width * channels;
                continue;
            };
            let start = at[2] * geometry.strides[2];
            let inside = start >= geometry.before[2] && start - geometry.before[2] + kernel_width <= width;
            if inside && geometry.groups == 1 && geometry.dilation[2] == 1 {
                let place = (line + start - geometry.before[2]) * channels;
                each(row, Some(place), kernel_width * channels);
                row += kernel_width * channels;
                continue;
            }
            for x in 0..kernel_width {
                let place = geometry.source(2, at[2], x);
                each(row, place.map(|x| (line + x) * geometry.channels_in + group * channels), channels);
                row += channels;
            }
        }
    }
}

/// Writes the window of the output pixel with coordinates `at` to `to`, as a row of the matrix of windows.
///
/// # Safety
/// `image` has `geometry.input_len()` values, `to` room for `geometry.window()`.
#[inline(always)]
pub(super) unsafe fn window(
    geometry: &Geometry,
    image: *const f32,
    at: [usize; 3],
    group: usize,
    to: *mut f32,
) {
    stretches(geometry, at, group, |row, place, len| {
        // SAFETY: `source` keeps places inside the image, and rows add up to the window.
        unsafe {
            match place {
                Some(place) if len < 16 => (0..len).for_each(|i| *to.add(row + i) = *image.add(place + i)),
                Some(place) => std::ptr::copy_nonoverlapping(image.add(place), to.add(row), len),
                None => std::slice::from_raw_parts_mut(to.add(row), len).fill(0.0),
            }
        }
    });
}

/// Adds a row of the matrix of windows into the image.
///
/// # Safety
/// As [`window`], with the directions swapped.
#[inline(always)]
pub(super) unsafe fn add_window(
    geometry: &Geometry,
    image: *mut f32,
    at: [usize; 3],
    group: usize,
    from: *const f32,
) {
    stretches(geometry, at, group, |row, place, len| {
        let Some(place) = place else { return };
        // SAFETY: as in `window`; the image is this worker's.
        unsafe { (0..len).for_each(|i| *image.add(place + i) += *from.add(row + i)) };
    });
}
