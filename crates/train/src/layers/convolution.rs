//! `Conv1D`, `Conv2D`, `Conv3D` and `Conv2DTranspose`, channels last.

use serde::{Deserialize, Serialize};

use super::{Call, Layer, Weight, argument_error, arguments, described, one_shape};
use crate::activations::Activation;
use crate::error::Result;
use crate::graph::{Id, Windows};
use crate::initializers::Initializer;
use crate::penalties::{Constraint, Regularizer};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Padding {
    #[default]
    Valid,
    Same,
    /// Zeros before only, so that no output sees what comes later; one dimension.
    Causal,
}

impl Padding {
    /// Zeros before and after a dimension, as TensorFlow counts them.
    pub(crate) fn of(self, size: usize, kernel: usize, stride: usize, dilation: usize) -> (usize, usize) {
        let reach = kernel.saturating_sub(1) * dilation + 1;
        match self {
            Padding::Valid => (0, 0),
            Padding::Same => {
                let outputs = size.div_ceil(stride.max(1));
                let total = (outputs.saturating_sub(1) * stride + reach).saturating_sub(size);
                (total / 2, total - total / 2)
            }
            Padding::Causal => (reach - 1, 0),
        }
    }

    pub(crate) fn windows(
        self,
        sizes: &[usize],
        kernel: &[usize],
        strides: &[usize],
        dilation: &[usize],
    ) -> Windows {
        let padding =
            (0..sizes.len()).map(|i| self.of(sizes[i], kernel[i], strides[i], dilation[i])).collect();
        Windows { kernel: kernel.to_vec(), strides: strides.to_vec(), dilation: dilation.to_vec(), padding }
    }
}

/// One size for all dimensions, or one each.
pub trait Sizes<const N: usize> {
    fn sizes(self) -> Vec<usize>;
}

impl<const N: usize> Sizes<N> for usize {
    fn sizes(self) -> Vec<usize> {
        vec![self; N]
    }
}

impl<const N: usize> Sizes<N> for [usize; N] {
    fn sizes(self) -> Vec<usize> {
        self.to_vec()
    }
}

/// Three spellings of what has one argument for each dimension.
pub(crate) fn check_sizes(place: &str, argument: &'static str, sizes: &[usize], rank: usize) -> Result<()> {
    if sizes.len() == rank && sizes.iter().all(|&size| size > 0) {
        return Ok(());
    }
    Err(argument_error(place, argument, &format!("{rank} sizes of 1 or more"), format!("{sizes:?}")))
}

macro_rules! convolution {
    ($($(#[$doc:meta])* $name:ident $class:literal $rank:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, Serialize, Deserialize)]
        #[serde(default)]
        pub struct $name {
            pub filters: usize,
            pub kernel_size: Vec<usize>,
            pub strides: Vec<usize>,
            pub padding: Padding,
            pub dilation_rate: Vec<usize>,
            pub groups: usize,
            pub activation: Activation,
            pub use_bias: bool,
            pub kernel_initializer: Initializer,
            pub bias_initializer: Initializer,
            pub kernel_regularizer: Option<Regularizer>,
            pub bias_regularizer: Option<Regularizer>,
            pub kernel_constraint: Option<Constraint>,
            pub bias_constraint: Option<Constraint>,
        }

        impl Default for $name {
            fn default() -> $name {
                $name {
                    filters: 1,
                    kernel_size: vec![1; $rank],
                    strides: vec![1; $rank],
                    padding: Padding::Valid,
                    dilation_rate: vec![1; $rank],
                    groups: 1,
                    activation: Activation::Linear,
                    use_bias: true,
                    kernel_initializer: Initializer::GlorotUniform {},
                    bias_initializer: Initializer::Zeros {},
                    kernel_regularizer: None,
                    bias_regularizer: None,
                    kernel_constraint: None,
                    bias_constraint: None,
                }
            }
        }

        impl $name {
            pub fn new(filters: usize, kernel_size: impl Sizes<$rank>) -> $name {
                $name { filters, kernel_size: kernel_size.sizes(), ..$name::default() }
            }

            pub fn strides(mut self, strides: impl Sizes<$rank>) -> $name {
                self.strides = strides.sizes();
                self
            }

            pub fn dilation_rate(mut self, dilation_rate: impl Sizes<$rank>) -> $name {
                self.dilation_rate = dilation_rate.sizes();
                self
            }

            arguments! {
                padding: Padding,
                groups: usize,
                activation: Activation,
                use_bias: bool,
                kernel_initializer: Initializer,
                bias_initializer: Initializer,
                kernel_regularizer: Option<Regularizer>,
                bias_regularizer: Option<Regularizer>,
                kernel_constraint: Option<Constraint>,
                bias_constraint: Option<Constraint>,
            }
        }

        impl Layer for $name {
            described!($class);

            fn weights(&self, inputs: &[Vec<usize>]) -> Result<Vec<Weight>> {
                let shape = one_shape($class, inputs, $rank + 2)?;
                check_sizes($class, "kernel_size", &self.kernel_size, $rank)?;
                check_sizes($class, "strides", &self.strides, $rank)?;
                check_sizes($class, "dilation_rate", &self.dilation_rate, $rank)?;
                let channels = shape[shape.len() - 1];
                if self.groups == 0 || channels % self.groups != 0 || self.filters % self.groups != 0 {
                    let expected = format!("a divisor of {channels} channels and {} filters", self.filters);
                    return Err(argument_error($class, "groups", &expected, self.groups.to_string()));
                }
                let mut kernel = self.kernel_size.clone();
                kernel.extend([channels / self.groups, self.filters]);
                let kernel = Weight::new("kernel", kernel, &self.kernel_initializer);
                let mut weights = vec![kernel.held(&self.kernel_regularizer, &self.kernel_constraint)];
                if self.use_bias {
                    let bias = Weight::new("bias", [self.filters], &self.bias_initializer);
                    weights.push(bias.held(&self.bias_regularizer, &self.bias_constraint));
                }
                Ok(weights)
            }

            fn call(&self, call: &mut Call<'_>, inputs: &[Id], weights: &[Id]) -> Result<Vec<Id>> {
                let shape = call.graph.shape(inputs[0]).to_vec();
                let sizes = &shape[1..shape.len() - 1];
                let windows = self.padding.windows(sizes, &self.kernel_size, &self.strides, &self.dilation_rate);
                let mut y = call.graph.convolution(inputs[0], weights[0], &windows, self.groups)?;
                if let Some(&bias) = weights.get(1) {
                    y = call.graph.add(y, bias)?;
                }
                Ok(vec![self.activation.apply(call.graph, y)?])
            }
        }
    )*};
}

convolution! {
    /// Convolution over `[batch, steps, channels]`.
    Conv1D "Conv1D" 1;
    /// Convolution over `[batch, height, width, channels]`.
    Conv2D "Conv2D" 2;
    /// Convolution over `[batch, depth, height, width, channels]`.
    Conv3D "Conv3D" 3;
}

/// The transpose of a convolution: each input spreads over a window of outputs.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Conv2DTranspose {
    pub filters: usize,
    pub kernel_size: Vec<usize>,
    pub strides: Vec<usize>,
    pub padding: Padding,
    pub activation: Activation,
    pub use_bias: bool,
    pub kernel_initializer: Initializer,
    pub bias_initializer: Initializer,
}

