//! Each method on networks that are trained here, run by the engine as they are served.

#![allow(clippy::unwrap_used)] // clippy doesn't see that what the tests call is part of them

use std::fmt::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use compress::networks::*;

/// Four classes of 8 x 8 patterns with noise on them, in some order that only the seed decides.
fn data(folder: &Path) {
    let mut state = 7u64;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1u64 << 24) as f32
    };
    for (name, rows) in [("train.csv", 600), ("test.csv", 200)] {
        let mut text = (0..64).map(|at| format!("f{at},")).collect::<String>() + "label\n";
        for _ in 0..rows {
            let class = (next() * 4.0) as usize;
            for at in 0..64 {
                let (x, y) = (at % 8, at / 8);
                let pattern = [x < 4, y < 4, x == y, (x + y) % 2 == 0][class];
                let _ = write!(text, "{:.3},", f32::from(u8::from(pattern)) + 1.2 * (next() - 0.5));
            }
            let _ = writeln!(text, "{class}");
        }
        std::fs::write(folder.join(name), text).unwrap();
    }
}

const LAYERS: [(&str, &str); 2] = [
    (
        "dense",
        r#"input = [64]
layers = [
  { class = "Dense", units = 64, activation = "relu" },
  { class = "BatchNormalization" },
  { class = "Dense", units = 32, activation = "relu" },
  { class = "Dense", units = 4, activation = "softmax" },
]"#,
    ),
    (
        "cnn",
        r#"input = [64]
layers = [
  { class = "Reshape", target_shape = [8, 8, 1] },
  { class = "Conv2D", filters = 16, kernel_size = 3, padding = "same", activation = "relu" },
  { class = "MaxPooling2D", pool_size = 2 },
  { class = "Conv2D", filters = 16, kernel_size = 3, padding = "same", activation = "relu" },
  { class = "Flatten" },
  { class = "Dense", units = 4, activation = "softmax" },
]"#,
    ),
];

/// A network that was trained in `folder`: the ONNX file and the definition.
fn trained(folder: &Path, name: &str) -> (PathBuf, PathBuf) {
    data(folder);
    let layers = LAYERS.iter().find(|(other, _)| *other == name).unwrap().1;
    let definition = folder.join(format!("{name}.toml"));
    std::fs::write(
        &definition,
        format!(
            "[model]\n{layers}\n[data]\npath = \"train.csv\"\ny = \"label\"\ntest = {{ path = \"test.csv\" }}\n\
             [compile]\nloss = \"sparse_categorical_crossentropy\"\nmetrics = [\"accuracy\"]\n\
             [fit]\nepochs = 6\nvalidation_split = 0.1\n"
        ),
    )
    .unwrap();
    let output = folder.join(name);
    train::run::run(&definition, &output, &mut |_| ControlFlow::Continue(())).unwrap();
    (output.join("model.onnx"), definition)
}

struct Check {
    _folder: tempfile::TempDir,
    source: PathBuf,
    definition: PathBuf,
}

impl Check {
    fn new(name: &str) -> Check {
        let folder = tempfile::tempdir().unwrap();
        let (source, definition) = trained(folder.path(), name);
        Check { source, definition, _folder: folder }
    }

    fn done(&self, method: Method) -> Report {
        let output = self.source.with_file_name("smaller");
        let request = Request {
            name: "net".to_owned(),
            source: self.source.clone(),
            definition: Some(self.definition.clone()),
            output,
            method,
        };
        let outcome = compress(&request, &mut |_| ControlFlow::Continue(())).unwrap();
        let there = std::fs::read_dir(request.output).unwrap().map(|file| file.unwrap().path());
        let there: std::collections::BTreeSet<PathBuf> = there.collect();
        assert!(outcome.files.iter().all(|file| there.contains(file)));
        assert!(there.iter().all(|file| !file.to_string_lossy().contains(".compressing-")), "{there:?}");
        let report = outcome.report;
        assert!(!report.method.contains(['{', '_']), "words for people: {}", report.method);
        let shown = (
            &report.method,
            report.before.accuracy,
            report.after.accuracy,
            report.before.bytes,
            report.after.bytes,
        );
        println!("{shown:?} {:?}", report.after.relative_error);
        report
    }

    /// Does it, and expects no more loss than `loss` and no more bytes than `share` of the original's.
    fn costs(&self, method: Method, loss: f64, share: f64) -> Report {
        let report = self.done(method);
        let (before, after) = (report.before.accuracy.unwrap(), report.after.accuracy.unwrap());
        assert!(before > 0.9, "it was trained: {before}");
        assert!(after >= before - loss, "{after} of {before}");
        assert!(report.after.bytes as f64 <= report.before.bytes as f64 * share, "{:?}", report.after);
        report
    }
}

