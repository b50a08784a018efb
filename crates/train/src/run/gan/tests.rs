//! Runs of GANs: that they learn and publish, go on with the same bits, and say what is wrong.

use std::ops::ControlFlow;
use std::path::PathBuf;

use super::super::{Event, Outcome, run};
use crate::error::Result;

/// Pictures of 6 x 6 with values from 0 to 16: a bright bar, upright, lying or aslant, which is the class. No two are alike.
fn write_bars(folder: &std::path::Path, count: usize) {
    let mut text = String::new();
    for i in 0..count {
        let (class, at) = (i % 3, i / 3 % 4);
        let value = |y: usize, x: usize| {
            let on = match class {
                0 => x == at + 1,
                1 => y == at + 1,
                _ => x.abs_diff(y) == at % 2,
            };
            let noise = (i * 7919 + y * 104_729 + x * 1299) % 31;
            if on { 16.0 - noise as f64 / 31.0 * 4.0 } else { noise as f64 / 31.0 * 3.0 }
        };
        let pixels: Vec<String> = (0..36).map(|at| format!("{:.3}", value(at / 6, at % 6))).collect();
        let name = ["upright", "lying", "aslant"][class];
        text += &format!("{{\"pixels\": [{}], \"kind\": \"{name}\"}}\n", pixels.join(","));
    }
    std::fs::write(folder.join("bars.jsonl"), text).unwrap();
}

const NETWORKS: &str = "[generator]\ninputs = { noise = [8], label = [3] }\nlayers = [\n\
    { class = 'Concatenate', inputs = ['noise', 'label'] },\n\
    { class = 'Dense', units = 48, activation = 'relu' },\n{ class = 'BatchNormalization' },\n\
    { class = 'Dense', units = 36, activation = 'tanh' },\n{ class = 'Reshape', target_shape = [6, 6, 1] },\n]\n\
    [discriminator]\ninputs = { picture = [6, 6, 1], label = [3] }\nlayers = [\n\
    { class = 'Flatten', name = 'flat', inputs = 'picture' },\n\
    { class = 'Concatenate', inputs = ['flat', 'label'] },\n\
    { class = 'Dense', units = 64, activation = 'leaky_relu' },\n{ class = 'Dropout', rate = 0.2 },\n\
    { class = 'Dense', units = 1 },\n]\n\
    [data]\npath = 'bars.jsonl'\nx = 'pixels'\ny = 'kind'\n";
const GAN: &str = "[gan]\nrange = [0, 16]\nr1 = 0.1\ncritic_steps = 2\nmoving_average = 0.98\n\
    generator_optimizer = { class = 'Adam', learning_rate = 0.002, beta_1 = 0.5 }\n\
    discriminator_optimizer = { class = 'Adam', learning_rate = 0.002, beta_1 = 0.5 }\n\
    figure = { samples = 180, epochs = 12 }\n";

struct Folder(tempfile::TempDir);

