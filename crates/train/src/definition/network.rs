//! From a definition's layers to a model.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::layer::{LayerEntry, layer};
use super::named::nearest;
use super::{Normalize, OneOrMany};
use crate::error::{Result, TrainError};
use crate::files::keras::LAYERS_MAX;
use crate::layers::{Normalization, Rescaling};
use crate::model::{Input, Model, Shared, Tensor, Wire};

/// The network: its inputs and layers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// The shape of a sample, such as [100] or [28, 28, 1] (height, width, channels).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<Vec<usize>>,
    /// Where there are several inputs: the shape of each by its name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub inputs: BTreeMap<String, Vec<usize>>,
    /// Instead of all else: a `.keras` file, whose model is trained on from its weights. The path is relative to the
    /// definition file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// Layers in order. Each is called with what the one above yields, unless it has `inputs`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<LayerEntry>,
    /// Names of the layers whose results the model gives; the last layer otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outputs: Option<OneOrMany<String>>,
}

/// Values of one sample of an input.
const SAMPLE_VALUES_MAX: usize = 1 << 28;

impl Network {
    /// Names and shapes of the inputs; the one of `input` is called `input`.
    pub fn inputs(&self) -> Result<Vec<(String, Vec<usize>)>> {
        let named: Vec<(String, Vec<usize>)> = match &self.input {
            Some(shape) if self.inputs.is_empty() => vec![("input".to_owned(), shape.clone())],
            Some(_) => {
                return Err(wrong("[model]", "it has `input` and `inputs`; say one of them".to_owned()));
            }
            None => self.inputs.clone().into_iter().collect(),
        };
        if named.is_empty() {
            let problem = "it needs `input`, the shape of a sample, such as input = [100]".to_owned();
            return Err(wrong("[model]", problem));
        }
        for (name, shape) in &named {
            let values = shape.iter().try_fold(1usize, |product, &size| product.checked_mul(size));
            if values.is_none_or(|values| values == 0 || values > SAMPLE_VALUES_MAX) {
                let problem =
                    format!("the shape {shape:?} of {name} takes 1 to {SAMPLE_VALUES_MAX} values in all");
                return Err(wrong("[model]", problem));
            }
        }
        Ok(named)
    }

    /// The model, with weights drawn from `seed`. With a `normalize`, each input has a layer first that is adapted to the
    /// training data; what it is adapted to is the caller's.
    ///
    /// # Errors
    /// When a layer isn't known or doesn't fit; the error names it.
    pub fn build(&self, normalize: Normalize, seed: u64, threads: usize) -> Result<Model> {
        self.build_with(normalize, None, seed, threads)
    }

    /// As [`Network::build`], where `last` is called on the one output.
    pub(super) fn build_with(
        &self,
        normalize: Normalize,
        last: Option<Rescaling>,
        seed: u64,
        threads: usize,
    ) -> Result<Model> {
        let mut wiring = Wiring::default();
        let mut inputs = vec![];
        for (name, shape) in self.inputs()? {
            let sizes = shape.len();
            let input = Input::named(&name, shape);
            inputs.push(input.clone());
            let seen = match normalize {
                Normalize::None => input,
                _ => {
                    let axes: Vec<isize> = (1..=sizes as isize).collect();
                    Normalization::new().axis(axes).named(&normalization_of(&name)).on(&input)
                }
            };
            wiring.tensors.insert(name, seen.clone());
            wiring.last = Some(seen);
        }
        if inputs.len() > 1 {
            wiring.last = None;
        }
        if self.layers.is_empty() {
            return Err(wrong("[model]", "it has no layers".to_owned()));
        }
        if self.layers.len() > LAYERS_MAX {
            return Err(wrong(
                "[model]",
                format!("it has {} layers, {LAYERS_MAX} at most", self.layers.len()),
            ));
        }
        for (number, entry) in self.layers.iter().enumerate() {
            wiring.call(number + 1, entry)?;
        }
        let mut outputs: Vec<Tensor> = match &self.outputs {
            None => wiring.last.into_iter().collect(),
            Some(names) => {
                names.as_slice().iter().map(|name| wiring.tensor("outputs", name)).collect::<Result<_>>()?
            }
        };
        if let (Some(last), [output]) = (last, &mut outputs[..]) {
            *output = last.named("samples").on(&*output);
        }
        Model::with(inputs, outputs, seed, threads)
    }