/// Weights alone: the difference is that of the coding.
#[test]
fn weights_take_fewer_bits() {
    for name in ["dense", "cnn"] {
        let check = Check::new(name);
        for (coding, loss, share, error) in [
            (Coding::Float16, 0.0, 0.75, 1e-3),
            (Coding::Bfloat16, 0.01, 0.75, 4e-3),
            (Coding::Int8, 0.01, 0.65, 1e-2),
            (Coding::Codebook8, 0.01, 0.95, 1e-2),
            (Coding::Codebook4, 0.03, 0.6, 0.1),
        ] {
            let report = check.costs(Method::Weights(coding), loss, share);
            assert!(
                report.tensors.iter().all(|tensor| tensor.relative_error < error),
                "{:?}",
                report.tensors
            );
        }
    }
}

#[test]
fn products_take_whole_numbers_in_every_form() {
    for name in ["dense", "cnn"] {
        let check = Check::new(name);
        for form in [Form::Static, Form::Dynamic, Form::Qdq] {
            let calibration = Calibration::MinMax;
            let report = check.costs(Method::Products { form, calibration }, 0.015, 0.8);
            assert!(report.after.relative_error.unwrap() < 0.1, "{form:?}: {:?}", report.after);
        }
        for calibration in [Calibration::Percentile, Calibration::Entropy] {
            check.costs(Method::Products { form: Form::Static, calibration }, 0.02, 0.8);
        }
    }
}

#[test]
fn units_and_weights_go_and_training_heals() {
    for name in ["dense", "cnn"] {
        let check = Check::new(name);
        let report = check.costs(Method::Prune { keep: 0.5, units: true, epochs: 4 }, 0.03, 0.75);
        assert!(report.after.parameters as f64 <= 0.55 * report.before.parameters as f64);
        let report = check.costs(Method::Prune { keep: 0.3, units: false, epochs: 4 }, 0.03, 1.0);
        assert!(
            report.tensors.iter().all(|tensor| (tensor.zeros - 0.7).abs() < 0.02),
            "{:?}",
            report.tensors
        );
    }
}

#[test]
fn a_student_learns_from_a_teacher() {
    let check = Check::new("cnn");
    let student = check.definition.with_file_name("student.toml");
    let text = std::fs::read_to_string(&check.definition).unwrap();
    std::fs::write(&student, text.replace("filters = 16", "filters = 6")).unwrap();
    let method = Method::Distil { student, teaching: Teaching::default(), epochs: Some(10) };
    check.costs(method, 0.05, 0.8);
}

#[test]
fn training_knows_of_few_bits() {
    let check = Check::new("dense");
    let (form, calibration) = (Form::Static, Calibration::MinMax);
    let report = check.costs(Method::Aware { greatest: 3, epochs: 4, form, calibration }, 0.03, 0.8);
    // What was trained in three bits is said in eight without a difference.
    let of_products = report.tensors.iter().filter(|tensor| tensor.became == "int8 product");
    assert!(
        of_products.clone().count() == 3 && of_products.clone().all(|tensor| tensor.relative_error < 1e-5)
    );
}

#[test]
fn a_size_or_a_loss_is_asked_for() {
    let check = Check::new("dense");
    let before = std::fs::metadata(&check.source).unwrap().len();
    let wish = Wish { bytes_max: Some(before / 2), loss_max: None };
    let report = check.costs(Method::Search(wish), 0.05, 0.5);
    assert!(!report.notes.is_empty());
    check.costs(Method::Search(Wish { bytes_max: None, loss_max: Some(0.005) }), 0.03, 0.5);
    let request = Request {
        name: "net".to_owned(),
        source: check.source.clone(),
        definition: Some(check.definition.clone()),
        output: check.source.with_file_name("none"),
        method: Method::Search(Wish { bytes_max: Some(100), loss_max: None }),
    };
    let error = compress(&request, &mut |_| ControlFlow::Continue(())).unwrap_err().to_string();
    assert!(error.contains("target size") && error.contains("received 100"), "{error}");
}

#[test]
fn thin_products_are_within_their_error() {
    let check = Check::new("dense");
    let report = check.done(Method::LowRank(Budget::Error(0.5)));
    assert!(!report.tensors.is_empty());
    assert!(
        report
            .tensors
            .iter()
            .all(|tensor| tensor.relative_error <= 0.5 && tensor.bytes_after < tensor.bytes_before)
    );
    assert!(report.after.bytes < report.before.bytes);
}

