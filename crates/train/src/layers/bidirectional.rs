//! `Bidirectional`: a recurrent layer forwards, and one like it backwards.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Call, GRU, LSTM, Layer, Recurrent, SimpleRNN, Weight, argument_error};
use crate::error::Result;
use crate::graph::{Function, Id};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MergeMode {
    #[default]
    Concat,
    Sum,
    Mul,
    Ave,
}

#[derive(Debug)]
pub struct Bidirectional {
    forward: Box<dyn Recurrent>,
    backward: Box<dyn Recurrent>,
    merge_mode: MergeMode,
}

impl Bidirectional {
    pub fn new(layer: impl Recurrent) -> Bidirectional {
        Bidirectional {
            forward: layer.forwards(),
            backward: layer.backwards(),
            merge_mode: MergeMode::Concat,
        }
    }

    super::arguments! { merge_mode: MergeMode }

    pub(super) fn from_config(config: &Value) -> Result<Bidirectional> {
        let wrong = |error: String| {
            argument_error("Bidirectional", "layer", "LSTM, GRU or SimpleRNN with its config", error)
        };
        let inner = &config["layer"]["config"];
        let read = |error: serde_json::Error| wrong(error.to_string());
        let mut layer = match config["layer"]["class_name"].as_str() {
            Some("LSTM") => Bidirectional::new(LSTM::deserialize(inner).map_err(read)?),
            Some("GRU") => Bidirectional::new(GRU::deserialize(inner).map_err(read)?),
            Some("SimpleRNN") => Bidirectional::new(SimpleRNN::deserialize(inner).map_err(read)?),
            other => return Err(wrong(format!("{other:?}"))),
        };
        if let Some(mode) = config.get("merge_mode") {
            layer.merge_mode = MergeMode::deserialize(mode).map_err(|_| {
                argument_error("Bidirectional", "merge_mode", "concat, sum, mul or ave", mode.to_string())
            })?;
        }
        Ok(layer)
    }
}

impl Layer for Bidirectional {
    fn class_name(&self) -> &'static str {
        "Bidirectional"
    }

    fn config(&self) -> Value {
        let layer = json!({ "class_name": self.forward.class_name(), "config": self.forward.config() });
        json!({ "layer": layer, "merge_mode": self.merge_mode })
    }

    fn weights(&self, inputs: &[Vec<usize>]) -> Result<Vec<Weight>> {
        let mut weights = vec![];
        for (prefix, layer) in [("forward_", &self.forward), ("backward_", &self.backward)] {
            let prefix = format!("{prefix}{}", layer.snake_name());
            weights.extend(layer.weights(inputs)?.into_iter().map(|weight| weight.under(&prefix)));
        }
        Ok(weights)
    }

    fn mask(&self, call: &mut Call<'_>, _: &[Id]) -> Result<Option<Id>> {
        Ok(call.mask(0).filter(|_| self.forward.returns_sequences()))
    }

    fn call(&self, call: &mut Call<'_>, inputs: &[Id], weights: &[Id]) -> Result<Vec<Id>> {
        let (forward, backward) = weights.split_at(weights.len() / 2);
        let forward = self.forward.call(call, &inputs[..1], forward)?;
        let backward = self.backward.call(call, &inputs[..1], backward)?;
        let (a, mut b) = (forward[0], backward[0]);
        if self.forward.returns_sequences() {
            b = call.graph.reverse(b, &[1])?;
        }
        let last = call.graph.shape(a).len() - 1;
        let merged = match self.merge_mode {
            MergeMode::Concat => call.graph.concat(&[a, b], last)?,
            MergeMode::Sum => call.graph.add(a, b)?,
            MergeMode::Mul => call.graph.map2(Function::Mul, a, b)?,
            MergeMode::Ave => {
                let sum = call.graph.add(a, b)?;
                call.graph.scale(sum, 0.5)?
            }
        };
        Ok([&[merged], &forward[1..], &backward[1..]].concat())
    }
}
