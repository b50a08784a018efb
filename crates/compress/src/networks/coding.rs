//! Weights in fewer bits, decoded by operators of ONNX 13 that every runtime has: what computes with them is untouched.
//!
//! A coded weight keeps its name: the first nodes of the graph make it out of what is stored. Runtimes work that out once,
//! when they load the file (onnxruntime does so for all but `DequantizeLinear`, which it keeps for its own rewrites).

use half::{bf16, f16};
use serde::{Deserialize, Serialize};

use super::changes::Change;
use super::document::{BFLOAT16, Document, FLOAT, FLOAT16, INT8, INT32, INT64, Node, UINT8, Weight};
use super::error::{NetworkError, Result};

/// How a weight is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Coding {
    Float32,
    /// IEEE's half precision.
    Float16,
    /// The upper half of a float: 8 bits of precision and every float's range.
    Bfloat16,
    /// Whole numbers from -127 to 127 with a scale for each channel.
    Int8,
    /// 256, 16 or 4 values, chosen to be near, and which of them each weight is.
    Codebook8,
    Codebook4,
    Codebook2,
}

impl Coding {
    pub const ALL: [Coding; 7] = [
        Coding::Float32,
        Coding::Float16,
        Coding::Bfloat16,
        Coding::Int8,
        Coding::Codebook8,
        Coding::Codebook4,
        Coding::Codebook2,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Coding::Float32 => "float32",
            Coding::Float16 => "float16",
            Coding::Bfloat16 => "bfloat16",
            Coding::Int8 => "int8",
            Coding::Codebook8 => "codebook8",
            Coding::Codebook4 => "codebook4",
            Coding::Codebook2 => "codebook2",
        }
    }

    /// Bits of an index into the values.
    fn index_bits(self) -> Option<usize> {
        match self {
            Coding::Codebook8 => Some(8),
            Coding::Codebook4 => Some(4),
            Coding::Codebook2 => Some(2),
            Coding::Float32 | Coding::Float16 | Coding::Bfloat16 | Coding::Int8 => None,
        }
    }
}

/// Elements of a weight that is worth coding.
pub const CODED_ELEMENTS_MIN: usize = 64;
/// Rounds of moving the values of a codebook.
const CODEBOOK_ROUNDS: usize = 50;

/// Weights that can be coded: matrices and more that hold floats.
pub fn codable(document: &Document) -> Vec<String> {
    let is_worth = |weight: &&Weight| {
        weight.shape.len() > 1 && weight.elements() >= CODED_ELEMENTS_MIN && weight.element == FLOAT
    };
    document.weights.iter().filter(is_worth).map(|weight| weight.name.clone()).collect()
}

/// Codes the weight `name`.
///
/// # Errors
/// When there is no such weight of floats, or the file's operators are too old to decode it.
pub fn code(document: &mut Document, name: &str, coding: Coding) -> Result<Change> {
    let problem = |problem: &str| NetworkError::model(format!("weights {name:?}"), problem);
    let place = document.weights.iter().position(|weight| weight.name == name);
    let place = place.ok_or_else(|| problem("there are none of this name"))?;
    let values = document.weights[place].floats().ok_or_else(|| problem("they aren't floats"))?;
    let shape = document.weights[place].shape.clone();
    if coding != Coding::Float32 {
        if document.opset < 13 {
            let found =
                format!("the file has operators of version {}; coded weights need 13", document.opset);
            return Err(NetworkError::model(
                "ONNX file",
                format!("{found}: convert it with onnx.version_converter"),
            ));
        }
        document.weights.remove(place);
    }
    let before = document.weights.len();
    let after = match coding {
        Coding::Float32 => values.clone(),
        Coding::Float16 => {
            // What is beyond half's range is its greatest number rather than infinity.
            let half = |value: f32| f16::from_f32(value.clamp(-65504.0, 65504.0));
            let halves = values.iter().map(|&value| half(value).to_le_bytes()).collect();
            as_halves(document, name, &shape, (FLOAT16, halves));
            values.iter().map(|&value| half(value).to_f32()).collect()
        }
        Coding::Bfloat16 => {
            let halves = values.iter().map(|&value| bf16::from_f32(value).to_le_bytes()).collect();
            as_halves(document, name, &shape, (BFLOAT16, halves));
            values.iter().map(|&value| bf16::from_f32(value).to_f32()).collect()
        }
        Coding::Int8 => as_int8(document, name, &shape, &values),
        _ => as_codebook(document, name, &shape, &values, coding.index_bits().unwrap_or(8)),
    };
    let bytes = match coding {
        Coding::Float32 => values.len() * 4,
        _ => document.weights[before..].iter().map(Weight::bytes).sum(),
    };
    Ok(Change::new((name, &shape, coding.name().to_owned()), &values, &after, bytes))
}

