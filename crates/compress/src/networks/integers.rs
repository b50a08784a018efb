//! Products of whole numbers: `MatMul` and `Gemm` with known weights as 8-bit products, in one of three forms.
//!
//! | form | what is written | rten | onnxruntime |
//! | --- | --- | --- | --- |
//! | `Static` | `QuantizeLinear` with calibrated ranges, `MatMulInteger` | integers | integers |
//! | `Dynamic` | the same with `DynamicQuantizeLinear`, which looks at each batch | integers | integers |
//! | `Qdq` | `QuantizeLinear` and `DequantizeLinear` around what stays as it was, `Conv` too | floats | integers, by its rewrites |
//!
//! A dynamic range is that of a whole batch, so rows see each other: a server runs such a model's calls one by one.
//!
//! Weights of `Conv` are stored in 8 bits in the first two forms, and its products are those of floats: `ConvInteger` of
//! `rten` 0.27 forgets the weights' zero point (128, once it has made them unsigned) where a batch has several images, and
//! pads with 0 whatever the code of zero is.
//!
//! Multiplied weights have 7 bits (-63 to 63) with a scale for each channel: without VNNI, processors add two products of 8
//! bits in 16, where whole 8 bits of both would be cut off, in `rten` and in onnxruntime alike.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::changes::Change;
use super::coding::{CODED_ELEMENTS_MIN, Channels, Coding, code, per_channel};
use super::document::{Document, FLOAT, INT8, INT32, Names, Node, UINT8, Weight};
use super::error::{NetworkError, Result};

/// The greatest code of a weight.
const WEIGHT_CODE_MAX: i8 = 63;

/// How whole numbers are written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    Static,
    Dynamic,
    Qdq,
}

/// From the least to the greatest value that is told apart.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Range {
    pub low: f32,
    pub high: f32,
}

impl Range {
    /// Scale and zero point of 8 bits without sign; zero is among what they can say.
    fn steps(self) -> (f32, u8) {
        let (low, high) = (self.low.min(0.0), self.high.max(0.0));
        let scale = ((high - low) / 255.0).max(f32::MIN_POSITIVE);
        (scale, (-low / scale).round_ties_even().clamp(0.0, 255.0) as u8)
    }
}

/// A product whose weights are known.
struct Product {
    node: usize,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    MatMul,
    Gemm { transposed: bool },
    Conv,
}

/// What `node` multiplies by, if that can be done in whole numbers.
fn kind(document: &Document, node: &Node) -> Option<Kind> {
    let weight = document.weight(node.inputs.get(1)?)?;
    if !node.domain.is_empty() || weight.element != FLOAT || weight.elements() < CODED_ELEMENTS_MIN {
        return None;
    }
    let is_one = |name: &str| node.float(name).is_none_or(|value| value == 1.0);
    match (node.operator.as_str(), weight.shape.len()) {
        ("MatMul", 2) => Some(Kind::MatMul),
        ("Gemm", 2) if is_one("alpha") && is_one("beta") && node.int("transA").unwrap_or(0) == 0 => {
            Some(Kind::Gemm { transposed: node.int("transB") == Some(1) })
        }
        ("Conv", 3..) => Some(Kind::Conv),
        _ => None,
    }
}

fn products(document: &Document, form: Form) -> Vec<Product> {
    let nodes = document.nodes.iter().enumerate();
    let products = nodes.filter_map(|(at, node)| Some(Product { node: at, kind: kind(document, node)? }));
    products.filter(|product| product.kind != Kind::Conv || form == Form::Qdq).collect()
}

/// Weights of convolutions, which are stored in 8 bits where their products aren't.
fn only_stored(document: &Document, form: Form) -> Vec<String> {
    let nodes =
        document.nodes.iter().filter(|node| kind(document, node) == Some(Kind::Conv) && form != Form::Qdq);
    let mut names: Vec<String> = nodes.map(|node| node.inputs[1].clone()).collect();
    names.sort();
    names.dedup();
    names
}

/// The values that products are given: what has to be calibrated for [`Form::Static`] and [`Form::Qdq`].
pub fn activations(document: &Document, form: Form) -> Vec<String> {
    let mut names: Vec<String> = vec![];
    for product in products(document, form) {
        let name = &document.nodes[product.node].inputs[0];
        if !names.contains(name) && document.weight(name).is_none() {
            names.push(name.clone());
        }
    }
    names
}

