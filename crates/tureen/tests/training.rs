//! `tureen train` as a process: killed in the middle of an epoch, it goes on with the same bits; Ctrl-C is a checkpoint.

#![allow(clippy::unwrap_used)] // functions that tests share count as no tests

use std::fmt::Write;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

const DEFINITION: &str = "\
[model]
input = [4]
layers = [
  { class = \"Dense\", units = 32, activation = \"relu\" },
  { class = \"Dropout\", rate = 0.3 },
  { class = \"Dense\", units = 1 },
]
[data]
path = \"points.csv\"
y = \"y\"
normalize = \"standard\"
[compile]
loss = \"mse\"
[fit]
epochs = 12
batch_size = 4
checkpoint_steps = 50
threads = 1
";

/// The same columns, made out of noise.
const GAN: &str = "\
[generator]
input = [3]
layers = [{ class = \"Dense\", units = 16, activation = \"relu\" }, { class = \"Dense\", units = 5 }]
[discriminator]
input = [5]
layers = [
  { class = \"Dense\", units = 32, activation = \"leaky_relu\" },
  { class = \"Dropout\", rate = 0.3 },
  { class = \"Dense\", units = 1 },
]
[data]
path = \"points.csv\"
[gan]
loss = { class = \"wasserstein\", gradient_penalty = 5.0 }
critic_steps = 3
[fit]
epochs = 12
batch_size = 4
checkpoint_steps = 50
threads = 1
";

fn write_inputs(folder: &Path) {
    let mut csv = "a,b,c,d,y\n".to_owned();
    for i in 0..2000 {
        let x = |k: usize| ((i * k * 7919) % 1009) as f64 / 1009.0;
        writeln!(csv, "{},{},{},{},{}", x(1), x(2), x(3), x(5), x(1) * x(2) - x(3)).unwrap();
    }
    std::fs::write(folder.join("points.csv"), csv).unwrap();
    std::fs::write(folder.join("points.toml"), DEFINITION).unwrap();
    std::fs::write(folder.join("gan.toml"), GAN).unwrap();
}

fn train(folder: &Path, definition: &str, output: &str) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tureen"));
    command.current_dir(folder).args(["train", definition, "--json", "--output", output]);
    command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

/// Reads its lines until one holds `text`, and says whether one did.
fn read_until(child: &mut Child, text: &str) -> bool {
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines.map_while(Result::ok).any(|line| line.contains(text))
}

/// Kills a run of `definition` in mid-epoch, after 650 steps of 500 an epoch, and goes on with it.
fn check_killed(definition: &str, files: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    write_inputs(folder.path());
    assert!(train(folder.path(), definition, "whole").wait_with_output().unwrap().status.success());
    let mut killed = train(folder.path(), definition, "killed");
    assert!(read_until(&mut killed, "\"step\":650}"));
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert!(!folder.path().join("killed/model.onnx").exists(), "it was killed before it was done");
    let mut resumed = train(folder.path(), definition, "killed");
    assert!(read_until(&mut resumed, "\"event\":\"finished\""));
    assert!(resumed.wait().unwrap().success());
    for file in files {
        let bytes = |output: &str| std::fs::read(folder.path().join(output).join(file)).unwrap();
        assert!(bytes("whole") == bytes("killed"), "{file} has other bits");
    }
}

#[test]
fn a_killed_run_goes_on_with_the_same_bits() {
    check_killed("points.toml", &["model.safetensors", "model.onnx", "history.csv"]);
}

#[test]
fn a_killed_run_of_a_gan_goes_on_with_the_same_bits() {
    let files = ["model.safetensors", "discriminator.safetensors", "model.onnx", "history.csv"];
    check_killed("gan.toml", &files);
}

#[test]
fn ctrl_c_writes_a_checkpoint_and_ends_with_130() {
    let folder = tempfile::tempdir().unwrap();
    write_inputs(folder.path());
    std::fs::write(folder.path().join("points.toml"), DEFINITION.replace("epochs = 12", "epochs = 100000"))
        .unwrap();
    let mut child = train(folder.path(), "points.toml", "out");
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("\"event\":\"epoch\"")));
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(sent.unwrap().success());
    assert!(
        lines.last().unwrap().contains("\"event\":\"checkpoint\""),
        "the checkpoint is the last that happens"
    );
    assert_eq!(child.wait().unwrap().code(), Some(130));
}