fn as_halves(document: &mut Document, name: &str, shape: &[usize], (element, halves): (i64, Vec<[u8; 2]>)) {
    let stored = document.names().unique(&format!("{name}_h"));
    document.weights.push(Weight::raw(&stored, shape, element, halves.into_flattened()));
    document.nodes.insert(0, Node::new("Cast", &[&stored], name).with_int("to", FLOAT));
}

fn as_int8(document: &mut Document, name: &str, shape: &[usize], values: &[f32]) -> Vec<f32> {
    let axis = channel_axis(document, name, shape.len());
    let channels = per_channel(values, shape, axis, 127);
    let decoded = channels.decoded(shape, axis);
    let Channels { codes, scales } = channels;
    let mut names = document.names();
    let (stored, scale) = (names.unique(&format!("{name}_q")), names.unique(&format!("{name}_s")));
    document.weights.push(Weight::raw(&stored, shape, INT8, codes.iter().map(|&code| code as u8).collect()));
    document.weights.push(Weight::of_floats(&scale, &[scales.len()], &scales));
    let node = Node::new("DequantizeLinear", &[&stored, &scale], name).with_int("axis", axis as i64);
    document.nodes.insert(0, node);
    decoded
}

/// Whole numbers with a scale for each index of an axis.
pub(super) struct Channels {
    pub codes: Vec<i8>,
    pub scales: Vec<f32>,
}

impl Channels {
    /// What they stand for.
    pub fn decoded(&self, shape: &[usize], axis: usize) -> Vec<f32> {
        let inner: usize = shape[axis + 1..].iter().product();
        let channel = |at: usize| at / inner.max(1) % shape[axis];
        self.codes.iter().enumerate().map(|(at, &code)| f32::from(code) * self.scales[channel(at)]).collect()
    }
}

/// `values` as whole numbers from `-greatest` to `greatest` times their channel's scale.
pub(super) fn per_channel(values: &[f32], shape: &[usize], axis: usize, greatest: i8) -> Channels {
    let inner: usize = shape[axis + 1..].iter().product();
    let channel = |at: usize| at / inner.max(1) % shape[axis];
    let mut scales = vec![0f32; shape[axis]];
    for (at, value) in values.iter().enumerate() {
        let scale = &mut scales[channel(at)];
        *scale = scale.max(value.abs());
    }
    // A channel of zeros has a scale too, as a scale of zero divides nothing.
    let greatest = f32::from(greatest);
    scales.iter_mut().for_each(|scale| {
        *scale = if *scale > 0.0 { (*scale / greatest).max(f32::MIN_POSITIVE) } else { 1.0 }
    });
    let code = |(at, value): (usize, &f32)| {
        (value / scales[channel(at)]).round_ties_even().clamp(-greatest, greatest) as i8
    };
    Channels { codes: values.iter().enumerate().map(code).collect(), scales }
}

/// The axis of a weight along which what is computed with it stays apart.
pub(super) fn channel_axis(document: &Document, name: &str, rank: usize) -> usize {
    let user = document.nodes.iter().find_map(|node| {
        let input = node.inputs.iter().position(|input| input == name)?;
        Some((node, input))
    });
    let axis = user.map_or(rank - 1, |(node, input)| match (node.operator.as_str(), input) {
        ("Conv" | "Gather", _) => 0,
        ("ConvTranspose", _) => 1,
        ("MatMul", 0) => rank.saturating_sub(2),
        ("Gemm", 1) if node.int("transB") == Some(1) => 0,
        _ => rank - 1,
    });
    axis.min(rank - 1)
}

