//! What recurrent layers share: inputs are projected for all steps at once, then the state goes step by step.

use std::fmt::Debug;

use super::{Call, Layer};
use crate::error::Result;
use crate::graph::{Graph, Id};

/// Steps of a recurrent layer: each becomes operations of its own.
const STEPS_MAX: usize = 16384;

/// A recurrent layer, as [`super::Bidirectional`] takes it.
pub trait Recurrent: Layer {
    /// The same layer going through steps from the last to the first, or as it does. Either way the output of a masked step is
    /// 0, as in Keras, where steps are returned.
    fn backwards(&self) -> Box<dyn Recurrent>;
    fn forwards(&self) -> Box<dyn Recurrent>;
    /// Keras's default name.
    fn snake_name(&self) -> &'static str;
    fn returns_sequences(&self) -> bool;
}

/// How the steps are gone through and what comes out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Walk {
    /// From the last step to the first.
    pub go_backwards: bool,
    pub return_sequences: bool,
    pub return_state: bool,
    /// Whether the output of a masked step is 0; else it is that of the step before.
    pub zero_output_for_mask: bool,
}

/// Runs `step` over the steps of `projected` `[steps, batch, gates]`, in the order of [`by_steps`]: it takes a step's
/// projection and the states, and yields the states after it, of which the first is the output. A masked step leaves the
/// states as they are.
pub(super) fn walk(
    call: &mut Call<'_>,
    projected: Id,
    units: usize,
    mut states: Vec<Id>,
    walk: Walk,
    mut step: impl FnMut(&mut Graph, Id, &[Id]) -> Result<Vec<Id>>,
) -> Result<Vec<Id>> {
    let shape = call.graph.shape(projected).to_vec();
    let [steps, batch, gates] = [shape[0], shape[1], shape[2]];
    if steps > STEPS_MAX {
        return Err(call.graph.shape_error("recurrence", format!("at most {STEPS_MAX} steps"), &[projected]));
    }
    let mask = match call.mask(0) {
        Some(mask) => Some(mask_by_steps(call.graph, mask, [batch, steps], walk)?),
        None => None,
    };
    let zeros = call.graph.full(0.0, &[batch, units]);
    let mut output = zeros;
    let mut outputs = Vec::with_capacity(steps);
    for index in 0..steps {
        let x = call.graph.slice_axis(projected, 0, index, 1)?;
        let x = call.graph.reshape(x, &[batch, gates])?;
        let next = step(call.graph, x, &states)?;
        (output, states) = match mask {
            None => (next[0], next),
            Some(mask) => {
                let counts = call.graph.slice_axis(mask, 0, index, 1)?;
                let counts = call.graph.reshape(counts, &[batch, 1])?;
                let before = if walk.zero_output_for_mask { zeros } else { output };
                let output = call.graph.select(counts, next[0], before)?;
                let kept = next.iter().zip(&states).map(|(&new, &old)| call.graph.select(counts, new, old));
                (output, kept.collect::<Result<_>>()?)
            }
        };
        if walk.return_sequences {
            outputs.push(call.graph.reshape(output, &[1, batch, units])?);
        }
    }
    let output = match walk.return_sequences {
        true => {
            let sequence = call.graph.concat(&outputs, 0)?;
            call.graph.transpose(sequence, &[1, 0, 2])?
        }
        false => output,
    };
    let mut results = vec![output];
    if walk.return_state {
        results.extend(states);
    }
    Ok(results)
}

/// The states at the beginning: those given as further inputs, or zeros.
pub(super) fn first_states(call: &mut Call<'_>, inputs: &[Id], units: usize, count: usize) -> Vec<Id> {
    let batch = call.graph.shape(inputs[0])[0];
    match inputs.len() - 1 {
        given if given == count => inputs[1..].to_vec(),
        _ => vec![call.graph.full(0.0, &[batch, units]); count],
    }
}

/// Gate `which` of gates of `units` side by side.
pub(super) fn gate(graph: &mut Graph, gates: Id, which: usize, units: usize) -> Result<Id> {
    graph.slice_axis(gates, 1, which * units, units)
}