    /// The model as it is before its fit: that of `path` if there is one, `base` being where the path begins; of `layers`
    /// otherwise.
    ///
    /// # Errors
    /// As [`Network::build`], when the file has what isn't supported, and when `path` isn't alone.
    pub fn begin(&self, base: &Path, normalize: Normalize, seed: u64, threads: usize) -> Result<Model> {
        let Some(path) = &self.path else { return self.build(normalize, seed, threads) };
        if self.input.is_some()
            || !self.inputs.is_empty()
            || !self.layers.is_empty()
            || self.outputs.is_some()
        {
            let problem = "it has `path`, and with it inputs, layers and outputs; say either".to_owned();
            return Err(wrong("[model]", problem));
        }
        if normalize != Normalize::None {
            let problem =
                "normalize makes a layer of its own, which the model of a file doesn't take".to_owned();
            return Err(wrong("[data]", problem));
        }
        crate::files::keras::load_with(&base.join(path), seed, threads)
    }

    /// Names of the outputs, as `outputs` says them.
    pub fn output_names(&self) -> Vec<String> {
        match &self.outputs {
            Some(names) => names.as_slice().to_vec(),
            None => vec!["output".to_owned()],
        }
    }
}

/// The name of the layer that brings an input to a common scale.
pub(crate) fn normalization_of(input: &str) -> String {
    format!("{input}_normalization")
}

fn wrong(place: &str, problem: String) -> TrainError {
    TrainError::Definition { place: place.to_owned(), problem }
}

#[derive(Default)]
struct Wiring {
    /// What inputs and named layers yield.
    tensors: BTreeMap<String, Tensor>,
    /// Named layers, to be called again.
    shared: BTreeMap<String, Shared>,
    /// What the layer above yields.
    last: Option<Tensor>,
}

impl Wiring {
    fn tensor(&self, place: &str, name: &str) -> Result<Tensor> {
        self.tensors.get(name).cloned().ok_or_else(|| {
            let known: Vec<&str> = self.tensors.keys().map(String::as_str).collect();
            let tip = nearest(name, known.iter().copied());
            wrong(
                place,
                format!("no input or layer above is named {name:?}{tip}; there are: {}", known.join(", ")),
            )
        })
    }

    fn call(&mut self, number: usize, entry: &LayerEntry) -> Result<()> {
        let place = match &entry.name {
            Some(name) => format!("layer {name}"),
            None => format!("layer {number}"),
        };
        let layer: Shared = match (&entry.class, &entry.shared) {
            (Some(class), None) => {
                let layer = layer(&place, class, &entry.arguments)?;
                match &entry.name {
                    Some(name) => Shared::boxed(layer, name),
                    None => Shared::from(layer),
                }
            }
            (None, Some(shared)) if entry.arguments.is_empty() => {
                let found = self.shared.get(shared).cloned();
                found.ok_or_else(|| wrong(&place, format!("no layer above is named {shared:?}")))?
            }
            (None, Some(_)) => {
                let arguments: Vec<&str> = entry.arguments.keys().map(String::as_str).collect();
                let problem = format!(
                    "a layer that is called again takes no arguments; received {}",
                    arguments.join(", ")
                );
                return Err(wrong(&place, problem));
            }
            _ => return Err(wrong(&place, "it needs a class, or the name of a shared layer".to_owned())),
        };
        let layer = match entry.trainable {
            Some(false) if entry.class.is_some() => layer.frozen(),
            Some(_) if entry.class.is_none() => {
                return Err(wrong(&place, "`trainable` is said where the layer is made".to_owned()));
            }
            _ => layer,
        };
        let given: Vec<Tensor> = match &entry.inputs {
            Some(names) => {
                names.as_slice().iter().map(|name| self.tensor(&place, name)).collect::<Result<_>>()?
            }
            None => vec![self.last.clone().ok_or_else(|| {
                wrong(&place, "the model has several inputs: say which by inputs = [\"...\"]".to_owned())
            })?],
        };
        let tensor = layer.on(given);
        self.last = Some(tensor.clone());
        if let Some(name) = &entry.name {
            if self.tensors.insert(name.clone(), tensor).is_some() {
                return Err(wrong(&place, "there is an input or a layer of this name already".to_owned()));
            }
            self.shared.insert(name.clone(), layer);
        }
        Ok(())
    }
}