/// Rewrites all products. `ranges` are those of [`activations`], but for [`Form::Dynamic`].
///
/// # Errors
/// When the file's operators are too old, a range is missing, or there is nothing to rewrite.
pub fn rewrite(document: &mut Document, form: Form, ranges: &HashMap<String, Range>) -> Result<Vec<Change>> {
    let needed = 13;
    if document.opset < needed {
        let problem = format!(
            "the file has operators of version {}; 8-bit products need {needed}: convert it with onnx.version_converter",
            document.opset
        );
        return Err(NetworkError::model("ONNX file", problem));
    }
    let products = products(document, form);
    let stored = only_stored(document, form);
    if products.is_empty() && stored.is_empty() {
        let problem = "it has no MatMul, Gemm or Conv with weights of its own to make 8-bit products of";
        return Err(NetworkError::model("ONNX file", problem));
    }
    let names = document.names();
    let mut rewriting = Rewriting {
        form,
        ranges,
        names,
        given: HashMap::new(),
        nodes: vec![],
        weights: vec![],
        changes: vec![],
    };
    for (at, node) in document.nodes.iter().enumerate() {
        match products.iter().find(|product| product.node == at) {
            Some(product) => rewriting.product(document, node, product.kind)?,
            None => rewriting.nodes.push(node.clone()),
        }
    }
    let Rewriting { nodes, weights, mut changes, .. } = rewriting;
    document.nodes = nodes;
    document.weights.extend(weights);
    document.swept();
    for name in stored {
        changes.push(code(document, &name, Coding::Int8)?);
    }
    Ok(changes)
}

/// An activation in whole numbers: names of its codes, scale and zero point.
#[derive(Clone)]
struct Given {
    codes: String,
    scale: String,
    zero: String,
    /// Where it is known ahead.
    steps: Option<(f32, u8)>,
}

struct Rewriting<'a> {
    form: Form,
    ranges: &'a HashMap<String, Range>,
    names: Names,
    given: HashMap<String, Given>,
    nodes: Vec<Node>,
    weights: Vec<Weight>,
    changes: Vec<Change>,
}

