//! Whether rows of a batch see each other: by the signature, then by trying it.

use std::fmt::{self, Display};

use formats::onnx::{Dimension, Signature, TensorSpec};

use super::batch::{join, split};
use super::runner::Runner;
use super::tensor::{Elements, Storage, Tensor};

/// Lengths tried for dimensions that may have any, in this order, until the model runs.
const LENGTHS: [usize; 4] = [2, 16, 64, 224];
/// Of a batched row from the single one, relative to the larger of 1 and the value.
const DIFFERENCE_MAX: f32 = 1e-4;

/// Whether calls are run together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Batching {
    /// Up to so many rows at once.
    Rows(usize),
    /// Each call alone, and why.
    Alone(String),
}

impl Display for Batching {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Batching::Rows(rows) => write!(f, "up to {rows} rows of several calls at once"),
            Batching::Alone(why) => write!(f, "each call alone: {why}"),
        }
    }
}

/// Two rows are run alone and together; what comes out must be the same.
pub(super) fn probe(runner: &Runner, signature: &Signature, rows_max: usize) -> Batching {
    if rows_max < 2 {
        return Batching::Alone("the settings say one row".to_owned());
    }
    if let Some(why) = first_dimension(signature) {
        return Batching::Alone(why);
    }
    let mut last = String::new();
    for length in LENGTHS {
        let rows = [1, 2].map(|seed| inputs(signature, length, seed));
        let alone: Result<Vec<_>, _> = rows.iter().map(|row| runner.run(row.clone())).collect();
        match alone {
            Ok(alone) => return compare(runner, &rows, &alone, rows_max),
            Err(error) => last = error,
        }
    }
    Batching::Alone(format!("a trial with made-up inputs did not run ({last})"))
}

fn compare(runner: &Runner, rows: &[Vec<Tensor>], alone: &[Vec<Tensor>], rows_max: usize) -> Batching {
    let together = runner.run(join(rows.iter().map(Vec::as_slice)));
    let together = match together {
        Ok(outputs) => split(&outputs, &[1, 1]),
        Err(error) => return Batching::Alone(format!("a trial with two rows did not run ({error})")),
    };
    match together {
        Some(together) if together.iter().zip(alone).all(|(one, other)| agree(one, other)) => {
            Batching::Rows(rows_max)
        }
        Some(_) => Batching::Alone("a row's result depends on the other rows".to_owned()),
        None => Batching::Alone("two rows in don't give two rows out".to_owned()),
    }
}

/// Why batching is out of the question, where it is.
fn first_dimension(signature: &Signature) -> Option<String> {
    let mut name: Option<&Option<String>> = None;
    if signature.inputs.is_empty() {
        return Some("it has no input".to_owned());
    }
    for spec in signature.inputs.iter().chain(&signature.outputs) {
        match spec.shape.as_ref().and_then(|shape| shape.first()) {
            Some(Dimension::Dynamic(found)) if name.is_none_or(|name| name == found) => name = Some(found),
            Some(Dimension::Dynamic(_)) => return Some("first dimensions have different names".to_owned()),
            _ => return Some(format!("the first dimension of {} isn't open", spec.name)),
        }
    }
    None
}

/// One row of made-up inputs: floats of -1 to 1, and integers of 0 and 1, which are indices of nearly anything.
fn inputs(signature: &Signature, length: usize, seed: u64) -> Vec<Tensor> {
    let mut state = seed;
    let mut draw = move || {
        // SplitMix64 (Steele, Lea and Flood 2014).
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) >> 40
    };
    let mut tensor = |spec: &TensorSpec| {
        let lengths = spec.shape.iter().flatten().skip(1).map(|dimension| match dimension {
            Dimension::Fixed(length) => *length,
            Dimension::Dynamic(_) => length,
        });
        let shape: Vec<usize> = [1].into_iter().chain(lengths).collect();
        // A shape that no memory holds has no elements here, and the run says so.
        let count = Tensor::elements_of(&shape).filter(|count| *count <= 1 << 28).unwrap_or(0);
        let elements = match Storage::of(spec.element) {
            Storage::Float => {
                Elements::Float((0..count).map(|_| draw() as f32 / (1 << 23) as f32 - 1.0).collect())
            }
            Storage::Int32 => Elements::Int32((0..count).map(|_| (draw() & 1) as i32).collect()),
            Storage::Int8 => Elements::Int8((0..count).map(|_| (draw() & 1) as i8).collect()),
            Storage::Uint8 => Elements::Uint8((0..count).map(|_| (draw() & 1) as u8).collect()),
        };
        Tensor { shape, elements }
    };
    signature.inputs.iter().map(&mut tensor).collect()
}

fn agree(one: &[Tensor], other: &[Tensor]) -> bool {
    let near = |(a, b): (&f32, &f32)| {
        (a.is_nan() && b.is_nan()) || a == b || (a - b).abs() <= DIFFERENCE_MAX * a.abs().max(1.0)
    };
    one.len() == other.len()
        && one.iter().zip(other).all(|(one, other)| {
            one.shape == other.shape
                && match (&one.elements, &other.elements) {
                    (Elements::Float(one), Elements::Float(other)) => one.iter().zip(other).all(near),
                    (one, other) => one == other,
                }
        })
}
