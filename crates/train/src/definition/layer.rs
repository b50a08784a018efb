//! A layer of a definition: Keras's class and arguments, with Keras's short spellings, as a layer's config.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::OneOrMany;
use super::named::{Known, Named, unknown_argument};
use crate::error::{Result, TrainError};
use crate::initializers::{Distribution, Initializer, Mode};
use crate::layers::{self, Layer};
use crate::penalties::{Constraint, Regularizer};

/// One layer, called once: `{ class = "Dense", units = 128, activation = "relu" }`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LayerEntry {
    /// Keras's class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// Instead of a class: the name of a layer above that is called again, with the same weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shared: Option<String>,
    /// What other layers, `outputs` and weights call it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Names of the layers or inputs that it is called with; the layer above otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inputs: Option<OneOrMany<String>>,
    /// Whether the layer's weights are trained; they are otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trainable: Option<bool>,
    /// Keras's arguments.
    #[serde(flatten)]
    #[schemars(skip)]
    pub arguments: Map<String, Value>,
}

/// Arguments without which a class means nothing.
pub(super) const REQUIRED: &[(&str, &[&str])] = &[
    ("Activation", &["activation"]),
    ("Bidirectional", &["layer"]),
    ("Conv1D", &["filters", "kernel_size"]),
    ("Conv2D", &["filters", "kernel_size"]),
    ("Conv2DTranspose", &["filters", "kernel_size"]),
    ("Conv3D", &["filters", "kernel_size"]),
    ("Dense", &["units"]),
    ("DepthwiseConv2D", &["kernel_size"]),
    ("Dot", &["axes"]),
    ("Dropout", &["rate"]),
    ("Embedding", &["input_dim", "output_dim"]),
    ("GRU", &["units"]),
    ("GroupQueryAttention", &["head_dim", "num_query_heads", "num_key_value_heads"]),
    ("LSTM", &["units"]),
    ("MultiHeadAttention", &["num_heads", "key_dim"]),
    ("Permute", &["dims"]),
    ("RandomCrop", &["height", "width"]),
    ("RandomRotation", &["factor"]),
    ("Rescaling", &["scale"]),
    ("Reshape", &["target_shape"]),
    ("SeparableConv2D", &["filters", "kernel_size"]),
    ("SimpleRNN", &["units"]),
    ("SpectralNormalization", &["layer"]),
    ("TimeDistributed", &["layer"]),
];

/// Arguments that have one size for each dimension; one number stands for all.
pub(super) const SIZES: &[&str] = &["kernel_size", "strides", "dilation_rate", "pool_size", "size"];

/// The largest whole number that an argument of a layer may be.
const SIZE_MAX: u64 = 1 << 24;

pub(super) fn initializers() -> Known {
    use Initializer::*;
    Known::new(
        "initializer",
        [
            Zeros {},
            Ones {},
            Constant { value: 0.0 },
            RandomUniform { minval: -0.05, maxval: 0.05 },
            RandomNormal { mean: 0.0, stddev: 0.05 },
            TruncatedNormal { mean: 0.0, stddev: 0.05 },
            GlorotUniform {},
            GlorotNormal {},
            HeUniform {},
            HeNormal {},
            LecunUniform {},
            LecunNormal {},
            VarianceScaling { scale: 1.0, mode: Mode::FanIn, distribution: Distribution::TruncatedNormal },
            OrthogonalInitializer { gain: 1.0 },
            IdentityInitializer { gain: 1.0 },
        ],
    )
}

pub(super) fn regularizers() -> Known {
    use Regularizer::*;
    Known::new("regularizer", [L1 { l1: 0.01 }, L2 { l2: 0.01 }, L1L2 { l1: 0.0, l2: 0.0 }])
}

pub(super) fn constraints() -> Known {
    use Constraint::*;
    Known::new(
        "constraint",
        [
            MaxNorm { max_value: 2.0, axis: 0 },
            NonNeg {},
            UnitNorm { axis: 0 },
            MinMaxNorm { min_value: 0.0, max_value: 1.0, rate: 1.0, axis: 0 },
        ],
    )
}

