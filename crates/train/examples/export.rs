//! Writes the networks of `tests/networks` to a folder, each with inputs and predictions as safetensors, for other
//! programs to be held against: `export FOLDER`.

#![allow(clippy::unwrap_used)] // what the tests share is written as tests are

#[path = "../tests/networks/mod.rs"]
mod networks;

use std::path::Path;

use train::files::{keras, onnx};
use train::prelude::*;

fn main() {
    let folder = std::env::args().nth(1).unwrap_or_else(|| ".".to_owned());
    let folder = Path::new(&folder);
    std::fs::create_dir_all(folder).unwrap();
    for mut network in networks::all() {
        let y = network.model.predict(network.x.clone(), networks::SAMPLES).unwrap();
        let path = folder.join(&network.name);
        std::fs::write(path.with_extension("onnx"), onnx::write(&network.model, &[]).unwrap()).unwrap();
        keras::save(&network.model, &path.with_extension("keras")).unwrap();
        let x = network.x.iter().enumerate().map(|(number, x)| (format!("x{number}"), x));
        let y = y.iter().enumerate().map(|(number, y)| (format!("y{number}"), y));
        let bytes = safetensors(x.chain(y));
        std::fs::write(path.with_extension("safetensors"), bytes).unwrap();
    }
}

/// huggingface.co/docs/safetensors: the length of a JSON header, the header, the values.
fn safetensors<'a>(arrays: impl Iterator<Item = (String, &'a Array)>) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    let mut values = vec![];
    for (name, array) in arrays {
        let start = values.len();
        values.extend(array.values.iter().flat_map(|value| value.to_le_bytes()));
        let offsets = [start, values.len()];
        let entry = serde_json::json!({ "dtype": "F32", "shape": array.shape, "data_offsets": offsets });
        header.insert(name, entry);
    }
    let header = serde_json::Value::Object(header).to_string();
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &values].concat()
}
