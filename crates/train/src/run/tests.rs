//! Runs: that they learn, go on from where they were interrupted with the same bits, and say what went wrong.

use std::fmt::Write;
use std::path::PathBuf;

use super::*;
use crate::activations::Activation;
use crate::layers::Dense;
use crate::model::{Model, Shared, Wire};

/// Three spirals of points, with a column for a weight and a class by name.
fn spirals(samples: usize) -> String {
    let mut csv = "x,y,noise,kind\n".to_owned();
    for i in 0..samples {
        let (class, t) = (i % 3, (i / 3) as f64 / (samples / 3) as f64);
        let angle = class as f64 * 2.094 + 3.0 * t;
        let noise = ((i * 7919) % 101) as f64 / 101.0;
        writeln!(csv, "{},{},{noise},{}", t * angle.cos(), t * angle.sin(), ["red", "green", "blue"][class])
            .unwrap();
    }
    csv
}

const MODEL: &str = "[model]\ninput = [3]\nlayers = [\n\
    { class = 'Dense', units = 24, activation = 'relu' },\n{ class = 'BatchNormalization' },\n\
    { class = 'Dropout', rate = 0.2 },\n{ class = 'Dense', units = 16, activation = 'tanh' },\n\
    { class = 'Dense', units = 3, activation = 'softmax' },\n]\n\
    [data]\npath = 'a.csv'\ny = 'kind'\nnormalize = 'standard'\n\
    [compile]\noptimizer = { class = 'Adam', learning_rate = 0.02 }\nloss = 'categorical_crossentropy'\n\
    metrics = ['accuracy', 'auc']\n";

struct Folder(tempfile::TempDir);