/// The layer of `class` with `arguments` as a person writes them. `place` names it in errors.
///
/// # Errors
/// When the class or an argument isn't known, is missing, or isn't what the layer takes.
pub(super) fn layer(place: &str, class: &str, arguments: &Map<String, Value>) -> Result<Box<dyn Layer>> {
    let known: Vec<&str> = layers::supported().collect();
    if !known.contains(&class) {
        let tip = super::named::nearest(class, known.iter().copied());
        let known = format!("{}{tip}", known.join(", "));
        return Err(TrainError::Unknown { kind: "layer", name: class.to_owned(), known });
    }
    let place = format!("{place} ({class})");
    if class == "Normalization" {
        let problem =
            "say normalize = \"standard\" in [data]: it is learned there, and becomes the first layer";
        return Err(TrainError::Definition { place, problem: problem.to_owned() });
    }
    check_size(&place, &Value::Object(arguments.clone()))?;
    let required = REQUIRED.iter().find(|(name, _)| *name == class).map_or(&[][..], |(_, required)| required);
    if let Some(missing) = required.iter().find(|name| !arguments.contains_key(**name)) {
        let problem = format!("it needs the argument {missing}");
        return Err(TrainError::Definition { place, problem });
    }
    let mut config = Map::new();
    for (name, given) in arguments {
        config.insert(name.clone(), expanded(&place, class, name, given)?);
    }
    let layer = layers::from_config(class, &Value::Object(config)).map_err(|error| match error {
        TrainError::Argument { received, .. } => TrainError::Definition {
            place: place.clone(),
            problem: format!("{received}; received {}", Value::from(arguments.clone())),
        },
        other => other,
    })?;
    let takes = layer.config();
    let takes = takes.as_object().cloned().unwrap_or_default();
    match arguments.keys().find(|name| !takes.contains_key(*name)) {
        Some(other) => Err(unknown_argument(&place, other, takes.keys().map(String::as_str))),
        None => Ok(layer),
    }
}

/// No whole number of an argument is larger than any network has.
fn check_size(place: &str, given: &Value) -> Result<()> {
    match given {
        Value::Number(number) if number.as_i64().is_some_and(|number| number.unsigned_abs() > SIZE_MAX) => {
            let problem = format!("an argument is {number}; none is larger than {SIZE_MAX}");
            Err(TrainError::Definition { place: place.to_owned(), problem })
        }
        Value::Array(parts) => parts.iter().try_for_each(|part| check_size(place, part)),
        Value::Object(parts) => parts.values().try_for_each(|part| check_size(place, part)),
        _ => Ok(()),
    }
}

/// An argument as it stands in a layer's config.
fn expanded(place: &str, class: &str, name: &str, given: &Value) -> Result<Value> {
    if SIZES.contains(&name) && given.is_u64() {
        let rank = class.chars().find_map(|c| c.to_digit(10)).unwrap_or(1);
        return Ok(Value::from(vec![given.clone(); rank as usize]));
    }
    if matches!((class, name), ("ZeroPadding2D", "padding") | ("Cropping2D", "cropping")) {
        let margins =
            |vertical: &Value, horizontal: &Value| json!([[vertical, vertical], [horizontal, horizontal]]);
        return Ok(match given.as_array().map(Vec::as_slice) {
            None => margins(given, given),
            Some([vertical, horizontal]) if vertical.is_u64() => margins(vertical, horizontal),
            Some(_) => given.clone(),
        });
    }
    let known = match name {
        _ if name.ends_with("_initializer") => initializers(),
        _ if name.ends_with("_regularizer") => regularizers(),
        _ if name.ends_with("_constraint") => constraints(),
        "layer" => return inner(place, given),
        _ => return Ok(given.clone()),
    };
    let named = Named::deserialize(given).map_err(|_| TrainError::Definition {
        place: place.to_owned(),
        problem: format!("{name} is a name or a table with `class`; received {given}"),
    })?;
    let (class, config) = known.resolve(&named)?;
    Ok(json!({ "class_name": class, "config": config }))
}

/// A layer within a layer.
fn inner(place: &str, given: &Value) -> Result<Value> {
    let mut arguments = given.as_object().cloned().unwrap_or_default();
    let Some(Value::String(class)) = arguments.remove("class") else {
        let problem = format!("layer is a table with `class`; received {given}");
        return Err(TrainError::Definition { place: place.to_owned(), problem });
    };
    let layer = layer(place, &class, &arguments)?;
    Ok(json!({ "class_name": class, "config": layer.config() }))
}
