//! How windows lie over a tensor of up to three spatial dimensions, channels last.

use std::ops::Range;

/// Sizes of a convolution or of pooling. Fewer spatial dimensions than three begin with sizes of 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Geometry {
    pub batch: usize,
    /// The input's spatial sizes.
    pub input: [usize; 3],
    pub channels_in: usize,
    /// The output's spatial sizes.
    pub output: [usize; 3],
    pub channels_out: usize,
    pub kernel: [usize; 3],
    pub strides: [usize; 3],
    pub dilation: [usize; 3],
    /// Zeros before the input along each dimension; those after it follow from the output's size.
    pub before: [usize; 3],
    pub groups: usize,
}

impl Geometry {
    pub fn taps(&self) -> usize {
        self.kernel.iter().product()
    }

    pub fn input_pixels(&self) -> usize {
        self.input.iter().product()
    }

    pub fn output_pixels(&self) -> usize {
        self.output.iter().product()
    }

    /// Elements of one input image.
    pub fn input_len(&self) -> usize {
        self.input_pixels() * self.channels_in
    }

    /// Elements of one output image.
    pub fn output_len(&self) -> usize {
        self.output_pixels() * self.channels_out
    }

    /// Input elements that one output value of a group sees.
    pub fn window(&self) -> usize {
        self.taps() * self.channels_in / self.groups
    }

    /// The output pixel's coordinates.
    #[inline(always)]
    pub(crate) fn coordinates(&self, pixel: usize) -> [usize; 3] {
        let [_, height, width] = self.output;
        [pixel / (height * width), pixel / width % height, pixel % width]
    }

    /// The input coordinate that tap `tap` of axis `axis` sees from output coordinate `at`, if it isn't padding.
    #[inline(always)]
    pub(crate) fn source(&self, axis: usize, at: usize, tap: usize) -> Option<usize> {
        let place = at * self.strides[axis] + tap * self.dilation[axis];
        let place = place.checked_sub(self.before[axis])?;
        (place < self.input[axis]).then_some(place)
    }

    /// Coordinates of the output pixels `pixels`, in their order.
    #[inline(always)]
    pub(crate) fn walk(&self, pixels: Range<usize>) -> impl Iterator<Item = [usize; 3]> {
        let [_, height, width] = self.output;
        let mut next = self.coordinates(pixels.start);
        pixels.map(move |_| {
            let at = next;
            next[2] += 1;
            if next[2] == width {
                next = [next[0], next[1] + 1, 0];
            }
            if next[1] == height {
                next = [next[0] + 1, 0, next[2]];
            }
            at
        })
    }

    /// The taps that see a pixel from output pixel `at`, in their order, with that pixel.
    #[inline(always)]
    pub(crate) fn taps_at(&self, at: [usize; 3]) -> TapsAt<'_> {
        TapsAt { geometry: self, at, next: [0; 3], number: 0 }
    }

    /// The input pixel that a tap sees from output pixel `at`; none for padding.
    #[cfg(test)]
    #[inline(always)]
    pub(crate) fn tap_pixel(&self, at: [usize; 3], tap: usize) -> Option<usize> {
        let [_, kernel_height, kernel_width] = self.kernel;
        let taps =
            [tap / (kernel_height * kernel_width), tap / kernel_width % kernel_height, tap % kernel_width];
        let mut pixel = 0;
        for axis in 0..3 {
            pixel = pixel * self.input[axis] + self.source(axis, at[axis], taps[axis])?;
        }
        Some(pixel)
    }
}

/// See [`Geometry::taps_at`]. An iterator, since a closure may stay a function that lacks the caller's instruction set.
pub(crate) struct TapsAt<'a> {
    geometry: &'a Geometry,
    at: [usize; 3],
    next: [usize; 3],
    number: usize,
}

impl Iterator for TapsAt<'_> {
    type Item = (usize, usize);

    #[inline(always)]
    fn next(&mut self) -> Option<(usize, usize)> {
        let TapsAt { geometry, at, .. } = *self;
        let [depth, height, width] = geometry.kernel;
        while self.next[0] < depth {
            let ([z, y, x], tap) = (self.next, self.number);
            self.number += 1;
            self.next[2] += 1;
            if self.next[2] == width {
                self.next = [z, y + 1, 0];
                if y + 1 == height {
                    self.next = [z + 1, 0, 0];
                }
            }
            let Some(plane) = geometry.source(0, at[0], z) else { continue };
            let Some(line) = geometry.source(1, at[1], y) else { continue };
            let Some(column) = geometry.source(2, at[2], x) else { continue };
            return Some((tap, (plane * geometry.input[1] + line) * geometry.input[2] + column));
        }
        None
    }
}
