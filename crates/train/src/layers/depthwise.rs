//! `DepthwiseConv2D` and `SeparableConv2D`: a kernel for each channel, and a mixture of channels after it.

use serde::{Deserialize, Serialize};

use super::convolution::{Sizes, check_sizes};
use super::{Call, Layer, Padding, Weight, arguments, described, one_shape};
use crate::activations::Activation;
use crate::error::Result;
use crate::graph::{Id, Windows};
use crate::initializers::Initializer;

macro_rules! depthwise {
    ($name:ident { $($extra:ident: $type:ty = $default:expr),* $(,)? }) => {
        #[derive(Clone, Debug, Serialize, Deserialize)]
        #[serde(default)]
        pub struct $name {
            pub kernel_size: Vec<usize>,
            pub strides: Vec<usize>,
            pub padding: Padding,
            pub depth_multiplier: usize,
            pub dilation_rate: Vec<usize>,
            pub activation: Activation,
            pub use_bias: bool,
            pub depthwise_initializer: Initializer,
            pub bias_initializer: Initializer,
            $(pub $extra: $type,)*
        }

        impl Default for $name {
            fn default() -> $name {
                $name {
                    kernel_size: vec![1; 2],
                    strides: vec![1; 2],
                    padding: Padding::Valid,
                    depth_multiplier: 1,
                    dilation_rate: vec![1; 2],
                    activation: Activation::Linear,
                    use_bias: true,
                    depthwise_initializer: Initializer::GlorotUniform {},
                    bias_initializer: Initializer::Zeros {},
                    $($extra: $default,)*
                }
            }
        }

        impl $name {
            pub fn strides(mut self, strides: impl Sizes<2>) -> $name {
                self.strides = strides.sizes();
                self
            }

            pub fn dilation_rate(mut self, dilation_rate: impl Sizes<2>) -> $name {
                self.dilation_rate = dilation_rate.sizes();
                self
            }

            arguments! {
                padding: Padding,
                depth_multiplier: usize,
                activation: Activation,
                use_bias: bool,
                depthwise_initializer: Initializer,
                bias_initializer: Initializer,
            }

            fn windows(&self, shape: &[usize]) -> Windows {
                self.padding.windows(&shape[1..3], &self.kernel_size, &self.strides, &self.dilation_rate)
            }

            fn check(&self, class: &str) -> Result<()> {
                check_sizes(class, "kernel_size", &self.kernel_size, 2)?;
                check_sizes(class, "strides", &self.strides, 2)?;
                check_sizes(class, "dilation_rate", &self.dilation_rate, 2)?;
                check_sizes(class, "depth_multiplier", &[self.depth_multiplier], 1)
            }
        }
    };
}

depthwise!(DepthwiseConv2D {});
depthwise!(SeparableConv2D {
    filters: usize = 1,
    pointwise_initializer: Initializer = Initializer::GlorotUniform {},
});

impl DepthwiseConv2D {
    pub fn new(kernel_size: impl Sizes<2>) -> DepthwiseConv2D {
        DepthwiseConv2D { kernel_size: kernel_size.sizes(), ..DepthwiseConv2D::default() }
    }
}

impl SeparableConv2D {
    pub fn new(filters: usize, kernel_size: impl Sizes<2>) -> SeparableConv2D {
        SeparableConv2D { filters, kernel_size: kernel_size.sizes(), ..SeparableConv2D::default() }
    }
}

/// Each channel `multiplier` times, with a kernel each.
fn depthwise(call: &mut Call<'_>, x: Id, kernel: Id, windows: &Windows, multiplier: usize) -> Result<Id> {
    let graph = &mut *call.graph;
    let shape = graph.shape(x).to_vec();
    let channels = shape[3] * multiplier;
    let mut x = x;
    if multiplier > 1 {
        let apart = graph.reshape(x, &[shape[0], shape[1], shape[2], shape[3], 1])?;
        let repeated = graph.broadcast(apart, &[shape[0], shape[1], shape[2], shape[3], multiplier])?;
        x = graph.reshape(repeated, &[shape[0], shape[1], shape[2], channels])?;
    }
    let kernel = graph.reshape(kernel, &[windows.kernel[0], windows.kernel[1], 1, channels])?;
    graph.convolution(x, kernel, windows, channels)
}

impl Layer for DepthwiseConv2D {
    described!("DepthwiseConv2D");

    fn weights(&self, inputs: &[Vec<usize>]) -> Result<Vec<Weight>> {
        let shape = one_shape("DepthwiseConv2D", inputs, 4)?;
        self.check("DepthwiseConv2D")?;
        let kernel = [self.kernel_size[0], self.kernel_size[1], shape[3], self.depth_multiplier];
        let mut weights = vec![Weight::new("kernel", kernel, &self.depthwise_initializer)];
        if self.use_bias {
            weights.push(Weight::new("bias", [shape[3] * self.depth_multiplier], &self.bias_initializer));
        }
        Ok(weights)
    }

    fn call(&self, call: &mut Call<'_>, inputs: &[Id], weights: &[Id]) -> Result<Vec<Id>> {
        let shape = call.graph.shape(inputs[0]).to_vec();
        let windows = self.windows(&shape);
        let mut y = depthwise(call, inputs[0], weights[0], &windows, self.depth_multiplier)?;
        if let Some(&bias) = weights.get(1) {
            y = call.graph.add(y, bias)?;
        }
        Ok(vec![self.activation.apply(call.graph, y)?])
    }
}

impl Layer for SeparableConv2D {
    described!("SeparableConv2D");

    fn weights(&self, inputs: &[Vec<usize>]) -> Result<Vec<Weight>> {
        let shape = one_shape("SeparableConv2D", inputs, 4)?;
        self.check("SeparableConv2D")?;
        let kernel = [self.kernel_size[0], self.kernel_size[1], shape[3], self.depth_multiplier];
        let pointwise = [1, 1, shape[3] * self.depth_multiplier, self.filters];
        let mut weights = vec![
            Weight::new("depthwise_kernel", kernel, &self.depthwise_initializer),
            Weight::new("pointwise_kernel", pointwise, &self.pointwise_initializer),
        ];
        if self.use_bias {
            weights.push(Weight::new("bias", [self.filters], &self.bias_initializer));
        }
        Ok(weights)
    }

    fn call(&self, call: &mut Call<'_>, inputs: &[Id], weights: &[Id]) -> Result<Vec<Id>> {
        let shape = call.graph.shape(inputs[0]).to_vec();
        let windows = self.windows(&shape);
        let y = depthwise(call, inputs[0], weights[0], &windows, self.depth_multiplier)?;
        let one = Padding::Valid.windows(&[1, 1], &[1, 1], &[1, 1], &[1, 1]);
        let mut y = call.graph.convolution(y, weights[1], &one, 1)?;
        if let Some(&bias) = weights.get(2) {
            y = call.graph.add(y, bias)?;
        }
        Ok(vec![self.activation.apply(call.graph, y)?])
    }
}