impl Default for Conv2DTranspose {
    fn default() -> Conv2DTranspose {
        Conv2DTranspose {
            filters: 1,
            kernel_size: vec![1; 2],
            strides: vec![1; 2],
            padding: Padding::Valid,
            activation: Activation::Linear,
            use_bias: true,
            kernel_initializer: Initializer::GlorotUniform {},
            bias_initializer: Initializer::Zeros {},
        }
    }
}

impl Conv2DTranspose {
    pub fn new(filters: usize, kernel_size: impl Sizes<2>) -> Conv2DTranspose {
        Conv2DTranspose { filters, kernel_size: kernel_size.sizes(), ..Conv2DTranspose::default() }
    }

    pub fn strides(mut self, strides: impl Sizes<2>) -> Conv2DTranspose {
        self.strides = strides.sizes();
        self
    }

    arguments! {
        padding: Padding,
        activation: Activation,
        use_bias: bool,
        kernel_initializer: Initializer,
        bias_initializer: Initializer,
    }
}

impl Layer for Conv2DTranspose {
    described!("Conv2DTranspose");

    fn weights(&self, inputs: &[Vec<usize>]) -> Result<Vec<Weight>> {
        let shape = one_shape("Conv2DTranspose", inputs, 4)?;
        check_sizes("Conv2DTranspose", "kernel_size", &self.kernel_size, 2)?;
        check_sizes("Conv2DTranspose", "strides", &self.strides, 2)?;
        let kernel = [self.kernel_size[0], self.kernel_size[1], self.filters, shape[3]];
        let mut weights = vec![Weight::new("kernel", kernel, &self.kernel_initializer)];
        if self.use_bias {
            weights.push(Weight::new("bias", [self.filters], &self.bias_initializer));
        }
        Ok(weights)
    }

    fn call(&self, call: &mut Call<'_>, inputs: &[Id], weights: &[Id]) -> Result<Vec<Id>> {
        let mut shape = call.graph.shape(inputs[0]).to_vec();
        for i in 0..2 {
            let grown = shape[i + 1] * self.strides[i];
            let more = self.kernel_size[i].saturating_sub(self.strides[i]);
            shape[i + 1] = if self.padding == Padding::Same { grown } else { grown + more };
        }
        shape[3] = self.filters;
        let windows = self.padding.windows(&shape[1..3], &self.kernel_size, &self.strides, &[1, 1]);
        let mut y = call.graph.convolution_transposed(inputs[0], weights[0], &windows, 1, &shape)?;
        if let Some(&bias) = weights.get(1) {
            y = call.graph.add(y, bias)?;
        }
        Ok(vec![self.activation.apply(call.graph, y)?])
    }
}
