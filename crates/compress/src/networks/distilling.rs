//! A small network that learns from the answers of a large one (Hinton, Vinyals and Dean, arXiv:1503.02531).

use std::path::Path;

use serde_json::{Map, Value, json};
use train::definition::{Defined, Definition, OneOrMany};

use super::defined::Network;
use super::error::{NetworkError, Result};
use super::measure::{Running, Task};

/// How the student is taught.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Teaching {
    /// The teacher's part of the targets, from 0 to 1; the rest is the data's own.
    pub share: f32,
    /// Above 1, classes that the teacher thinks little of are told too: probabilities to the power of one over it.
    pub temperature: f32,
}

impl Default for Teaching {
    fn default() -> Teaching {
        Teaching { share: 0.7, temperature: 2.0 }
    }
}

/// The network of the file `student`, with weights drawn at random, whose training targets are mixed with the answers of
/// the ONNX file `teacher`. It isn't trained.
///
/// # Errors
/// When the student's definition isn't right, or the teacher gives something else than the student.
pub fn taught(student: &Path, teacher: &[u8], teaching: Teaching) -> Result<Network> {
    let Teaching { share, temperature } = teaching;
    if !(0.0..=1.0).contains(&share) {
        let expected = "a share from 0 to 1".to_owned();
        return Err(NetworkError::Setting {
            setting: "teacher share",
            expected,
            received: share.to_string(),
        });
    }
    if !(0.1..=100.0).contains(&temperature) {
        let expected = "0.1 to 100".to_owned();
        return Err(NetworkError::Setting {
            setting: "temperature",
            expected,
            received: temperature.to_string(),
        });
    }
    let base = student.parent().unwrap_or(Path::new("")).to_owned();
    let mut definition = match Defined::read(student)? {
        Defined::Model(read) => *read,
        Defined::Gan(_) => {
            return Err(NetworkError::model(
                student.display().to_string(),
                "it defines a GAN, which has no teacher",
            ));
        }
    };
    with_dense_targets(&mut definition)?;
    let mut network = Network::new(definition, base)?;
    let (training, _) = network.samples();
    let answers = Running::new(teacher)?.answers(&training)?;
    let target = &mut network.session.training.y[0];
    if answers.width != target.sample_len() {
        let problem =
            format!("it gives {} values a sample, and the student {}", answers.width, target.sample_len());
        return Err(NetworkError::model("the teacher", problem));
    }
    let is_classes = training.truth.as_ref().is_some_and(|truth| truth.task == Task::Classes);
    for (sample, target) in target.values.chunks_mut(answers.width).enumerate() {
        let mut said = answers.row(sample).to_vec();
        if is_classes {
            said.iter_mut().for_each(|value| *value = value.max(0.0).powf(1.0 / temperature));
            let sum = said.iter().sum::<f32>().max(f32::MIN_POSITIVE);
            said.iter_mut().for_each(|value| *value /= sum);
        }
        target
            .iter_mut()
            .zip(said)
            .for_each(|(target, said)| *target = (1.0 - share) * *target + share * said);
    }
    Ok(network)
}

/// Makes a loss that takes classes by number one that takes a value for each class, which can be mixed.
fn with_dense_targets(definition: &mut Definition) -> Result<()> {
    let compile = &mut definition.compile;
    let losses = compile.loss.as_slice();
    let [loss] = losses else {
        return Err(NetworkError::model("the student", "it has several outputs; one can be taught"));
    };
    let name = serde_json::to_value(loss).unwrap_or_default();
    let mut arguments: Map<String, Value> = name.as_object().cloned().unwrap_or_default();
    let class = name.as_str().or(arguments.get("class").and_then(Value::as_str)).unwrap_or("").to_owned();
    if class.to_lowercase().replace('_', "") != "sparsecategoricalcrossentropy" {
        return Ok(());
    }
    arguments.insert("class".to_owned(), json!("CategoricalCrossentropy"));
    let named = serde_json::from_value(Value::Object(arguments));
    let named = named.map_err(|error| NetworkError::model("the student's loss", error.to_string()))?;
    compile.loss = OneOrMany::One(named);
    // A metric that takes classes by number would take what it can't.
    compile.metrics.clear();
    Ok(())
}
