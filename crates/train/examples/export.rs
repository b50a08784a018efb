//! Writes the networks of `tests/networks` to a folder, each with inputs and predictions as safetensors, for other
//! programs to be held against, and some in the middle of their training: `export FOLDER`.

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
        std::fs::write(path.with_extension("onnx"), onnx::write(&network.model).unwrap()).unwrap();
        keras::save(&network.model, &path.with_extension("keras")).unwrap();
        let x = network.x.iter().enumerate().map(|(number, x)| (format!("x{number}"), x));
        let y = y.iter().enumerate().map(|(number, y)| (format!("y{number}"), y));
        let bytes = safetensors(x.chain(y));
        std::fs::write(path.with_extension("safetensors"), bytes).unwrap();
    }
    std::fs::create_dir_all(folder.join("fitted")).unwrap();
    fitted(&folder.join("fitted"));
}

/// A model in the middle of its training, with what the next steps' losses are.
fn fitted(folder: &Path) {
    let x = networks::all().into_iter().find(|network| network.name == "threshold").unwrap().x.remove(0);
    let y = Array::new([networks::SAMPLES, 2], x.values[..2 * networks::SAMPLES].to_vec()).unwrap();
    let rate = Schedule::CosineDecay {
        initial_learning_rate: 0.001,
        decay_steps: 20.0,
        alpha: 0.1,
        warmup_target: Some(0.02),
        warmup_steps: 4.0,
    };
    let optimizers: [(&str, Optimizer); 9] = [
        ("nadam", Nadam.learning_rate(0.01)),
        ("muon", Muon.learning_rate(0.01)),
        ("adafactor", Adafactor.learning_rate(0.01)),
        ("scheduled", Adam.learning_rate(rate)),
        ("gathered", Adam.learning_rate(0.01).use_ema(0.9).gradient_accumulation_steps(2)),
        ("adam", Adam.learning_rate(0.01)),
        ("sgd", Optimizer::new(Rule::SGD { momentum: 0.9, nesterov: true }, 0.01).clipnorm(1.0)),
        (
            "rmsprop",
            Optimizer::new(Rule::RMSprop { rho: 0.9, momentum: 0.5, epsilon: 1e-7, centered: true }, 0.01),
        ),
        ("adamw", AdamW.learning_rate(0.01)),
    ];
    for (name, optimizer) in optimizers {
        let input = Input::new([6]);
        let h = BatchNormalization::new().on(Dense::new(4).activation(Tanh).on(&input));
        let mut model = Model::with(&input, Dense::new(2).on(&h), 7, 1).unwrap();
        model.compile(optimizer, Loss::Huber { delta: 0.5 }, [] as [Metric; 0]).unwrap();
        for _ in 0..3 {
            model.train_on_batch(&x, &y).unwrap();
        }
        let path = folder.join(name);
        keras::save(&model, &path.with_extension("keras")).unwrap();
        let losses: Vec<f32> = (0..5).map(|_| model.train_on_batch(&x, &y).unwrap()).collect();
        let losses = Array::new([5], losses).unwrap();
        let arrays = [("x0", &x), ("targets", &y), ("losses", &losses)];
        let bytes = safetensors(arrays.into_iter().map(|(name, array)| (name.to_owned(), array)));
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
