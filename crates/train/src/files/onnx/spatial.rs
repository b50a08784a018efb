//! Convolutions and pooling as ONNX operators. Those over three dimensions become sums, or windows of windows, of what goes
//! over two: not every runtime has more.

use formats::onnx::AttributeValue;
use kernels::convolution::pooling::Pooling;
use kernels::convolution::{Geometry, Target};

use super::lower::{Layout, Lowering, ints, transposed};
use super::{Size, failed};
use crate::error::Result;
use crate::graph::Id;

/// Windows over the last `N` dimensions.
struct Window<'a> {
    geometry: &'a Geometry,
    /// The first dimension of the geometry's three that counts.
    from: usize,
}

impl Window<'_> {
    fn of(&self, values: &[usize; 3]) -> AttributeValue {
        ints(&values[self.from..])
    }

    /// Zeros after each dimension that the last window reaches; less than none where it doesn't reach the end.
    fn after(&self) -> Vec<i64> {
        let g = self.geometry;
        let after = |i: usize| {
            let reach = (g.output[i] - 1) * g.strides[i] + (g.kernel[i] - 1) * g.dilation[i] + 1;
            reach as i64 - (g.before[i] + g.input[i]) as i64
        };
        (self.from..3).map(after).collect()
    }

    fn pads(&self) -> AttributeValue {
        let before = self.geometry.before[self.from..].iter().map(|&zeros| zeros as i64);
        AttributeValue::Ints(before.chain(self.after().iter().map(|&zeros| zeros.max(0))).collect())
    }

    fn convolution(&self) -> Vec<(&'static str, AttributeValue)> {
        vec![
            ("kernel_shape", self.of(&self.geometry.kernel)),
            ("strides", self.of(&self.geometry.strides)),
            ("dilations", self.of(&self.geometry.dilation)),
            ("group", AttributeValue::Int(self.geometry.groups as i64)),
            ("pads", self.pads()),
        ]
    }
}

