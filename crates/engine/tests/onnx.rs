//! ONNX models as `onnxruntime` runs them, alone and batched; and files that nobody should trust.

#![allow(clippy::unwrap_used)] // functions that tests share count as no tests

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use engine::onnx::{Batching, CallError, ElementType, Elements, Onnx, Settings, Storage, Tensor, TensorSpec};
use formats::onnx::{Dimension, GraphWriter};
use serde_json::Value;

/// Of a value from the golden one, relative to the larger of 1 and the golden one.
const DIFFERENCE_MAX: f64 = 1e-5;
const SETTINGS: Settings =
    Settings { threads: 2, queue_max: 64, batch_rows_max: 32, batch_wait: Duration::ZERO };
const MUTATIONS: usize = 10_000;
/// For loading or running one mutated file of a few kilobytes.
const SECONDS_MAX: u64 = 10;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/onnx")
}

fn load(name: &str) -> Onnx {
    Onnx::load(&folder().join(format!("{name}.onnx")), &SETTINGS).unwrap()
}

fn golden() -> serde_json::Map<String, Value> {
    let text = std::fs::read_to_string(folder().join("golden.json")).unwrap();
    serde_json::from_str::<Value>(&text).unwrap()["models"].as_object().unwrap().clone()
}

fn tensor(value: &Value, element: ElementType) -> Tensor {
    let shape = value["shape"].as_array().unwrap().iter().map(|length| length.as_u64().unwrap() as usize);
    let numbers = value["data"].as_array().unwrap().iter();
    let numbers = numbers.map(|number| number.as_f64().or(number.as_bool().map(f64::from)).unwrap());
    let elements = match Storage::of(element) {
        Storage::Float => Elements::Float(numbers.map(|number| number as f32).collect()),
        Storage::Int32 => Elements::Int32(numbers.map(|number| number as i32).collect()),
        Storage::Int8 => Elements::Int8(numbers.map(|number| number as i8).collect()),
        Storage::Uint8 => Elements::Uint8(numbers.map(|number| number as u8).collect()),
    };
    Tensor { shape: shape.collect(), elements }
}

fn inputs(onnx: &Onnx, golden: &Value) -> Vec<Tensor> {
    let named = golden["inputs"].as_object().unwrap();
    let inputs = named.iter().map(|(name, value)| {
        let index = onnx.input_index(name).unwrap();
        (index, tensor(value, onnx.signature().inputs[index].element))
    });
    onnx.check(inputs.collect()).unwrap()
}

fn numbers(elements: &Elements) -> Vec<f64> {
    match elements {
        Elements::Float(values) => values.iter().map(|value| f64::from(*value)).collect(),
        Elements::Int32(values) => values.iter().map(|value| f64::from(*value)).collect(),
        Elements::Int8(values) => values.iter().map(|value| f64::from(*value)).collect(),
        Elements::Uint8(values) => values.iter().map(|value| f64::from(*value)).collect(),
    }
}

fn assert_near(what: &str, found: &Tensor, expected: &Tensor) {
    assert_eq!(found.shape, expected.shape, "{what}");
    assert_eq!(found.elements.storage(), expected.elements.storage(), "{what}");
    for (found, expected) in numbers(&found.elements).iter().zip(numbers(&expected.elements)) {
        let difference = (found - expected).abs() / expected.abs().max(1.0);
        assert!(found == &expected || difference < DIFFERENCE_MAX, "{what}: {found} is not {expected}");
    }
}

#[test]
fn models_compute_what_onnxruntime_does() {
    for (name, golden) in golden() {
        let onnx = load(&name);
        let outputs = onnx.blocking_call(inputs(&onnx, &golden)).unwrap();
        let specs = &onnx.signature().outputs;
        assert_eq!(outputs.len(), specs.len());
        for (spec, output) in specs.iter().zip(&outputs) {
            let expected = tensor(&golden["outputs"][&spec.name], spec.element);
            assert_near(&format!("{name}.{}", spec.name), output, &expected);
        }
    }
}

/// The runtime alone takes 0 for positive.
#[test]
fn the_sign_of_zero_is_zero() {
    let mut graph = GraphWriter::new("signs");
    let spec = |name: &str| TensorSpec {
        name: name.to_owned(),
        element: ElementType::Float,
        shape: Some(vec![Dimension::Fixed(7)]),
    };
    graph.input(&spec("x"));
    let sign = graph.node("Sign", &["x"], &[]);
    graph.output(&spec("y"), &sign);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("signs.onnx");
    std::fs::write(&path, graph.finish("test").unwrap()).unwrap();
    let onnx = Onnx::load(&path, &SETTINGS).unwrap();
    let x = vec![-2.0, -0.0, 0.0, 1e-40, 5.0, f32::INFINITY, f32::NEG_INFINITY];
    let input = Tensor { shape: vec![7], elements: Elements::Float(x) };
    let outputs = onnx.blocking_call(onnx.check(vec![(0, input)]).unwrap()).unwrap();
    assert_eq!(numbers(&outputs[0].elements), [-1.0, 0.0, 0.0, 1.0, 1.0, 1.0, -1.0]);
}

#[test]
fn calls_are_batched_where_rows_do_not_see_each_other() {
    let check =
        |name: &str, expected: &str| assert_eq!(load(name).batching().to_string(), expected, "{name}");
    let together = "up to 32 rows of several calls at once";
    check("article", together);
    check("classifier", together);
    check("image", together);
    check("types", together);
    check("two_inputs", together);
    check("coupled", "each call alone: a row's result depends on the other rows");
    check("fixed", "each call alone: the first dimension of x isn't open");
    check("scalar", "each call alone: the first dimension of x isn't open");
}