impl Rewriting<'_> {
    fn floats(&mut self, name: &str, shape: &[usize], values: &[f32]) -> String {
        let name = self.names.unique(name);
        self.weights.push(Weight::of_floats(&name, shape, values));
        name
    }

    fn bytes(&mut self, name: &str, shape: &[usize], element: i64, bytes: Vec<u8>) -> String {
        let name = self.names.unique(name);
        self.weights.push(Weight::raw(&name, shape, element, bytes));
        name
    }

    fn node(&mut self, operator: &str, inputs: &[&str], name: &str) -> String {
        let name = self.names.unique(name);
        self.nodes.push(Node::new(operator, inputs, &name));
        name
    }

    /// The activation `name` as codes, made once.
    fn given(&mut self, name: &str) -> Result<Given> {
        if let Some(given) = self.given.get(name) {
            return Ok(given.clone());
        }
        let (codes, scale, zero) = (format!("{name}_q"), format!("{name}_s"), format!("{name}_z"));
        let given = if self.form == Form::Dynamic {
            let [codes, scale, zero] = [codes, scale, zero].map(|name| self.names.unique(&name));
            let mut node = Node::new("DynamicQuantizeLinear", &[name], &codes);
            node.outputs.extend([scale.clone(), zero.clone()]);
            self.nodes.push(node);
            Given { codes, scale, zero, steps: None }
        } else {
            let range = self.ranges.get(name);
            let range = range.ok_or_else(|| {
                NetworkError::model(
                    format!("value {name:?}"),
                    "it wasn't calibrated, and has to be for this form",
                )
            })?;
            let steps = range.steps();
            let scale = self.floats(&scale, &[], &[steps.0]);
            let zero = self.bytes(&zero, &[], UINT8, vec![steps.1]);
            let codes = self.node("QuantizeLinear", &[name, &scale, &zero], &codes);
            Given { codes, scale, zero, steps: Some(steps) }
        };
        self.given.insert(name.to_owned(), given.clone());
        Ok(given)
    }

    fn product(&mut self, document: &Document, node: &Node, kind: Kind) -> Result<()> {
        let (x, name) = (&node.inputs[0], &node.inputs[1]);
        let place = || format!("weights {name:?}");
        let weight = document.weight(name).ok_or_else(|| NetworkError::model(place(), "they are missing"))?;
        let values =
            weight.floats().ok_or_else(|| NetworkError::model(place(), "values and shape don't agree"))?;
        let axis = usize::from(!matches!(kind, Kind::Conv | Kind::Gemm { transposed: true }));
        let channels = per_channel(&values, &weight.shape, axis, WEIGHT_CODE_MAX);
        let bytes = channels.codes.len() + 4 * channels.scales.len();
        let after = channels.decoded(&weight.shape, axis);
        self.changes.push(Change::new(
            (name, &weight.shape, "int8 product".to_owned()),
            &values,
            &after,
            bytes,
        ));
        let given = self.given(x)?;
        if self.form == Form::Qdq {
            return self.around(document, node, &given, weight, (axis, channels));
        }
        let Channels { mut codes, scales } = channels;
        let mut shape = weight.shape.clone();
        if kind == (Kind::Gemm { transposed: true }) {
            (codes, shape) = (transposed(&codes, &shape), vec![shape[1], shape[0]]);
        }
        let bytes = codes.iter().map(|&code| code as u8).collect();
        let stored = self.bytes(&format!("{name}_q"), &shape, INT8, bytes);
        let output = &node.outputs[0];
        let bias = node.inputs.get(2).filter(|bias| !bias.is_empty());
        let inputs = [given.codes.as_str(), &stored, &given.zero];
        let sums = self.node("MatMulInteger", &inputs, &format!("{output}_i"));
        let last = if bias.is_some() { self.names.unique(&format!("{output}_m")) } else { output.clone() };
        self.scaled((&sums, &last), &given, (&format!("{name}_s"), &scales));
        if let Some(bias) = bias {
            self.nodes.push(Node::new("Add", &[&last, bias], output));
        }
        Ok(())
    }

    /// `sums` as floats: times the scales of activations and of channels.
    fn scaled(&mut self, (sums, last): (&str, &str), given: &Given, (name, scales): (&str, &[f32])) {
        let wide = self.names.unique(&format!("{sums}f"));
        self.nodes.push(Node::new("Cast", &[sums], &wide).with_int("to", FLOAT));
        let scale = match given.steps {
            Some((step, _)) => {
                let scales: Vec<f32> = scales.iter().map(|scale| scale * step).collect();
                self.floats(name, &[scales.len()], &scales)
            }
            None => {
                let scales = self.floats(name, &[scales.len()], scales);
                self.node("Mul", &[&given.scale, &scales], &format!("{sums}s"))
            }
        };
        self.nodes.push(Node::new("Mul", &[&wide, &scale], last));
    }

    /// The product as it was, of values that went through 8 bits.
    fn around(
        &mut self,
        document: &Document,
        node: &Node,
        given: &Given,
        weight: &Weight,
        (axis, channels): (usize, Channels),
    ) -> Result<()> {
        let name = &weight.name;
        let bytes = channels.codes.iter().map(|&code| code as u8).collect();
        let stored = self.bytes(&format!("{name}_q"), &weight.shape, INT8, bytes);
        let scale = self.floats(&format!("{name}_s"), &[channels.scales.len()], &channels.scales);
        let zeros =
            self.bytes(&format!("{name}_z"), &[channels.scales.len()], INT8, vec![0; channels.scales.len()]);
        let x = self.node(
            "DequantizeLinear",
            &[&given.codes, &given.scale, &given.zero],
            &format!("{}_near", node.inputs[0]),
        );
        let near = self.names.unique(&format!("{name}_near"));
        let decode = Node::new("DequantizeLinear", &[&stored, &scale, &zeros], &near);
        self.nodes.push(decode.with_int("axis", axis as i64));
        let mut node = node.clone();
        node.inputs[0] = x;
        node.inputs[1] = near;
        let bias = node.inputs.get(2).and_then(|bias| document.weight(bias));
        if let (Some(bias), Some((step, _))) =
            (bias.filter(|bias| bias.shape == [channels.scales.len()]), given.steps)
            && let Some(values) = bias.floats()
        {
            // In the steps of the sums that it is added to, as runtimes want it for their own rewrites.
            let steps: Vec<f32> = channels.scales.iter().map(|scale| scale * step).collect();
            let codes: Vec<f32> =
                values.iter().zip(&steps).map(|(value, step)| (value / step).round_ties_even()).collect();
            // Of a channel whose weights are nearly nothing, a bias may be beyond what whole numbers reach: it stays a float.
            if codes.iter().all(|code| code.abs() < i32::MAX as f32) {
                let stored = self.bytes(
                    &format!("{}_int32", bias.name),
                    &bias.shape,
                    INT32,
                    codes.iter().flat_map(|code| (*code as i32).to_le_bytes()).collect(),
                );
                let scale = self.floats(&format!("{}_scale", bias.name), &bias.shape, &steps);
                let near = self.names.unique(&format!("{}_near", bias.name));
                self.nodes.push(Node::new("DequantizeLinear", &[&stored, &scale], &near).with_int("axis", 0));
                node.inputs[2] = near;
            }
        }
        self.nodes.push(node);
        Ok(())
    }
}

fn transposed(codes: &[i8], shape: &[usize]) -> Vec<i8> {
    let (rows, columns) = (shape[0], shape[1]);
    (0..columns * rows).map(|at| codes[at % rows * columns + at / rows]).collect()
}