impl Folder {
    fn new(definition: &str) -> Folder {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.csv"), spirals(300)).unwrap();
        std::fs::write(folder.path().join("a.toml"), definition).unwrap();
        Folder(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn run(&self, to: &str, on: &mut dyn FnMut(&Event) -> ControlFlow<()>) -> Result<Outcome> {
        run(&self.path("a.toml"), &self.path(to), on)
    }

    fn error(&self, to: &str) -> String {
        self.run(to, &mut |_| ControlFlow::Continue(())).unwrap_err().to_string()
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }
}

#[test]
fn a_run_learns_and_publishes() {
    let folder = Folder::new(&format!(
        "{MODEL}[fit]\nepochs = 40\nvalidation_split = 0.2\nclass_weight = 'balanced'\n"
    ));
    let mut events = vec![];
    let outcome = folder.run("out", &mut |event| {
        events.push(event.clone());
        ControlFlow::Continue(())
    });
    let outcome = outcome.unwrap();
    assert!(!outcome.stopped && outcome.metrics["val_accuracy"] > 0.8, "{:?}", outcome.metrics);
    let names: Vec<_> =
        outcome.files.iter().map(|file| file.file_name().unwrap().to_str().unwrap()).collect();
    let expected =
        ["model.onnx", "model.safetensors", "definition.toml", "classes.json", "history.csv", "report.html"];
    assert_eq!(names, expected);
    let classes = String::from_utf8(folder.bytes("out/classes.json")).unwrap();
    assert!(classes.contains("\"blue\",\n    \"green\",\n    \"red\""), "{classes}");
    let history = String::from_utf8(folder.bytes("out/history.csv")).unwrap();
    assert!(history.starts_with("epoch,loss,accuracy,auc,val_loss,val_accuracy,val_auc\n1,"), "{history}");
    assert_eq!(history.lines().count(), 41);
    let report = String::from_utf8(folder.bytes("out/report.html")).unwrap();
    for part in
        ["<polyline", "Confusions", "categorical_crossentropy", "60 validation samples", "dropout (Dropout)"]
    {
        assert!(report.contains(part), "the report lacks {part}");
    }
    assert!(!report.contains("http"), "the report needs nothing else");
    let Event::Started { memory_bytes, .. } = events[0] else { panic!("{:?}", events[0]) };
    assert!((649 * 4 * 3..1 << 20).contains(&memory_bytes), "{memory_bytes}");
    let started = Event::Started {
        parameters: 649,
        samples: 240,
        steps_per_epoch: 8,
        epochs: 40,
        step: 0,
        memory_bytes,
    };
    assert_eq!(events[0], started);
    assert_eq!(events.iter().filter(|event| matches!(event, Event::Epoch { .. })).count(), 40);
    assert!(matches!(events.last(), Some(Event::Finished { .. })));
    let line = serde_json::to_string(&events[0]).unwrap();
    assert!(line.starts_with("{\"event\":\"started\",\"parameters\":649,"), "{line}");
}

#[test]
fn a_run_that_was_stopped_or_killed_goes_on_with_the_same_bits() {
    let fit = "[fit]\nepochs = 6\nbatch_size = 7\nvalidation_split = 0.1\ncheckpoint_steps = 11\n\
               [fit.early_stopping]\nmonitor = 'val_auc'\npatience = 4\n\
               [fit.reduce_lr_on_plateau]\nmonitor = 'loss'\nmin_delta = 0.5\npatience = 2\nfactor = 0.5\n";
    let folder = Folder::new(&format!("{MODEL}{fit}"));
    let mut rates = 0;
    folder
        .run("whole", &mut |event| {
            rates += matches!(event, Event::LearningRate { .. }) as usize;
            ControlFlow::Continue(())
        })
        .unwrap();
    assert!(rates > 0, "the learning rate is one of the things that a checkpoint keeps");
    // Stopped at each checkpoint; all but the last are in the middle of an epoch.
    let mut times = 0;
    loop {
        times += 1;
        let mut checkpoints = 0;
        let outcome = folder.run("stopped", &mut |event| {
            checkpoints += matches!(event, Event::Checkpoint { .. }) as usize;
            if checkpoints > 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        if !outcome.unwrap().stopped {
            break;
        }
    }
    assert!(times > 10, "{times}");
    // Killed: what is there when a checkpoint was written is all that the next run has.
    folder
        .run("killed", &mut |event| {
            if *event == (Event::Checkpoint { step: 55 }) {
                std::fs::create_dir(folder.path("rest")).unwrap();
                std::fs::copy(
                    folder.path("killed/checkpoint.safetensors"),
                    folder.path("rest/checkpoint.safetensors"),
                )
                .unwrap();
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    folder.run("rest", &mut |_| ControlFlow::Continue(())).unwrap();
    for other in ["stopped", "rest"] {
        for file in ["model.safetensors", "model.onnx", "history.csv", "checkpoint.safetensors"] {
            let same = folder.bytes(&format!("whole/{file}")) == folder.bytes(&format!("{other}/{file}"));
            assert!(same, "{other}/{file} has other bits");
        }
    }
}

#[test]
fn early_stopping_publishes_the_best_epoch() {
    let fit = "[fit]\nepochs = 60\nvalidation_split = 0.2\n[fit.early_stopping]\npatience = 2\n";
    let folder = Folder::new(&format!("{}{fit}", MODEL.replace("0.02", "0.2")));
    let (mut figures, mut ends) = (vec![], vec![]);
    let outcome = folder.run("out", &mut |event| {
        match event {
            Event::Epoch { metrics, .. } => figures.push(metrics["val_loss"]),
            Event::EarlyStopped { .. } => ends.push(event.clone()),
            _ => {}
        }
        ControlFlow::Continue(())
    });
    let best = figures.iter().copied().fold(f64::INFINITY, f64::min);
    assert!(figures.len() < 60 && figures[figures.len() - 3] == best, "{figures:?}");
    let (epoch, monitor) = (figures.len(), "val_loss".to_owned());
    assert_eq!(ends, [Event::EarlyStopped { epoch, monitor, best: Some(best), kept_epoch: epoch - 2 }]);
    assert_eq!(outcome.unwrap().metrics["val_loss"], best);
}

#[test]
fn a_checkpoint_of_something_else_is_refused() {
    let folder = Folder::new(&format!("{MODEL}[fit]\nepochs = 2\n"));
    folder.run("out", &mut |_| ControlFlow::Continue(())).unwrap();
    // More epochs of the same are gone on with.
    std::fs::write(folder.path("a.toml"), format!("{MODEL}[fit]\nepochs = 3\n")).unwrap();
    let mut began = 0;
    folder
        .run("out", &mut |event| {
            began += if let Event::Started { step, .. } = event { *step } else { 0 };
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(began, 20);
    std::fs::write(folder.path("a.csv"), spirals(297)).unwrap();
    assert!(folder.error("out").contains("other data"));
    std::fs::write(folder.path("a.toml"), MODEL.replace("0.02", "0.03")).unwrap();
    assert!(folder.error("out").contains("another definition"));
    let whole = folder.bytes("out/checkpoint.safetensors");
    std::fs::write(folder.path("out/checkpoint.safetensors"), &whole[..whole.len() / 2]).unwrap();
    assert!(folder.error("out").contains("checkpoint.safetensors: "));
}

#[test]
fn a_flipped_bit_in_a_checkpoint_is_found() {
    let folder = Folder::new(&format!("{MODEL}[fit]\nepochs = 2\n"));
    folder.run("out", &mut |_| ControlFlow::Continue(())).unwrap();
    let mut bytes = folder.bytes("out/checkpoint.safetensors");
    let last = bytes.len() - 3;
    bytes[last] ^= 4;
    std::fs::write(folder.path("out/checkpoint.safetensors"), bytes).unwrap();
    assert!(folder.error("out").contains("its hash is another"), "{}", folder.error("out"));
}

/// What is said of a network of these layers, which learns far too fast.
fn gone_bad(layers: &str) -> String {
    let text = format!(
        "[model]\ninput = [3]\nlayers = [\n{layers}]\n[data]\npath = 'a.csv'\nx = ['x', 'y', 'noise']\ny = 'noise'\n\
         [compile]\noptimizer = {{ class = 'SGD', learning_rate = 3.0 }}\nloss = 'mse'\n[fit]\nbatch_size = 2\n"
    );
    Folder::new(&text).error("out")
}

#[test]
fn where_numbers_went_bad_is_said() {
    let huge = "kernel_initializer = { class = 'Constant', value = 1e30 }";
    let error = gone_bad(&format!(
        "{{ class = 'Dense', units = 4, name = 'steep', {huge} }},\n\
         {{ class = 'Dense', units = 4, name = 'steeper', {huge} }},\n{{ class = 'Dense', units = 1 }},\n"
    ));
    assert!(error.contains("at step 1, first in what layer steeper yields: lower"), "{error}");
    // Some steps later: they are taken again, to find out.
    let error = gone_bad(
        "{ class = 'Dense', units = 4, activation = 'exponential' },\n{ class = 'Dense', units = 1 },\n",
    );
    let said = [", first in what layer", ", where the weight", ", first in the loss itself"];
    assert!(!error.contains("step 1,") && said.iter().any(|said| error.contains(said)), "{error}");
}

#[test]
fn what_cannot_be_is_said_before_the_first_step() {
    let check = |fit: &str, expected: &str| {
        let error = Folder::new(&format!("{MODEL}[fit]\n{fit}")).error("out");
        assert!(error.contains(expected), "{error}");
    };
    check("[fit.early_stopping]\nmonitor = 'val_loss'", "there is no validation: set validation_split");
    check("[fit.early_stopping]\nmonitor = 'acuracy'", "monitor is acuracy; there are: loss, accuracy, auc");
    check("validation_split = 0.001", "[fit] validation_split: 0.001 of 300 samples is less than one");
    check("class_weight = { purple = 2.0 }", "there is no class purple");
    let folder = Folder::new(MODEL);
    std::fs::create_dir(folder.path("out")).unwrap();
    let _held = lock(&folder.path("out")).unwrap();
    assert!(folder.error("out").contains("is used by another run"));
}

#[test]
fn a_model_of_keras_is_trained_on() {
    let folder = Folder::new(
        "[model]\npath = 'm.keras'\n[data]\npath = 'a.csv'\ny = 'kind'\n\
         [compile]\nloss = 'categorical_crossentropy'\noptimizer = { class = 'Adam', use_ema = true }\n\
         [fit]\nepochs = 2\n",
    );
    let input = crate::model::Input::new([3]);
    let h = Shared::boxed(Box::new(Dense::new(4).activation(Activation::Tanh)), "still").frozen().on(&input);
    let model = Model::new(&input, Dense::new(3).activation(Activation::Softmax).on(&h)).unwrap();
    crate::files::keras::save(&model, &folder.path("m.keras")).unwrap();
    folder.run("run", &mut |_| ControlFlow::Continue(())).unwrap();
    let file = folder.bytes("run/model.safetensors");
    let tensors = formats::safetensors::read(&file).unwrap();
    for (path, _, values) in model.weights() {
        let tensor = tensors.iter().find(|tensor| *tensor.name == *path).unwrap();
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        assert_eq!(file[tensor.bytes.clone()] == bytes[..], path.starts_with("still"), "{path}");
    }
    let definition = std::fs::read_to_string(folder.path("a.toml")).unwrap();
    std::fs::write(folder.path("a.toml"), definition.replace("[data]", "input = [3]\n[data]")).unwrap();
    assert!(folder.error("other").contains("it has `path`, and with it inputs"));
}

#[test]
fn text_teaches_what_follows() {
    let folder = Folder::new(
        "[model]\ninput = [6]\nlayers = [\n{ class = 'Embedding', input_dim = 256, output_dim = 8 },\n\
         { class = 'Flatten' },\n{ class = 'Dense', units = 256 },\n]\n[data]\npath = 'a.txt'\nstride = 1\n\
         [compile]\nloss = { class = 'SparseCategoricalCrossentropy', from_logits = true }\n\
         optimizer = { class = 'Adam', learning_rate = 0.02 }\nmetrics = ['accuracy']\n[fit]\nepochs = 12\n",
    );
    std::fs::write(folder.path("a.txt"), "the cat sat on the mat. ".repeat(20)).unwrap();
    let outcome = folder.run("run", &mut |_| ControlFlow::Continue(())).unwrap();
    assert!(outcome.metrics["accuracy"] > 0.99, "{:?}", outcome.metrics);
}

/// Streaming changes where samples lie, and no bit of what is learned; so it does after a stop in an epoch.
#[test]
fn samples_on_the_disk_give_the_same_bits() {
    let fit = "[fit]\nepochs = 4\nbatch_size = 7\nvalidation_split = 0.2\nclass_weight = 'balanced'\n\
               checkpoint_steps = 11\n";
    let folder = Folder::new(&format!("{MODEL}{fit}"));
    folder.run("memory", &mut |_| ControlFlow::Continue(())).unwrap();
    let streamed = MODEL.replace("normalize =", "stream = true\nnormalize =");
    std::fs::write(folder.path("a.toml"), format!("{streamed}{fit}")).unwrap();
    let mut times = 0;
    loop {
        times += 1;
        let mut checkpoints = 0;
        let outcome = folder.run("disk", &mut |event| {
            checkpoints += matches!(event, Event::Checkpoint { .. }) as usize;
            if checkpoints > 1 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        if !outcome.unwrap().stopped {
            break;
        }
    }
    assert!(times > 4, "{times}");
    for file in ["model.safetensors", "model.onnx", "history.csv", "classes.json"] {
        let same = folder.bytes(&format!("memory/{file}")) == folder.bytes(&format!("disk/{file}"));
        assert!(same, "{file} has other bits");
    }
    let report = String::from_utf8(folder.bytes("disk/report.html")).unwrap();
    assert!(report.contains("60 validation samples"));
    // What is wrong is said before the first step, by its line.
    let csv = spirals(300).replace(",green\n", ",\n");
    std::fs::write(folder.path("a.csv"), csv).unwrap();
    assert!(folder.error("none").contains("a.csv, line 3: column kind has no value"));
}

/// A checkpoint that finds no room on the disk ends the run with an error, and the one before it is still there.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_loses_nothing() {
    let fit = "[fit]\nepochs = 4\nbatch_size = 7\ncheckpoint_steps = 11\n";
    let folder = Folder::new(&format!("{MODEL}{fit}"));
    folder.run("whole", &mut |_| ControlFlow::Continue(())).unwrap();
    // What is written to it goes to a device that is always full.
    let partial = folder.path("full/checkpoint.safetensors.partial");
    let error = folder.run("full", &mut |event| {
        if *event == (Event::Checkpoint { step: 55 }) {
            std::os::unix::fs::symlink("/dev/full", &partial).unwrap();
        }
        ControlFlow::Continue(())
    });
    let error = error.unwrap_err().to_string();
    assert!(error.contains("checkpoint.safetensors") && error.contains("No space left"), "{error}");
    assert!(!folder.path("full/model.onnx").exists() && !partial.exists());
    folder
        .run("full", &mut |event| {
            assert!(!matches!(event, Event::Started { step, .. } if *step != 55), "{event:?}");
            ControlFlow::Continue(())
        })
        .unwrap();
    for file in ["model.safetensors", "model.onnx", "history.csv"] {
        assert!(folder.bytes(&format!("whole/{file}")) == folder.bytes(&format!("full/{file}")), "{file}");
    }
}
