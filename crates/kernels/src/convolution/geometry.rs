//! How windows lie over a tensor of up to three spatial dimensions, channels last.

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

    /// The input pixel that each tap sees from output pixel `at`; none for padding.
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