/// The fields, defaults and setters of a recurrent layer.
macro_rules! recurrent {
    ($name:ident { $($extra:ident: $type:ty = $default:expr),* $(,)? }) => {
        #[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
        #[serde(default)]
        pub struct $name {
            pub units: usize,
            pub activation: crate::activations::Activation,
            pub use_bias: bool,
            pub kernel_initializer: crate::initializers::Initializer,
            pub recurrent_initializer: crate::initializers::Initializer,
            pub bias_initializer: crate::initializers::Initializer,
            pub kernel_regularizer: Option<crate::penalties::Regularizer>,
            pub recurrent_regularizer: Option<crate::penalties::Regularizer>,
            pub dropout: f32,
            pub recurrent_dropout: f32,
            pub return_sequences: bool,
            pub return_state: bool,
            pub go_backwards: bool,
            pub zero_output_for_mask: bool,
            $(pub $extra: $type,)*
        }

        impl Default for $name {
            fn default() -> $name {
                use crate::initializers::Initializer;
                $name {
                    units: 1,
                    activation: crate::activations::Activation::Tanh,
                    use_bias: true,
                    kernel_initializer: Initializer::GlorotUniform {},
                    recurrent_initializer: Initializer::OrthogonalInitializer { gain: 1.0 },
                    bias_initializer: Initializer::Zeros {},
                    kernel_regularizer: None,
                    recurrent_regularizer: None,
                    dropout: 0.0,
                    recurrent_dropout: 0.0,
                    return_sequences: false,
                    return_state: false,
                    go_backwards: false,
                    zero_output_for_mask: false,
                    $($extra: $default,)*
                }
            }
        }

        impl $name {
            pub fn new(units: usize) -> $name {
                $name { units, ..$name::default() }
            }

            crate::layers::arguments! {
                activation: crate::activations::Activation,
                use_bias: bool,
                kernel_initializer: crate::initializers::Initializer,
                recurrent_initializer: crate::initializers::Initializer,
                bias_initializer: crate::initializers::Initializer,
                kernel_regularizer: Option<crate::penalties::Regularizer>,
                recurrent_regularizer: Option<crate::penalties::Regularizer>,
                dropout: f32,
                recurrent_dropout: f32,
                return_sequences: bool,
                return_state: bool,
                go_backwards: bool,
                zero_output_for_mask: bool,
                $($extra: $type,)*
            }

            fn walk(&self) -> crate::layers::recurrent::Walk {
                crate::layers::recurrent::Walk {
                    go_backwards: self.go_backwards,
                    return_sequences: self.return_sequences,
                    return_state: self.return_state,
                    zero_output_for_mask: self.zero_output_for_mask,
                }
            }
        }

        impl crate::layers::Recurrent for $name {
            fn backwards(&self) -> Box<dyn crate::layers::Recurrent> {
                let zero_output_for_mask = self.return_sequences;
                Box::new($name { go_backwards: !self.go_backwards, zero_output_for_mask, ..self.clone() })
            }

            fn forwards(&self) -> Box<dyn crate::layers::Recurrent> {
                Box::new($name { zero_output_for_mask: self.return_sequences, ..self.clone() })
            }

            fn snake_name(&self) -> &'static str {
                $name::SNAKE_NAME
            }

            fn returns_sequences(&self) -> bool {
                self.return_sequences
            }
        }
    };
}
pub(super) use recurrent;

/// `x` `[batch, steps, ..]` as `[steps, batch, ..]`, in the order in which steps are gone through: what belongs to a step
/// lies together, and so does what its gradient leaves.
pub(super) fn by_steps(graph: &mut Graph, x: Id, walk: Walk) -> Result<Id> {
    let x = if walk.go_backwards { graph.reverse(x, &[1])? } else { x };
    graph.transpose(x, &[1, 0, 2])
}

/// A mask `[batch, steps]` as `[steps, batch]`, in that order too.
fn mask_by_steps(graph: &mut Graph, mask: Id, shape: [usize; 2], walk: Walk) -> Result<Id> {
    if graph.shape(mask) != shape {
        return Err(graph.shape_error("recurrence", format!("a mask of {shape:?}"), &[mask]));
    }
    let mask = if walk.go_backwards { graph.reverse(mask, &[1])? } else { mask };
    graph.transpose(mask, &[1, 0])
}

/// Dropout of the inputs, the same for all steps; and the mask of states, if there is one.
pub(super) fn dropped(
    call: &mut Call<'_>,
    x: Id,
    units: usize,
    dropout: f32,
    recurrent_dropout: f32,
) -> Result<(Id, Option<Id>)> {
    let x = super::dropout::drop_out(call, x, dropout, Some(&[None, Some(1), None]))?;
    if !call.training || recurrent_dropout == 0.0 {
        return Ok((x, None));
    }
    let batch = call.graph.shape(x)[0];
    let ones = call.graph.full(1.0, &[batch, units]);
    let mask = super::dropout::drop_out(call, ones, recurrent_dropout, None)?;
    Ok((x, Some(mask)))
}
