//! Layers that join several inputs: element by element, or one after the other.

use serde::{Deserialize, Serialize};

use super::masks::{any_of, of_concatenated};
use super::{Call, Layer, described};
use crate::error::Result;
use crate::graph::{Function, Graph, Id};

fn joined(graph: &mut Graph, function: Function, inputs: &[Id]) -> Result<Id> {
    let Some((&first, rest)) = inputs.split_first() else {
        return Err(graph.shape_error("merge", "one input or more", inputs));
    };
    rest.iter().try_fold(first, |joined, &input| graph.map2(function, joined, input))
}

macro_rules! merge {
    ($($(#[$doc:meta])* $name:ident $class:literal $function:ident $mean:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, Default, Serialize, Deserialize)]
        #[serde(default)]
        pub struct $name {}

        impl $name {
            pub fn new() -> $name {
                $name {}
            }
        }

        impl Layer for $name {
            described!($class);

            fn mask(&self, call: &mut Call<'_>, inputs: &[Id]) -> Result<Option<Id>> {
                any_of(call, inputs.len())
            }

            fn call(&self, call: &mut Call<'_>, inputs: &[Id], _: &[Id]) -> Result<Vec<Id>> {
                let y = joined(call.graph, Function::$function, inputs)?;
                let share = if $mean { 1.0 / inputs.len() as f32 } else { 1.0 };
                Ok(vec![call.graph.scale(y, share)?])
            }
        }
    )*};
}

merge! {
    /// The sum of the inputs.
    Add "Add" Add false;
    /// The first input less the second.
    Subtract "Subtract" Sub false;
    /// The product of the inputs.
    Multiply "Multiply" Mul false;
    /// The mean of the inputs.
    Average "Average" Add true;
    /// The greatest of the inputs.
    Maximum "Maximum" Max false;
    /// The least of the inputs.
    Minimum "Minimum" Min false;
}

/// The inputs one after the other along an axis.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Concatenate {
    pub axis: isize,
}

impl Default for Concatenate {
    fn default() -> Concatenate {
        Concatenate { axis: -1 }
    }
}

impl Concatenate {
    pub fn new() -> Concatenate {
        Concatenate::default()
    }

    super::arguments! { axis: isize }

    fn axis_of(&self, graph: &Graph, inputs: &[Id]) -> usize {
        let rank = inputs.first().map_or(0, |&input| graph.shape(input).len()) as isize;
        let axis = if self.axis < 0 { rank + self.axis } else { self.axis };
        axis.max(0) as usize
    }
}

impl Layer for Concatenate {
    described!("Concatenate");

    fn mask(&self, call: &mut Call<'_>, inputs: &[Id]) -> Result<Option<Id>> {
        let axis = self.axis_of(call.graph, inputs);
        of_concatenated(call, inputs, axis)
    }

    fn call(&self, call: &mut Call<'_>, inputs: &[Id], _: &[Id]) -> Result<Vec<Id>> {
        let axis = self.axis_of(call.graph, inputs);
        Ok(vec![call.graph.concat(inputs, axis)?])
    }
}
