//! The networks of examples/article made smaller in every way, with a line of figures and a report for each.
//!
//! `networks DEFINITION RUN OUTPUT STUDENT`: a definition, the folder that `tureen train` filled by it, the folder that is
//! written to, and the definition of a smaller network.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use compress::networks::{
    Budget, Calibration, Coding, Form, Method, NetworkError, Request, Teaching, Wish, compress,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn methods(student: &Path, bytes: u64) -> Vec<(&'static str, Method)> {
    let calibration = Calibration::MinMax;
    let products = |form| Method::Products { form, calibration };
    vec![
        ("float16", Method::Weights(Coding::Float16)),
        ("int8-weights", Method::Weights(Coding::Int8)),
        ("codebook4", Method::Weights(Coding::Codebook4)),
        ("int8-static", products(Form::Static)),
        ("int8-percentile", Method::Products { form: Form::Static, calibration: Calibration::Percentile }),
        ("int8-entropy", Method::Products { form: Form::Static, calibration: Calibration::Entropy }),
        ("int8-dynamic", products(Form::Dynamic)),
        ("int8-qdq", products(Form::Qdq)),
        ("low-rank", Method::LowRank(Budget::Error(0.3))),
        ("half-the-units", Method::Prune { keep: 0.5, units: true, epochs: 15 }),
        ("half-the-weights", Method::Prune { keep: 0.5, units: false, epochs: 15 }),
        (
            "distilled",
            Method::Distil { student: student.to_owned(), teaching: Teaching::default(), epochs: None },
        ),
        ("aware-of-3-bits", Method::Aware { greatest: 3, epochs: 15, form: Form::Static, calibration }),
        ("a-fifth-of-the-size", Method::Search(Wish { bytes_max: Some(bytes / 5), loss_max: None })),
        ("half-a-point-lost", Method::Search(Wish { bytes_max: None, loss_max: Some(0.005) })),
    ]
}

fn main() -> Result<(), NetworkError> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [definition, run, output, student] = &arguments[..] else {
        eprintln!("networks DEFINITION RUN OUTPUT STUDENT");
        std::process::exit(2);
    };
    let source = run.join("model.onnx");
    let bytes = std::fs::metadata(&source).map_or(0, |metadata| metadata.len());
    println!(
        "{:20} {:>8} {:>6} {:>9} {:>9} {:>9} {:>11} {:>10}",
        "method", "bytes", "share", "numbers", "accuracy", "original", "one, in us", "rows/s"
    );
    for (name, method) in methods(student, bytes) {
        let request = Request {
            source: source.clone(),
            definition: Some(definition.clone()),
            output: output.join(name),
            method,
        };
        let report = compress(&request, &mut |_| ControlFlow::Continue(()))?.report;
        let (before, after) = (&report.before, &report.after);
        println!(
            "{name:20} {:8} {:5.1}% {:9} {:8.2}% {:8.2}% {:11.1} {:10.0}",
            after.bytes,
            100.0 * after.bytes as f64 / before.bytes as f64,
            after.parameters,
            100.0 * after.accuracy.unwrap_or(f64::NAN),
            100.0 * before.accuracy.unwrap_or(f64::NAN),
            1e6 * after.single_seconds,
            after.samples_per_second,
        );
    }
    Ok(())
}