#[test]
fn a_batched_row_is_the_single_one_within_rounding() {
    let golden = golden();
    for name in ["article", "classifier", "image", "two_inputs", "types"] {
        // The wait makes one run of all that is sent at once.
        let settings = Settings { batch_wait: Duration::from_millis(500), batch_rows_max: 24, ..SETTINGS };
        let waiting = Onnx::load(&folder().join(format!("{name}.onnx")), &settings).unwrap();
        assert_eq!(waiting.batching(), &Batching::Rows(24));
        let inputs = inputs(&waiting, &golden[name]);
        let alone = load(name).blocking_call(inputs.clone()).unwrap();
        let before = waiting.stats();
        let calls = 24 / inputs[0].shape[0];
        std::thread::scope(|scope| {
            for _ in 0..calls {
                scope.spawn(|| {
                    let outputs = waiting.blocking_call(inputs.clone()).unwrap();
                    for (found, expected) in outputs.iter().zip(&alone) {
                        assert_near(name, found, expected);
                    }
                });
            }
        });
        let after = waiting.stats();
        assert_eq!(after.rows_total - before.rows_total, 24);
        assert_eq!(after.runs_total - before.runs_total, 1, "{name} was not batched");
    }
}

#[test]
fn one_bad_call_does_not_hurt_those_beside_it() {
    let settings = Settings { batch_wait: Duration::from_millis(200), ..SETTINGS };
    let onnx = Onnx::load(&folder().join("classifier.onnx"), &settings).unwrap();
    let call = |id: i32| {
        let inputs = onnx.check(vec![(0, Tensor::int32(&[1, 2], vec![id, 1]))]).unwrap();
        onnx.blocking_call(inputs)
    };
    std::thread::scope(|scope| {
        let good = [1, 2].map(|id| scope.spawn(move || call(id)));
        // There are 16 rows in its table.
        let bad = scope.spawn(move || call(99));
        assert!(good.into_iter().all(|call| call.join().unwrap().is_ok()));
        let error = bad.join().unwrap().unwrap_err();
        assert!(matches!(&error, CallError::Run(_)), "{error}");
    });
}

#[test]
fn what_cannot_be_loaded_says_why() {
    let check = |path: PathBuf, expected: &str| {
        let error = Onnx::load(&path, &SETTINGS).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    check(folder().join("string.onnx"), "the type of the input \"x\" is string, which is not supported");
    check(folder().join("none.onnx"), "cannot open");
    check(folder().join("make.py"), "malformed ONNX");
}

/// SplitMix64 (Steele, Lea and Flood 2014).
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }
}

fn mutate(bytes: &mut Vec<u8>, draw: &mut Draw) {
    for _ in 0..1 + draw.below(2) {
        if bytes.is_empty() {
            return;
        }
        let at = draw.below(bytes.len());
        match draw.below(8) {
            0..=2 => bytes[at] ^= 1 << draw.below(8),
            3 => bytes[at] = draw.below(256) as u8,
            4 => bytes[at] = [0, 0x7f, 0x80, 0xff][draw.below(4)],
            5 => bytes.truncate(at),
            6 => {
                let end = (at + draw.below(16)).min(bytes.len());
                bytes.drain(at..end);
            }
            _ => {
                let end = (at + draw.below(32)).min(bytes.len());
                let copied = bytes[at..end].to_vec();
                bytes.splice(at..at, copied);
            }
        }
    }
}

/// Each is rejected or run; none panics beyond the runtime's door, hangs, or takes the process down.
#[test]
fn mutated_files_are_rejected_or_run() {
    // The runtime's panics are caught, and there are hundreds; those of other tests are news.
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let thread = std::thread::current();
        if !thread.name().is_some_and(|name| name.starts_with("rten") || name.starts_with("mutated")) {
            tell(panic);
        }
    }));
    let golden = golden();
    let mut draw = Draw(7);
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("mutated.onnx");
    let names = ["types", "two_inputs", "classifier", "coupled", "fixed", "scalar", "image", "article"];
    let originals = names.map(|name| std::fs::read(folder().join(format!("{name}.onnx"))).unwrap());
    let settings = Settings { threads: 1, ..SETTINGS };
    let (mut loaded, mut ran) = (0, 0);
    for number in 0..MUTATIONS {
        let which = number % names.len();
        let mut bytes = originals[which].clone();
        mutate(&mut bytes, &mut draw);
        std::fs::write(&path, &bytes).unwrap();
        let begun = Instant::now();
        if let Ok(onnx) = Onnx::load(&path, &settings) {
            loaded += 1;
            let named = golden[names[which]]["inputs"].as_object().unwrap();
            let inputs = named.iter().map(|(name, value)| {
                let index = onnx.input_index(name).ok()?;
                Some((index, tensor(value, onnx.signature().inputs[index].element)))
            });
            let inputs = inputs.collect::<Option<Vec<_>>>().and_then(|inputs| onnx.check(inputs).ok());
            ran += usize::from(inputs.is_some_and(|inputs| onnx.blocking_call(inputs).is_ok()));
            assert!(onnx.is_alive(), "mutation {number} of {} ended the engine", names[which]);
        }
        assert!(begun.elapsed() < Duration::from_secs(SECONDS_MAX), "mutation {number} of {}", names[which]);
    }
    println!("{MUTATIONS} mutated files: {loaded} loaded, {ran} ran");
    assert!(ran > MUTATIONS / 20 && loaded < MUTATIONS * 19 / 20);
}
