//! Targets as a loss takes them: names of classes to numbers, numbers to rows of 0 and 1, with the range checked.

use super::{Places, Target};
use crate::definition::ClassWeight;
use crate::error::{Result, TrainError};
use crate::losses::{Loss, check_ctc};
use crate::model::Array;

/// Names of classes that one output may have.
pub(super) const CLASSES_MAX: usize = 1 << 20;

/// The targets of an output whose samples have the shape `output`. `classes` are the names of the training part, and are
/// learned where there are none yet.
///
/// # Errors
/// When targets aren't what the loss takes; the error says where.
pub fn encode(
    target: Target,
    output: &[usize],
    loss: &Loss,
    classes: &mut Option<Vec<String>>,
    places: &Places,
) -> Result<Array> {
    let named = matches!(target, Target::Names(_));
    let array = match target {
        Target::Numbers(array) => array,
        Target::Names(names) => numbered(&names, classes, places)?,
    };
    let samples = array.samples();
    let count = output.last().copied().unwrap_or(1);
    let output_len: usize = output.iter().product();
    let is_sparse = matches!(loss, Loss::SparseCategoricalCrossentropy { .. });
    let takes_rows = matches!(
        loss,
        Loss::CategoricalCrossentropy { .. }
            | Loss::CategoricalFocalCrossentropy { .. }
            | Loss::CategoricalHinge {}
            | Loss::KLDivergence {}
    );
    if let (Loss::CTC {}, [steps, classes]) = (loss, output) {
        return match check_ctc(&array.values, array.sample_len(), *steps, *classes) {
            Some((sample, problem)) => {
                Err(TrainError::data(places.of(sample), format!("there is {problem}")))
            }
            None => Array::new([samples, array.sample_len()], array.values),
        };
    }
    let are_numbers = array.sample_len() * count == output_len && count > 1;
    if let (true, Some(classes)) = (named, classes.as_ref()) {
        let room = if count == 1 { 2 } else { count };
        if classes.len() > room {
            let problem = format!(
                "there are {} classes ({}), and the model's output has room for {room}",
                classes.len(),
                shown(classes)
            );
            return Err(TrainError::data(places.of(0), problem));
        }
    }
    if is_sparse || (takes_rows && are_numbers) {
        check_classes(&array, count, places)?;
    }
    if is_sparse && array.sample_len() * count == output_len {
        return Array::new([&[samples], &output[..output.len() - 1]].concat(), array.values);
    }
    if takes_rows && are_numbers {
        let mut rows = vec![0.0; array.values.len() * count];
        for (row, &label) in rows.chunks_exact_mut(count).zip(&array.values) {
            row[label as usize] = 1.0;
        }
        return Array::new([&[samples], output].concat(), rows);
    }
    if array.sample_len() == output_len {
        return Array::new([&[samples], output].concat(), array.values);
    }
    let takes = if is_sparse { "class numbers for it" } else { "targets of that shape" };
    let problem = format!(
        "targets have the shape {:?}; the output is {output:?}, and the loss takes {takes}",
        &array.shape[1..]
    );
    Err(TrainError::data(places.of(0), problem))
}

fn shown(classes: &[String]) -> String {
    let more = if classes.len() > 20 { ", ..." } else { "" };
    format!("{}{more}", classes.iter().take(20).cloned().collect::<Vec<_>>().join(", "))
}

/// Names of classes in their order: by number, if all are numbers.
pub(super) fn in_order(mut names: Vec<String>) -> Vec<String> {
    names.sort();
    names.dedup();
    if names.iter().all(|name| name.parse::<u64>().is_ok()) {
        names.sort_by_key(|name| name.parse::<u64>().unwrap_or_default());
    }
    names
}

