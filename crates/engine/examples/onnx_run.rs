//! Runs ONNX models for `bench/tensors/nodes`: each line of standard input is `{"model": PATH, "inputs": [{"name",
//! "shape", "data"}]}`, each line of output has `outputs` or `error`. Data are hexadecimal digits of little-endian
//! `f64`, so that infinities survive.

use std::io::{BufRead, Write};
use std::path::Path;
use std::time::Duration;

use engine::onnx::{Elements, Onnx, Settings, Storage, Tensor};
use serde_json::{Value, json};

const SETTINGS: Settings =
    Settings { threads: 1, queue_max: 1, batch_rows_max: 1, batch_wait: Duration::ZERO };

fn main() -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let answer = run(&line?).unwrap_or_else(|error| json!({ "error": error }));
        writeln!(out, "{answer}")?;
        out.flush()?;
    }
    Ok(())
}

fn run(line: &str) -> Result<Value, String> {
    let asked: Value = serde_json::from_str(line).map_err(|error| error.to_string())?;
    let path = Path::new(asked["model"].as_str().unwrap_or_default());
    let onnx = Onnx::load(path, &SETTINGS).map_err(|error| format!("load: {error}"))?;
    let mut inputs = Vec::new();
    for input in asked["inputs"].as_array().into_iter().flatten() {
        let index = onnx.input_index(input["name"].as_str().unwrap_or_default());
        let index = index.map_err(|error| format!("check: {error}"))?;
        let storage = Storage::of(onnx.signature().inputs[index].element);
        inputs.push((index, tensor(input, storage).ok_or("check: an input that isn't as it should be")?));
    }
    let inputs = onnx.check(inputs).map_err(|error| format!("check: {error}"))?;
    let outputs = onnx.blocking_call(inputs).map_err(|error| format!("run: {error}"))?;
    let outputs: Vec<Value> = outputs
        .into_iter()
        .map(|output| json!({ "shape": output.shape, "data": hex(&numbers(output.elements)) }))
        .collect();
    Ok(json!({ "outputs": outputs }))
}

fn tensor(input: &Value, storage: Storage) -> Option<Tensor> {
    let shape = input["shape"].as_array()?.iter().map(|length| length.as_u64().map(|length| length as usize));
    let digits = input["data"].as_str()?.as_bytes();
    let number = |digits: &[u8]| {
        let bits = u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        Some(f64::from_bits(bits.swap_bytes()))
    };
    let values: Option<Vec<f64>> = digits.chunks(16).map(number).collect();
    let values = values?.into_iter();
    let elements = match storage {
        Storage::Float => Elements::Float(values.map(|value| value as f32).collect()),
        Storage::Int32 => Elements::Int32(values.map(|value| value as i32).collect()),
        Storage::Int8 => Elements::Int8(values.map(|value| value as i8).collect()),
        Storage::Uint8 => Elements::Uint8(values.map(|value| value as u8).collect()),
    };
    Some(Tensor { shape: shape.collect::<Option<_>>()?, elements })
}

fn numbers(elements: Elements) -> Vec<f64> {
    match elements {
        Elements::Float(values) => values.into_iter().map(f64::from).collect(),
        Elements::Int32(values) => values.into_iter().map(f64::from).collect(),
        Elements::Int8(values) => values.into_iter().map(f64::from).collect(),
        Elements::Uint8(values) => values.into_iter().map(f64::from).collect(),
    }
}

fn hex(values: &[f64]) -> String {
    values.iter().map(|value| format!("{:016x}", value.to_bits().swap_bytes())).collect()
}
