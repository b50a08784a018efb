//! `tureen compress` as a process: into the store, where what came of it is listed, shown and run; and into a file.

#![allow(clippy::unwrap_used)] // functions that tests share count as no tests

use std::path::{Path, PathBuf};
use std::process::Command;

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/decoders/llama/model.gguf")
}

/// Runs it in `folder`, with its store there; its exit code, standard output and standard error.
fn tureen(folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tureen"));
    command.current_dir(folder).env("TUREEN_MODELS", folder.join("models")).args(arguments);
    let output = command.output().unwrap();
    let [out, err] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    (output.status.code().unwrap(), out, err)
}

fn succeeds(folder: &Path, arguments: &[&str]) -> String {
    let (code, out, err) = tureen(folder, arguments);
    assert_eq!(code, 0, "{arguments:?}: {out}{err}");
    out
}

fn write_text(folder: &Path) {
    let text: String = (0..300).map(|i| format!("{i} and {} make {}. ", i * 7, 8 * i)).collect();
    std::fs::write(folder.join("text.txt"), text).unwrap();
}

#[test]
fn a_version_of_its_own_with_parent_metrics_and_report() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_text(folder);
    succeeds(folder, &["pull", fixture().to_str().unwrap(), "--as", "tiny"]);
    let said = succeeds(
        folder,
        &["compress", "tiny", "--to", "q4_0", "--calibration", "text.txt", "--measure", "text.txt"],
    );
    assert!(said.contains("perplexity") && said.contains("tureen run tiny:q4_0"), "{said}");
    let list = succeeds(folder, &["list"]);
    assert!(list.contains("tiny:q4_0"), "{list}");
    let place = folder.join("models/tiny/@2");
    let manifest: serde_json::Value =
        serde_json::from_slice(&std::fs::read(place.join("manifest.json")).unwrap()).unwrap();
    assert_eq!(manifest["parent"], "tiny@1");
    assert_eq!(manifest["facts"]["quantisation"], "Q4_0");
    assert!(manifest["metrics"]["kl_mean"].as_f64().unwrap() > 0.0);
    let report: serde_json::Value =
        serde_json::from_slice(&std::fs::read(place.join("Q4_0.report.json")).unwrap()).unwrap();
    assert!(report["bytes_after"].as_u64().unwrap() < report["bytes_before"].as_u64().unwrap() / 3);
    assert!(report["calibration_tokens"].as_u64().unwrap() >= 512);
    assert!(std::fs::read_to_string(place.join("Q4_0.report.html")).unwrap().contains("KL divergence"));
    succeeds(folder, &["verify", "tiny:q4_0"]);
    succeeds(folder, &["run", "tiny:q4_0", "hello", "--tokens-max", "3"]);
}

#[test]
fn a_file_where_one_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let model = fixture();
    let model = model.to_str().unwrap();
    let said = succeeds(folder, &["compress", model, "--to", "Q8_0", "--output", "small.gguf"]);
    assert!(said.contains("small.report.html"), "{said}");
    assert!(folder.join("small.gguf").exists() && folder.join("small.report.json").exists());
    succeeds(folder, &["show", "./small.gguf"]);
    let (code, _, err) = tureen(folder, &["compress", model, "--to", "Q4_KM", "--output", "no.gguf"]);
    assert_eq!((code, err.contains("did you mean Q4_K")), (2, true), "{err}");
    let (code, _, err) =
        tureen(folder, &["compress", model, "--to", "Q8_0", "--output", "no.gguf", "--measure", "none.txt"]);
    assert_eq!((code, err.contains("none.txt")), (1, true), "{err}");
    assert!(!folder.join("no.gguf").exists());
    // What can't be measured is said before there is a model, and so is what isn't for this kind of model.
    std::fs::write(folder.join("short.txt"), "too short").unwrap();
    for (options, expected) in [
        (["--measure", "short.txt"], "tokens"),
        (["--calibration", "short.txt"], "tokens"),
        (["--student", "small.toml"], "--student is for networks"),
        (["--rounding", "gptq"], "needs --calibration"),
        (["--drop-layers", "1"], "needs --calibration"),
    ] {
        let arguments = [&["compress", model, "--to", "Q8_0", "--output", "no.gguf"][..], &options].concat();
        let (code, _, err) = tureen(folder, &arguments);
        assert!(code != 0 && err.contains(expected), "{options:?}: {err}");
    }
    let mut left: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["short.txt", "small.gguf", "small.report.html", "small.report.json"]);
    // Neither is a folder, nor what is a device.
    std::fs::create_dir(folder.join("there")).unwrap();
    for place in ["there", "/dev/null"] {
        let (code, _, err) = tureen(folder, &["compress", model, "--to", "Q8_0", "--output", place]);
        assert!(code == 2 && err.contains("is no file"), "{place}: {err}");
    }
    // The file that is read is not written to.
    let (code, _, err) =
        tureen(folder, &["compress", "./small.gguf", "--to", "Q4_0", "--output", "small.gguf"]);
    assert!(code != 0 && err.contains("small.gguf"), "{err}");
}

const NETWORK: &str = r#"
[model]
input = [16]
layers = [{ class = "Dense", units = 64, activation = "relu" }, { class = "Dense", units = 2, activation = "softmax" }]
[data]
path = "samples.csv"
y = "label"
[compile]
optimizer = "adam"
loss = "sparse_categorical_crossentropy"
metrics = ["accuracy"]
[fit]
epochs = 2
"#;

#[test]
fn a_network_is_trained_kept_and_made_smaller() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let names: Vec<String> = (0..16).map(|i| format!("x{i}")).collect();
    let mut csv = names.join(",") + ",label\n";
    for row in 0..200 {
        let values: Vec<i32> = (0..16).map(|i| (row * 7919 + i * 104_729) % 101 - 50).collect();
        let label = i32::from(values.iter().sum::<i32>() > 0);
        let values: Vec<String> =
            values.iter().map(|value| format!("{}", f64::from(*value) / 50.0)).collect();
        csv += &format!("{},{label}\n", values.join(","));
    }
    std::fs::write(folder.join("samples.csv"), csv).unwrap();
    std::fs::write(folder.join("net.toml"), NETWORK).unwrap();
    let said = succeeds(folder, &["train", "net.toml", "--publish", "net"]);
    assert!(said.contains("kept as net@1"), "{said}");
    // What a killed run left is no part of the version.
    let staged = folder.join("models/.partial/net@int8-weights");
    std::fs::create_dir_all(&staged).unwrap();
    std::fs::write(staged.join("left.onnx"), "1").unwrap();
    let said = succeeds(folder, &["compress", "net", "--to", "int8-weights", "--definition", "net.toml"]);
    assert!(said.contains("accuracy") && said.contains("net:int8-weights is net@2"), "{said}");
    let place = folder.join("models/net/@2");
    let manifest: serde_json::Value =
        serde_json::from_slice(&std::fs::read(place.join("manifest.json")).unwrap()).unwrap();
    assert_eq!((&manifest["parent"], &manifest["entry"]), (&"net@1".into(), &"model.onnx".into()));
    assert!(manifest["metrics"]["accuracy"].is_number() && !place.join("left.onnx").exists());
    succeeds(folder, &["verify", "net:int8-weights"]);
    let (code, _, err) = tureen(folder, &["compress", "net", "--to", "int9", "--output", "no"]);
    assert_eq!((code, err.contains("did you mean int8")), (2, true), "{err}");
    let said = succeeds(folder, &["rm", "net@1", "--yes"]);
    assert!(said.contains("net means net@2 now"), "{said}");
}
