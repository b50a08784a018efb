//! Convolutions where every channel has a kernel of its own: element by element along the channels.

use std::ops::Range;

use super::Geometry;

/// # Safety
/// `x`, `w` and `y` are an image, the kernel `[taps, channels]` and an image, and `pixels` are of the latter.
#[inline(always)]
pub(super) unsafe fn output(
    geometry: &Geometry,
    x: *const f32,
    w: *const f32,
    y: *mut f32,
    pixels: Range<usize>,
) {
    let channels = geometry.channels_in;
    for (at, pixel) in geometry.walk(pixels.clone()).zip(pixels) {
        // SAFETY: the pixel and the taps' pixels lie inside the images.
        unsafe {
            let to = std::slice::from_raw_parts_mut(y.add(pixel * channels), channels);
            to.fill(0.0);
            for (tap, source) in geometry.taps_at(at) {
                let from = std::slice::from_raw_parts(x.add(source * channels), channels);
                let weights = std::slice::from_raw_parts(w.add(tap * channels), channels);
                for i in 0..channels {
                    to[i] += from[i] * weights[i];
                }
            }
        }
    }
}

/// # Safety
/// As [`output`]; `x` is written.
#[inline(always)]
pub(super) unsafe fn input(geometry: &Geometry, x: *mut f32, w: *const f32, y: *const f32) {
    let channels = geometry.channels_in;
    // SAFETY: an image.
    unsafe { std::slice::from_raw_parts_mut(x, geometry.input_len()).fill(0.0) };
    for (pixel, at) in geometry.walk(0..geometry.output_pixels()).enumerate() {
        for (tap, source) in geometry.taps_at(at) {
            // SAFETY: the pixel and the tap's pixel lie inside the images.
            unsafe {
                let to = std::slice::from_raw_parts_mut(x.add(source * channels), channels);
                let from = std::slice::from_raw_parts(y.add(pixel * channels), channels);
                let weights = std::slice::from_raw_parts(w.add(tap * channels), channels);
                for i in 0..channels {
                    to[i] += from[i] * weights[i];
                }
            }
        }
    }
}

/// Adds an image's part to the kernel's gradient.
///
/// # Safety
/// As [`output`]; `w` is added to.
#[inline(always)]
pub(super) unsafe fn kernel(geometry: &Geometry, x: *const f32, w: *mut f32, y: *const f32) {
    let channels = geometry.channels_in;
    for (pixel, at) in geometry.walk(0..geometry.output_pixels()).enumerate() {
        for (tap, source) in geometry.taps_at(at) {
            // SAFETY: the pixel and the tap's pixel lie inside the images.
            unsafe {
                let from = std::slice::from_raw_parts(x.add(source * channels), channels);
                let gradient = std::slice::from_raw_parts(y.add(pixel * channels), channels);
                let to = std::slice::from_raw_parts_mut(w.add(tap * channels), channels);
                for i in 0..channels {
                    to[i] += from[i] * gradient[i];
                }
            }
        }
    }
}