fn numbered(names: &[String], classes: &mut Option<Vec<String>>, places: &Places) -> Result<Array> {
    let classes = match classes {
        Some(classes) => classes,
        None => {
            let found = in_order(names.to_vec());
            if found.len() > CLASSES_MAX {
                return Err(TrainError::data(
                    places.of(0),
                    format!("there are more than {CLASSES_MAX} classes"),
                ));
            }
            classes.insert(found)
        }
    };
    let places_of: std::collections::HashMap<&str, usize> =
        classes.iter().enumerate().map(|(number, name)| (name.as_str(), number)).collect();
    let mut values = Vec::with_capacity(names.len());
    for (sample, name) in names.iter().enumerate() {
        match places_of.get(name.as_str()) {
            Some(&number) => values.push(number as f32),
            None => {
                let problem =
                    format!("the class {name:?} isn't in the training part, which has: {}", shown(classes));
                return Err(TrainError::data(places.of(sample), problem));
            }
        }
    }
    Array::new([names.len()], values)
}

fn check_classes(array: &Array, count: usize, places: &Places) -> Result<()> {
    let is_class = |label: f32| label >= 0.0 && label < count as f32 && label.fract() == 0.0;
    match array.values.iter().position(|&label| !is_class(label)) {
        None => Ok(()),
        Some(at) => {
            let place = places.of(at / array.sample_len().max(1));
            let problem = format!(
                "the label is {}; the model's output has classes 0 to {}",
                array.values[at],
                count - 1
            );
            Err(TrainError::data(place, problem))
        }
    }
}

/// Each sample's class, where the targets are classes: numbers, rows with one 1, or 0 and 1.
pub fn classes_of(y: &Array, output: &[usize], loss: &Loss) -> Option<(Vec<usize>, usize)> {
    let count = output.last().copied().unwrap_or(1);
    if output.len() != 1 {
        return None;
    }
    match loss {
        Loss::SparseCategoricalCrossentropy { .. } => {
            Some((y.values.iter().map(|&label| label as usize).collect(), count))
        }
        Loss::CategoricalCrossentropy { .. }
        | Loss::CategoricalFocalCrossentropy { .. }
        | Loss::CategoricalHinge {}
        | Loss::KLDivergence {}
            if count > 1 =>
        {
            Some((y.values.chunks_exact(count).map(greatest).collect(), count))
        }
        Loss::BinaryCrossentropy { .. } | Loss::BinaryFocalCrossentropy { .. } | Loss::Hinge {}
            if count == 1 =>
        {
            Some((y.values.iter().map(|&label| (label > 0.5) as usize).collect(), 2))
        }
        _ => None,
    }
}

/// Where a row is greatest.
pub fn greatest(row: &[f32]) -> usize {
    let greater = |best: usize, at: usize| if row[at] > row[best] { at } else { best };
    (1..row.len()).fold(0, greater)
}

/// What each sample counts by its class.
///
/// # Errors
/// When there are no classes, or one is named that isn't there.
pub fn class_weights(
    given: &ClassWeight,
    classes: Option<&(Vec<usize>, usize)>,
    names: Option<&Vec<String>>,
) -> Result<Vec<f32>> {
    let wrong = |problem: String| TrainError::data("[fit] class_weight", problem);
    let Some((labels, count)) = classes else {
        return Err(wrong("targets aren't classes".to_owned()));
    };
    let mut weights = vec![1.0; *count];
    match given {
        ClassWeight::Named(_) => {
            let mut found = vec![0usize; *count];
            labels.iter().for_each(|&label| found[label] += 1);
            let present = found.iter().filter(|&&found| found > 0).count().max(1);
            for (weight, found) in weights.iter_mut().zip(found) {
                *weight = labels.len() as f32 / (present * found.max(1)) as f32;
            }
        }
        ClassWeight::Given(by_class) => {
            for (class, &weight) in by_class {
                let by_name = names.and_then(|names| names.iter().position(|name| name == class));
                let number = by_name.or_else(|| class.parse().ok()).filter(|number| number < count);
                let number = number.ok_or_else(|| wrong(format!("there is no class {class}")))?;
                if !weight.is_finite() || weight < 0.0 {
                    return Err(wrong(format!("class {class} has the weight {weight}; it is 0 or more")));
                }
                weights[number] = weight;
            }
        }
    }
    Ok(labels.iter().map(|&label| weights[label]).collect())
}
