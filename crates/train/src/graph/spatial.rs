//! Convolutions and pooling: how windows lie over a tensor, and the operations over them.

use kernels::convolution::pooling::{Pooling, TAPS_MAX};
use kernels::convolution::{Geometry, Target};

use super::{Function, Graph, Id, Op};
use crate::error::Result;

/// Windows over one to three spatial dimensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Windows {
    pub kernel: Vec<usize>,
    pub strides: Vec<usize>,
    pub dilation: Vec<usize>,
    /// Zeros before and after each dimension.
    pub padding: Vec<(usize, usize)>,
}

impl Windows {
    /// Sizes of the output for an input with these spatial sizes, if a window fits.
    pub fn output(&self, input: &[usize]) -> Option<Vec<usize>> {
        (0..input.len())
            .map(|i| {
                let reach = (self.kernel[i].checked_sub(1)?) * self.dilation[i] + 1;
                let padded = input[i] + self.padding[i].0 + self.padding[i].1;
                Some(padded.checked_sub(reach)? / self.strides[i].max(1) + 1)
            })
            .collect()
    }

    fn geometry(&self, x: &[usize], channels_out: usize, groups: usize) -> Option<Geometry> {
        let rank = x.len().checked_sub(2)?;
        let agrees = [self.kernel.len(), self.strides.len(), self.dilation.len(), self.padding.len()];
        if rank == 0 || rank > 3 || agrees != [rank; 4] {
            return None;
        }
        let output = self.output(&x[1..=rank])?;
        let three = |values: &[usize], fill: usize| {
            let mut all = [fill; 3];
            all[3 - rank..].copy_from_slice(values);
            all
        };
        let before: Vec<usize> = self.padding.iter().map(|(before, _)| *before).collect();
        Some(Geometry {
            batch: x[0],
            input: three(&x[1..=rank], 1),
            channels_in: x[rank + 1],
            output: three(&output, 1),
            channels_out,
            kernel: three(&self.kernel, 1),
            strides: three(&self.strides, 1),
            dilation: three(&self.dilation, 1),
            before: three(&before, 0),
            groups,
        })
    }
}

impl Graph {
    /// `x` `[batch, .., channels]` with `w` `[kernel.., channels / groups, filters]`.
    pub fn convolution(&mut self, x: Id, w: Id, windows: &Windows, groups: usize) -> Result<Id> {
        let (from, kernel) = (self.shape(x).to_vec(), self.shape(w).to_vec());
        let rank = from.len().saturating_sub(2);
        let filters = kernel.last().copied().unwrap_or(0);
        let fits = groups > 0
            && kernel.len() == from.len()
            && kernel[..rank] == windows.kernel[..]
            && kernel[rank] * groups == from[rank + 1]
            && filters % groups == 0;
        let geometry = windows.geometry(&from, filters, groups).filter(|_| fits);
        let Some(geometry) = geometry else {
            let expected =
                "[batch, .., channels] and [kernel.., channels / groups, filters] with room for a window";
            return Err(self.shape_error("convolution", expected, &[x, w]));
        };
        let pointwise = geometry.taps() == 1
            && geometry.strides == [1; 3]
            && windows.padding.iter().all(|&padding| padding == (0, 0));
        let mut shape = from.clone();
        shape[rank + 1] = filters;
        if pointwise && groups == 1 {
            let pixels = from[..=rank].iter().product();
            let flat = self.reshape(x, &[pixels, from[rank + 1]])?;
            let matrix = self.reshape(w, &[from[rank + 1], filters])?;
            let y = self.matmul(flat, matrix)?;
            return self.reshape(y, &shape);
        }
        if !kernels::convolution::Convolution::fits(&geometry) {
            let expected = "windows of fewer than 130,000 values with their filters";
            return Err(self.shape_error("convolution", expected, &[x, w]));
        }
        shape[1..=rank].copy_from_slice(&geometry.output[3 - rank..]);
        let op = Op::Convolution { target: Target::Output, geometry };
        Ok(self.push(op, vec![x, w], shape))
    }

    /// The gradient of [`Graph::convolution`] for its input of shape `to`: a transposed convolution of `y` with `w`.
    pub fn convolution_transposed(
        &mut self,
        y: Id,
        w: Id,
        windows: &Windows,
        groups: usize,
        to: &[usize],
    ) -> Result<Id> {
        let (from, kernel) = (self.shape(y).to_vec(), self.shape(w).to_vec());
        let filters = kernel.last().copied().unwrap_or(0);
        let geometry = windows.geometry(to, filters, groups).filter(|geometry| {
            let rank = to.len() - 2;
            kernel.len() == to.len()
                && kernel[..rank] == windows.kernel[..]
                && from.len() == to.len()
                && from[0] == to[0]
                && from[rank + 1] == filters
                && from[1..=rank] == geometry.output[3 - rank..]
                && kernel[rank] * groups == to[rank + 1]
        });
        let Some(geometry) = geometry else {
            let expected = format!("what a convolution of {to:?} yields, and its kernel");
            return Err(self.shape_error("transposed convolution", expected, &[y, w]));
        };
        let op = Op::Convolution { target: Target::Input, geometry };
        Ok(self.push(op, vec![w, y], to.to_vec()))
    }

    fn pooled(&mut self, x: Id, windows: &Windows) -> Result<(Geometry, Vec<usize>)> {
        let mut shape = self.shape(x).to_vec();
        let channels = shape.last().copied().unwrap_or(0);
        let geometry = windows.geometry(&shape, channels, 1).filter(|geometry| geometry.taps() <= TAPS_MAX);
        let Some(geometry) = geometry else {
            let expected =
                format!("[batch, .., channels] with room for a window of at most {TAPS_MAX} values");
            return Err(self.shape_error("pooling", expected, &[x]));
        };
        let rank = shape.len() - 2;
        shape[1..=rank].copy_from_slice(&geometry.output[3 - rank..]);
        Ok((geometry, shape))
    }

    /// The greatest of each window, padding not counted. What rises with each value (a bias, or ReLU) comes after it
    /// instead of before: the same numbers, of which there are fewer then.
    pub fn max_pool(&mut self, x: Id, windows: &Windows) -> Result<Id> {
        if let Some((function, inner, by_channel)) = self.rising(x) {
            let pooled = self.max_pool(inner, windows)?;
            return self.map2(function, pooled, by_channel);
        }
        let (geometry, shape) = self.pooled(x, windows)?;
        Ok(self.push(Op::Pool { pooling: Pooling::Take, geometry }, vec![x, x], shape))
    }

    /// The function, the operand and one value for each channel, where `x` is that function of them and rises with the
    /// operand.
    fn rising(&self, x: Id) -> Option<(Function, Id, Id)> {
        let node = self.node(x);
        let Op::Map(function @ (Function::Add | Function::Max | Function::Min)) = node.op else {
            return None;
        };
        [(0, 1), (1, 0)].into_iter().find_map(|(inner, other)| {
            let broadcast = self.node(node.inputs[other]);
            let by_channel = *broadcast.inputs.first()?;
            let (_, others) = self.shape(by_channel).split_last()?;
            let is_one = broadcast.op == Op::Broadcast && others.iter().all(|&size| size == 1);
            is_one.then_some((function, node.inputs[inner], by_channel))
        })
    }

    /// The sum of each window.
    pub fn sum_pool(&mut self, x: Id, windows: &Windows) -> Result<Id> {
        let (geometry, shape) = self.pooled(x, windows)?;
        Ok(self.push(Op::Pool { pooling: Pooling::Sum, geometry }, vec![x], shape))
    }
}