/// Somebody else's files: what can be rewritten computes nearly the same, and all others are refused in words.
#[test]
fn files_of_others_are_rewritten_or_refused() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/onnx");
    let output = tempfile::tempdir().unwrap();
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let source = entry.unwrap().path();
        if source.extension().is_none_or(|extension| extension != "onnx") {
            continue;
        }
        for method in [
            Method::Weights(Coding::Int8),
            Method::Products { form: Form::Dynamic, calibration: Calibration::MinMax },
        ] {
            let output = output.path().to_owned();
            let request =
                Request { name: "net".to_owned(), source: source.clone(), definition: None, output, method };
            match compress(&request, &mut |_| ControlFlow::Continue(())) {
                Ok(outcome) => {
                    formats::onnx::read(&outcome.files[0]).unwrap();
                    seen += 1;
                }
                Err(error) => println!("{}: {error}", source.display()),
            }
        }
    }
    println!("{seen} files were rewritten");
}

/// The network that is read, and what lies beside it, are not written over.
#[test]
fn a_network_is_not_written_over_itself() {
    let check = Check::new("dense");
    let source = check.source.clone();
    let before = std::fs::read(&source).unwrap();
    let output = source.parent().unwrap().to_owned();
    let method = Method::Weights(Coding::Float16);
    let request =
        Request { name: "net".to_owned(), source: source.clone(), definition: None, output, method };
    let error = compress(&request, &mut |_| ControlFlow::Continue(())).err().unwrap();
    assert!(error.to_string().contains("written over"), "{error}");
    assert_eq!(std::fs::read(&source).unwrap(), before);
}

/// An operator that gives nothing is somebody's broken file, and no panic.
#[test]
fn an_operator_without_outputs_is_refused() {
    use formats::onnx::wire::{Message, Wire};
    let original = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/onnx");
    let output = tempfile::tempdir().unwrap();
    let mut seen = 0;
    for entry in std::fs::read_dir(original).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "onnx") {
            continue;
        }
        let mut model = Message::parse(std::fs::read(&path).unwrap().into()).unwrap();
        for (number, value) in &mut model.0 {
            let (7, Wire::Bytes(bytes)) = (*number, value) else { continue };
            let mut graph = Message::parse(bytes.clone()).unwrap();
            for (number, value) in &mut graph.0 {
                let (1, Wire::Bytes(node)) = (*number, value) else { continue };
                let mut message = Message::parse(node.clone()).unwrap();
                message.remove(2);
                *node = message.encode().into();
            }
            *bytes = graph.encode().into();
        }
        let source = output.path().join("broken.onnx");
        std::fs::write(&source, model.encode()).unwrap();
        for method in [Method::LowRank(Budget::Share(0.5)), Method::Weights(Coding::Int8)] {
            let (source, output) = (source.clone(), output.path().join("out"));
            let request = Request { name: "net".to_owned(), source, definition: None, output, method };
            assert!(compress(&request, &mut |_| ControlFlow::Continue(())).is_err(), "{}", path.display());
            seen += 1;
        }
    }
    assert!(seen > 0);
}

/// Weights whose bytes aren't those of their shape are nobody's model, whatever their type.
#[test]
fn weights_of_a_wrong_length_are_refused() {
    use formats::onnx::wire::{Message, Wire};
    let check = Check::new("dense");
    let output = check.source.with_file_name("cut");
    for element in [1, 10, 16] {
        let mut model = Message::parse(std::fs::read(&check.source).unwrap().into()).unwrap();
        for (number, value) in &mut model.0 {
            let (7, Wire::Bytes(bytes)) = (*number, value) else { continue };
            let mut graph = Message::parse(bytes.clone()).unwrap();
            for (number, value) in &mut graph.0 {
                let (5, Wire::Bytes(weight)) = (*number, value) else { continue };
                let mut message = Message::parse(weight.clone()).unwrap();
                message.remove(2);
                message.push_int(2, element);
                message.remove(9);
                message.push_bytes(9, vec![0; 6]);
                *weight = message.encode().into();
            }
            *bytes = graph.encode().into();
        }
        let source = check.source.with_file_name("broken.onnx");
        std::fs::write(&source, model.encode()).unwrap();
        let (name, method) = ("net".to_owned(), Method::Weights(Coding::Float16));
        let request = Request { name, source, definition: None, output: output.clone(), method };
        let error = compress(&request, &mut |_| ControlFlow::Continue(())).err().unwrap().to_string();
        assert!(error.contains("needs") || error.contains("bytes"), "{error}");
    }
    assert!(!output.exists() || output.read_dir().unwrap().next().is_none());
}