fn as_codebook(
    document: &mut Document,
    name: &str,
    shape: &[usize],
    values: &[f32],
    bits: usize,
) -> Vec<f32> {
    let book = codebook(values, 1 << bits);
    let indices: Vec<u8> = values.iter().map(|&value| nearest(&book, value) as u8).collect();
    let per_byte = 8 / bits;
    let packed: Vec<u8> = indices
        .chunks(per_byte)
        .map(|chunk| chunk.iter().enumerate().fold(0, |byte, (at, index)| byte | (index << (bits * at))))
        .collect();
    let mut names = document.names();
    let mut of = |part: &str| names.unique(&format!("{name}_{part}"));
    let (stored, table, wide) = (of("indices"), of("codebook"), of("wide"));
    document.weights.push(Weight::of_floats(&table, &[book.len()], &book));
    let rows = packed.len();
    let mut nodes = vec![];
    let last = if per_byte == 1 {
        document.weights.push(Weight::raw(&stored, shape, UINT8, packed));
        nodes.push(Node::new("Cast", &[&stored], &wide).with_int("to", INT32));
        wide
    } else {
        let (divisors, base, parts, digits) = (of("divisors"), of("base"), of("parts"), of("digits"));
        let (start, end, sizes, known) = (of("start"), of("end"), of("sizes"), of("known"));
        let powers: Vec<i32> = (0..per_byte).map(|at| 1 << (bits * at)).collect();
        let int64 = |value: i64| value.to_le_bytes().to_vec();
        let shape64: Vec<u8> = shape.iter().flat_map(|&size| (size as i64).to_le_bytes()).collect();
        document.weights.extend([
            Weight::raw(&stored, &[rows, 1], UINT8, packed),
            Weight::raw(
                &divisors,
                &[1, per_byte],
                INT32,
                powers.iter().flat_map(|power| power.to_le_bytes()).collect(),
            ),
            Weight::raw(&base, &[1, 1], INT32, (1i32 << bits).to_le_bytes().to_vec()),
            Weight::raw(&sizes, &[1], INT64, int64(-1)),
            Weight::raw(&start, &[1], INT64, int64(0)),
            Weight::raw(&end, &[1], INT64, int64(values.len() as i64)),
            Weight::raw(&known, &[shape.len()], INT64, shape64),
        ]);
        let (row, cut, shaped) = (of("row"), of("cut"), of("shaped"));
        nodes.extend([
            Node::new("Cast", &[&stored], &wide).with_int("to", INT32),
            Node::new("Div", &[&wide, &divisors], &parts),
            Node::new("Mod", &[&parts, &base], &digits),
            Node::new("Reshape", &[&digits, &sizes], &row),
            Node::new("Slice", &[&row, &start, &end], &cut),
            Node::new("Reshape", &[&cut, &known], &shaped),
        ]);
        shaped
    };
    nodes.push(Node::new("Gather", &[&table, &last], name).with_int("axis", 0));
    document.nodes.splice(0..0, nodes);
    indices.iter().map(|&index| book[usize::from(index)]).collect()
}

fn nearest(book: &[f32], value: f32) -> usize {
    let after = book.partition_point(|&entry| entry < value).min(book.len() - 1);
    if after > 0 && (value - book[after - 1]).abs() <= (book[after] - value).abs() {
        after - 1
    } else {
        after
    }
}

/// Values near which all of `values` are: Lloyd's rounds (1982) from quantiles on, in rising order. Zero stays zero
/// where many weights are, as in a pruned network.
fn codebook(values: &[f32], entries: usize) -> Vec<f32> {
    let mut sorted: Vec<f32> = values.iter().copied().filter(|value| value.is_finite()).collect();
    sorted.sort_by(f32::total_cmp);
    if sorted.is_empty() {
        return vec![0.0];
    }
    let zeros = sorted.iter().filter(|&&value| value == 0.0).count();
    let keeps_zero = zeros * entries > sorted.len();
    let mut sums = vec![0f64; sorted.len() + 1];
    for (at, value) in sorted.iter().enumerate() {
        sums[at + 1] = sums[at] + f64::from(*value);
    }
    // Half from quantiles, half evenly spread, so that the few large ones have values near them too.
    let (low, high) = (sorted[0], sorted[sorted.len() - 1]);
    let mut book: Vec<f32> = (0..entries)
        .map(|at| {
            let share = (at as f64 + 0.5) / entries as f64;
            let quantile = sorted[(share * sorted.len() as f64) as usize];
            (quantile + low + (high - low) * share as f32) / 2.0
        })
        .collect();
    for _ in 0..CODEBOOK_ROUNDS {
        book.sort_by(f32::total_cmp);
        let mut moved = 0f32;
        let mut from = 0;
        for at in 0..book.len() {
            let to = match book.get(at + 1) {
                Some(next) => {
                    let border = (book[at] + next) / 2.0;
                    sorted.partition_point(|&value| value <= border).max(from)
                }
                None => sorted.len(),
            };
            if to > from {
                let mean = ((sums[to] - sums[from]) / (to - from) as f64) as f32;
                moved = moved.max((mean - book[at]).abs());
                book[at] = mean;
            }
            from = to;
        }
        if moved <= (high - low) * 1e-6 {
            break;
        }
    }
    if keeps_zero {
        let at = nearest(&book, 0.0);
        book[at] = 0.0;
    }
    book.sort_by(f32::total_cmp);
    book
}
