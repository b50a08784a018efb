//! What `train` writes as ONNX, run by `engine`: the two don't know each other. Held against a trained model's own
//! predictions; `onnxruntime` is asked the same in `e2e/test_training_files.py`.

#![allow(clippy::unwrap_used)] // functions that tests share count as no tests

#[path = "../../train/tests/networks/mod.rs"]
mod networks;

use std::collections::BTreeSet;
use std::time::Duration;

use engine::onnx::{Batching, Elements, Onnx, Settings, Tensor};
use train::files::onnx::write;
use train::layers::supported;
use train::prelude::Array;

const SETTINGS: Settings =
    Settings { threads: 1, queue_max: 1, batch_rows_max: 8, batch_wait: Duration::ZERO };
const DIFFERENCE_MAX: f32 = 1e-5;

fn load(bytes: &[u8]) -> Onnx {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    std::fs::write(&path, bytes).unwrap();
    Onnx::load(&path, &SETTINGS).unwrap()
}

fn run(onnx: &Onnx, xs: &[Array]) -> Vec<Vec<f32>> {
    let tensor = |x: &Array| Tensor { shape: x.shape.clone(), elements: Elements::Float(x.values.clone()) };
    let inputs = onnx.check(xs.iter().map(tensor).enumerate().collect()).unwrap();
    let outputs = onnx.blocking_call(inputs).unwrap();
    let floats = |tensor: Tensor| match tensor.elements {
        Elements::Float(values) => values,
        other => panic!("{other:?}"),
    };
    outputs.into_iter().map(floats).collect()
}

fn assert_near(name: &str, found: &[Vec<f32>], expected: &[Array]) {
    assert_eq!(found.len(), expected.len(), "{name}");
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found.len(), expected.values.len(), "{name}");
        for (found, expected) in found.iter().zip(&expected.values) {
            let difference = (found - expected).abs() / expected.abs().max(1.0);
            assert!(difference < DIFFERENCE_MAX, "{name}: {found}, not {expected}");
        }
    }
}

#[test]
fn every_layer_runs_in_the_engine_as_it_does_in_training() {
    let mut seen = BTreeSet::new();
    for mut network in networks::all() {
        seen.extend(network.model.layers().map(|(_, layer)| layer.class_name()));
        let onnx = load(&write(&network.model).unwrap());
        let expected = network.model.predict(network.x.clone(), networks::SAMPLES).unwrap();
        assert_near(&network.name, &run(&onnx, &network.x), &expected);
        // The batch is open, and calls of others don't change what one is answered.
        assert_eq!(onnx.batching(), &Batching::Rows(8), "{}", network.name);
        let one: Vec<Array> = network.x.iter().map(|x| first(x, 1)).collect();
        let expected: Vec<Array> = expected.iter().map(|y| first(y, 1)).collect();
        assert_near(&network.name, &run(&onnx, &one), &expected);
    }
    let missing: Vec<_> = supported().filter(|class| !seen.contains(class)).collect();
    assert!(missing.is_empty(), "no network has {missing:?}");
}

fn first(array: &Array, samples: usize) -> Array {
    let values = array.values[..samples * array.sample_len()].to_vec();
    Array::new([&[samples], &array.shape[1..]].concat(), values).unwrap()
}