impl Lowering<'_> {
    pub(super) fn convolution(
        &mut self,
        id: Id,
        target: Target,
        geometry: &Geometry,
    ) -> Result<(Layout, String)> {
        let node = self.graph.node(id);
        let rank = node.shape.len();
        let window = Window { geometry, from: 5 - rank };
        let (one, other) = (node.inputs[0], node.inputs[1]);
        match target {
            Target::Output if rank == 5 => {
                let name = self.deep_convolution(one, other, geometry)?;
                Ok((Layout::Last, self.reshaped(&name, &self.sizes[id.index()].to_vec())))
            }
            Target::Output => {
                // [taps.., channels / groups, filters] to [filters, channels / groups, taps..]
                let axes = [&[rank - 1, rank - 2][..], &(0..rank - 2).collect::<Vec<_>>()].concat();
                let (x, w) = (self.first(one)?, self.constant_named(other, &axes)?);
                Ok((Layout::First, self.out.node("Conv", &[&x, &w], &window.convolution())))
            }
            Target::Input if geometry.groups == 1 && rank < 5 => {
                let axes = [&[rank - 1, rank - 2][..], &(0..rank - 2).collect::<Vec<_>>()].concat();
                let (w, y) = (self.constant_named(one, &axes)?, self.first(other)?);
                let after = window.after();
                let beyond = after.iter().map(|&zeros| (-zeros).max(0)).collect();
                let mut attributes = window.convolution();
                attributes.push(("output_padding", AttributeValue::Ints(beyond)));
                Ok((Layout::First, self.out.node("ConvTranspose", &[&y, &w], &attributes)))
            }
            _ => Err(failed("the gradient of a kernel is no part of a prediction")),
        }
    }

    /// A convolution over depth, height and width: one over height and width for each tap of the depth, of the slices
    /// that it sees, added up. The result is `[batch * depth, height, width, filters]`.
    fn deep_convolution(&mut self, x: Id, w: Id, geometry: &Geometry) -> Result<String> {
        let Some(bits) = self.constant(w) else { return Err(failed("a kernel that isn't a weight")) };
        let shape = self.graph.shape(w).to_vec();
        let values: Vec<f32> = bits.iter().map(|&bits| f32::from_bits(bits)).collect();
        let padded = self.padded_depth(x, geometry)?;
        let flat = Geometry { before: [0, geometry.before[1], geometry.before[2]], ..*geometry };
        let window = Window { geometry: &flat, from: 1 };
        let [depth, height, width] = geometry.input;
        let seen = geometry.output[0];
        let mut sum: Option<String> = None;
        for (tap, values) in values.chunks_exact(shape[1..].iter().product()).enumerate() {
            let (start, step) = (tap * geometry.dilation[0], geometry.strides[0]);
            let end = start + (seen - 1) * step + 1;
            let mut slices = padded.clone();
            if geometry.kernel[0] != 1 || step != 1 || seen != depth {
                slices = self.sliced(&padded, [&[start as i64], &[end as i64], &[1], &[step as i64]]);
            }
            let sizes = [
                Size::Samples(seen),
                Size::Fixed(height),
                Size::Fixed(width),
                Size::Fixed(geometry.channels_in),
            ];
            let slices = self.reshaped(&slices, &sizes);
            let slices = self.out.node("Transpose", &[&slices], &[("perm", ints(&[0, 3, 1, 2]))]);
            let kernel = transposed(values, &shape[1..], &[3, 2, 0, 1]);
            let kernel = self.out.floats("kernel", &[shape[4], shape[3], shape[1], shape[2]], &kernel);
            let part = self.out.node("Conv", &[&slices, &kernel], &window.convolution());
            sum = Some(match sum {
                Some(sum) => self.out.node("Add", &[&sum, &part], &[]),
                None => part,
            });
        }
        let sum = sum.ok_or_else(|| failed("a kernel without taps"))?;
        Ok(self.out.node("Transpose", &[&sum], &[("perm", ints(&[0, 2, 3, 1]))]))
    }

    fn padded_depth(&mut self, x: Id, geometry: &Geometry) -> Result<String> {
        let x = self.last(x)?;
        let (before, after) = (geometry.before[0] as i64, Window { geometry, from: 0 }.after()[0].max(0));
        if before == 0 && after == 0 {
            return Ok(x);
        }
        let pads = self.out.ints(&[0, before, 0, 0, 0, 0, after, 0, 0, 0]);
        Ok(self.out.node("Pad", &[&x, &pads], &[]))
    }

    pub(super) fn pool(&mut self, id: Id, pooling: Pooling, geometry: &Geometry) -> Result<(Layout, String)> {
        let node = self.graph.node(id);
        let max = match pooling {
            Pooling::Sum => false,
            Pooling::Take if node.inputs[0] == node.inputs[1] => true,
            _ => return Err(failed("the gradient of pooling is no part of a prediction")),
        };
        let rank = node.shape.len();
        let window = Window { geometry, from: 5 - rank };
        if rank < 5 {
            let x = self.first(node.inputs[0])?;
            return Ok((Layout::First, self.pooled(&x, &window, max)));
        }
        // Windows over height and width, then windows of these over depth.
        let [depth, height, width] = geometry.input.map(Size::Fixed);
        let [_, rows, columns] = geometry.output;
        let channels = Size::Fixed(geometry.channels_in);
        let Size::Fixed(slices) = depth else { return Err(failed("a depth that follows the batch")) };
        let x = self.last(node.inputs[0])?;
        let x = self.reshaped(&x, &[Size::Samples(slices), height, width, channels]);
        let x = self.out.node("Transpose", &[&x], &[("perm", ints(&[0, 3, 1, 2]))]);
        let x = self.pooled(&x, &Window { geometry, from: 1 }, max);
        let x = self.out.node("Transpose", &[&x], &[("perm", ints(&[0, 2, 3, 1]))]);
        let x = self.reshaped(&x, &[Size::Samples(1), depth, Size::Fixed(rows * columns), channels]);
        let x = self.out.node("Transpose", &[&x], &[("perm", ints(&[0, 3, 1, 2]))]);
        let over_depth = Geometry {
            input: [1, geometry.input[0], rows * columns],
            output: [1, geometry.output[0], rows * columns],
            kernel: [1, geometry.kernel[0], 1],
            strides: [1, geometry.strides[0], 1],
            dilation: [1, geometry.dilation[0], 1],
            before: [0, geometry.before[0], 0],
            ..*geometry
        };
        let x = self.pooled(&x, &Window { geometry: &over_depth, from: 1 }, max);
        let x = self.out.node("Transpose", &[&x], &[("perm", ints(&[0, 2, 3, 1]))]);
        Ok((Layout::Last, self.reshaped(&x, &self.sizes[id.index()].to_vec())))
    }

    /// The greatest or the sum of each window of `x`, whose channels come first.
    fn pooled(&mut self, x: &str, window: &Window<'_>, max: bool) -> String {
        let mut attributes = vec![
            ("kernel_shape", window.of(&window.geometry.kernel)),
            ("strides", window.of(&window.geometry.strides)),
            ("pads", window.pads()),
        ];
        if max {
            return self.out.node("MaxPool", &[x], &attributes);
        }
        attributes.push(("count_include_pad", AttributeValue::Int(1)));
        let mean = self.out.node("AveragePool", &[x], &attributes);
        let taps: usize = window.geometry.kernel[window.from..].iter().product();
        let taps = self.scalar(taps as f32);
        self.out.node("Mul", &[&mean, &taps], &[])
    }
}