impl Folder {
    fn new(definition: &str) -> Folder {
        let folder = tempfile::tempdir().unwrap();
        write_bars(folder.path(), 180);
        std::fs::write(folder.path().join("a.toml"), definition).unwrap();
        Folder(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn run(&self, to: &str, on: &mut dyn FnMut(&Event) -> ControlFlow<()>) -> Result<Outcome> {
        run(&self.path("a.toml"), &self.path(to), on)
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    fn text(&self, name: &str) -> String {
        String::from_utf8(self.bytes(name)).unwrap()
    }
}

#[test]
fn a_run_makes_grids_and_gets_nearer_to_the_data() {
    let folder = Folder::new(&format!("{NETWORKS}{GAN}[fit]\nepochs = 60\nbatch_size = 20\n"));
    let mut figures = vec![];
    let outcome = folder
        .run("out", &mut |event| {
            if let Event::Epoch { metrics, .. } = event {
                figures.push(metrics["frechet_distance"]);
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(figures.len(), 60);
    assert!(figures[59] < figures[0] / 4.0, "{figures:?}");
    let names: Vec<_> =
        outcome.files.iter().map(|file| file.file_name().unwrap().to_str().unwrap()).collect();
    let expected = [
        "model.onnx",
        "model.safetensors",
        "discriminator.safetensors",
        "definition.toml",
        "classes.json",
        "samples.png",
        "history.csv",
        "report.html",
    ];
    assert_eq!(names, expected);
    let history = folder.text("out/history.csv");
    let header = "epoch,discriminator_loss,real_score,generated_score,discriminator_penalty,generator_loss,\
                  frechet_distance\n1,";
    assert!(history.starts_with(header), "{history}");
    let report = folder.text("out/report.html");
    for part in
        ["<polyline", "frechet_distance", "Epoch 60, distance", "data:image/png;base64,", "Discriminator"]
    {
        assert!(report.contains(part), "the report lacks {part}");
    }
    let picture = image::load_from_memory(&folder.bytes("out/samples/epoch-0060.png")).unwrap().into_luma8();
    // Three columns of classes, eight rows; 6 pixels become 30.
    assert_eq!(picture.dimensions(), (3 * 32 + 2, 8 * 32 + 2));
    assert!(folder.text("out/classes.json").contains("\"aslant\""));
}

#[test]
fn a_run_that_was_stopped_or_killed_goes_on_with_the_same_bits() {
    let fit = "[fit]\nepochs = 4\nbatch_size = 14\ncheckpoint_steps = 5\n";
    let folder = Folder::new(&format!("{NETWORKS}{GAN}{fit}"));
    folder.run("whole", &mut |_| ControlFlow::Continue(())).unwrap();
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
    assert!(times > 8, "{times}");
    // Killed: what is there when a checkpoint was written is all that the next run has.
    folder
        .run("killed", &mut |event| {
            if *event == (Event::Checkpoint { step: 20 }) {
                std::fs::create_dir(folder.path("rest")).unwrap();
                let name = "checkpoint.safetensors";
                std::fs::copy(folder.path("killed").join(name), folder.path("rest").join(name)).unwrap();
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    folder.run("rest", &mut |_| ControlFlow::Continue(())).unwrap();
    for other in ["stopped", "rest"] {
        for file in [
            "model.safetensors",
            "discriminator.safetensors",
            "model.onnx",
            "history.csv",
            "checkpoint.safetensors",
            "samples/epoch-0004.png",
        ] {
            let same = folder.bytes(&format!("whole/{file}")) == folder.bytes(&format!("{other}/{file}"));
            assert!(same, "{other}/{file} has other bits");
        }
    }
}

#[test]
fn what_does_not_go_together_is_said_before_the_first_step() {
    let check = |change: (&str, &str), rest: &str, expected: &str| {
        let text = format!("{NETWORKS}{rest}").replace(change.0, change.1);
        let result = Folder::new(&text).run("out", &mut |event| match event {
            Event::Started { .. } => panic!("it began"),
            _ => ControlFlow::Continue(()),
        });
        let error = result.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}\n{expected}");
    };
    let same = ("", "");
    check(
        ("units = 36, activation = 'tanh' },\n{ class = 'Reshape', target_shape = [6, 6, 1]", "units = 36"),
        GAN,
        "the generator gives [36], and the discriminator's input picture takes [6, 6, 1]",
    );
    check(
        ("picture = [6, 6, 1], label = [3] }", "picture = [6, 6, 1] }"),
        GAN,
        "[discriminator] layer 2: no input or layer above is named \"label\"",
    );
    check(
        ("label = [3] }\nlayers = [\n{ class = 'Flatten'", "label = [2] }\nlayers = [\n{ class = 'Flatten'"),
        GAN,
        "the generator takes [3] as its input label, and the discriminator takes [2] as its input label",
    );
    check(
        ("x = 'pixels'\ny = 'kind'", "x = 'pixels'"),
        GAN,
        "the networks have an input label, and the data has no classes: say y",
    );
    check(("6, 6, 1]", "5, 5, 1]"), &GAN.replace("range", "# range"), "[generator] reshape: ");
    check(("[0, 16]", "[0, 12]"), GAN, "line 1: x has ");
    check(same, "[gan]\nloss = 'hinged'", "did you mean Hinge?");
    check(same, "[gan]\nloss = { class = 'wasserstein', clip = 0.1 }", "there is no argument clip");
    check(
        same,
        "[gan]\nrange = [3, 3]",
        "[gan]: range takes the least and the greatest value; received [3, 3]",
    );
    check(same, "[gan]\ncritic_step = 3", "did you mean critic_steps?");
    check(same, "[gan]\nmoving_average = 1.0", "moving_average takes 0 to less than 1; received 1");
    check(same, "[gan]\ngrid = [0, 3]", "grid takes rows and columns, 1 to 64 each; received [0, 3]");
    check(same, "[fit.early_stopping]", "early_stopping has no meaning for a GAN");
    check(same, "[model]\ninput = [3]\nlayers = []", "[model] stands beside the networks of a GAN");
    check(
        ("y = 'kind'", "y = 'kind'\nnormalize = 'standard'"),
        GAN,
        "say range = [least, greatest] in [gan]",
    );
    check(
        ("{ class = 'Dropout', rate = 0.2 }", "{ class = 'BatchNormalization' }"),
        GAN,
        "r1 is of each sample's own slope, and the discriminator's layer batch_normalization",
    );
}

#[test]
fn samples_that_are_no_pictures_and_have_no_classes_are_learned_too() {
    let text = "[generator]\ninput = [4]\nlayers = [{ class = 'Dense', units = 2 }]\n\
        [discriminator]\ninput = [2]\nlayers = [{ class = 'Dense', units = 8, activation = 'tanh' },\n\
        { class = 'Dense', units = 1 }]\n[data]\npath = 'a.csv'\n[fit]\nepochs = 2\n";
    let folder = Folder::new(text);
    let rows: String = (0..40).map(|i| format!("{},{}\n", i % 7, i % 5)).collect();
    std::fs::write(folder.path("a.csv"), format!("a,b\n{rows}")).unwrap();
    let outcome = folder.run("out", &mut |_| ControlFlow::Continue(())).unwrap();
    assert!(!outcome.metrics.contains_key("frechet_distance") && !folder.path("out/samples.png").exists());
    assert!(!folder.text("out/report.html").contains("Samples of the same noise"));
    for (change, expected) in [
        ("[gan]\ngrid = [2, 2]\n", "samples have the shape [2]"),
        (
            "[data.test]\npath = 'a.csv'\n",
            "test is what the figure is compared with, which needs classes: say y",
        ),
    ] {
        std::fs::write(folder.path("a.toml"), format!("{text}{change}")).unwrap();
        let error = folder.run("other", &mut |_| ControlFlow::Continue(())).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_loss_that_is_no_number_is_said_with_its_network() {
    let text = format!("{NETWORKS}{GAN}[fit]\nepochs = 3\n").replace("0.002", "1e30");
    let error = Folder::new(&text).run("out", &mut |_| ControlFlow::Continue(())).unwrap_err().to_string();
    assert!(error.contains("at step 2, in the discriminator's loss"), "{error}");
}
