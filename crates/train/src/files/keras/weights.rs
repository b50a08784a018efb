//! Where weights are within an archive's `model.weights.h5`: `layers/CLASS_NUMBER/PART/vars/INDEX`.

use std::collections::HashMap;

use formats::hdf5::{self, Dataset, Values};

use super::failed;
use super::order::{Element, order};
use super::training::{self, Variable};
use crate::error::Result;
use crate::model::{Model, snake_case};

const INPUT: &str = "InputLayer";

/// The folder of each layer's weights, of names and classes in the file's order.
fn folders<'a>(layers: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<(String, String)> {
    let mut counts: HashMap<String, usize> = HashMap::new();
    let mut folders = vec![];
    for (name, class) in layers {
        let snake = snake_case(class);
        let count = counts.entry(snake.clone()).or_default();
        let folder = if *count == 0 { format!("layers/{snake}") } else { format!("layers/{snake}_{count}") };
        folders.push((name.to_owned(), folder));
        *count += 1;
    }
    folders
}

/// Paths of all weights, in the model's order. `layers` are names with their folders.
fn paths(model: &Model, layers: &[(String, String)]) -> Result<Vec<String>> {
    let folders: HashMap<&str, &String> =
        layers.iter().map(|(name, folder)| (name.as_str(), folder)).collect();
    let mut paths = vec![];
    for node in &model.nodes {
        let folder = folders.get(node.name.as_str());
        let folder = folder.ok_or_else(|| failed(format!("the layer {:?} has no place", node.name)))?;
        let mut numbers: HashMap<String, usize> = HashMap::new();
        for placed in &model.weights[node.weights.clone()] {
            let parts: Vec<&str> = placed.weight.name.split('/').collect();
            let class = node.class_name();
            let parts = parts[..parts.len() - 1].iter().map(|part| self::part(class, part));
            let parts: Vec<String> = parts.collect();
            let group = [&[(*folder).clone()][..], &parts].concat().join("/");
            // The first place is the kernel's of the layer within, once more.
            let first = usize::from(placed.weight.name.ends_with("vector_u"));
            let number = numbers.entry(group.clone()).or_insert(first);
            paths.push(format!("{group}/vars/{number}"));
            *number += 1;
        }
    }
    Ok(paths)
}

/// Where Keras says how many samples a `Normalization` has seen, which counts only where it learns more.
fn counts(model: &Model, paths: &[String]) -> Vec<String> {
    let variances = model.nodes.iter().filter(|node| node.class_name() == "Normalization");
    let variances = variances.filter_map(|node| paths[node.weights.clone()].last());
    variances.filter_map(|path| Some(format!("{}vars/2", path.strip_suffix("vars/1")?))).collect()
}

/// Kernels that Keras keeps twice: where they are once more, and the numbers of the weights.
fn copies(model: &Model, paths: &[String]) -> Vec<(String, usize)> {
    let vectors = (0..paths.len()).filter(|&which| model.weights[which].weight.name.ends_with("vector_u"));
    let copy = |vector: usize| {
        let group = paths[vector].strip_suffix("vars/1")?;
        let kernel = format!("{group}layer/vars/0");
        Some((format!("{group}vars/0"), paths.iter().position(|path| *path == kernel)?))
    };
    vectors.filter_map(copy).collect()
}

/// What Keras calls the part of a layer of this class whose weights are under this name.
fn part(class: &str, name: &str) -> String {
    match name {
        "query" | "key" | "value" | "gate" if class == "GroupQueryAttention" => format!("_{name}_dense"),
        "attention_output" if class == "GroupQueryAttention" => "_output_dense".to_owned(),
        "lstm_cell" | "gru_cell" | "simple_rnn_cell" => "cell".to_owned(),
        "query" | "key" | "value" => format!("{name}_dense"),
        "attention_output" => "output_dense".to_owned(),
        _ if name.starts_with("forward_") => "forward_layer".to_owned(),
        _ if name.starts_with("backward_") => "backward_layer".to_owned(),
        _ => name.to_owned(),
    }
}

/// Sets the weights of a model to those of a file.
pub(super) fn read(model: &mut Model, file: &[u8], layers: &[(String, String)]) -> Result<()> {
    let problem = |error: formats::error::FormatError| failed(format!("model.weights.h5: {error}"));
    let datasets: Vec<Dataset> = hdf5::read(file).map_err(problem)?;
    let by_path: HashMap<&str, &Dataset> =
        datasets.iter().map(|dataset| (dataset.path.as_str(), dataset)).collect();
    let paths = paths(model, layers)?;
    let weights: Vec<(String, Vec<usize>)> =
        model.weights().map(|(path, shape, _)| (path.to_owned(), shape.to_vec())).collect();
    for (path, (weight, shape)) in paths.iter().zip(weights) {
        let dataset = by_path.get(path.as_str());
        let dataset = dataset.ok_or_else(|| failed(format!("the weight {weight} is missing ({path})")))?;
        if dataset.shape != shape {
            return Err(failed(format!(
                "the weight {weight} is {:?} and should be {shape:?}",
                dataset.shape
            )));
        }
        let values: Vec<f32> = dataset.values(file).map_err(problem)?.iter().map(|&x| x as f32).collect();
        model.set_weight(&weight, &values)?;
    }
    // What is there beyond these would be lost in silence.
    let copies = copies(model, &paths);
    let extra = datasets.iter().find(|dataset| {
        dataset.path.starts_with("layers/")
            && !paths.contains(&dataset.path)
            && !copies.iter().any(|(path, _)| *path == dataset.path)
            && !counts(model, &paths).contains(&dataset.path)
            && !is_state(&dataset.path)
    });
    match extra {
        Some(dataset) => Err(failed(format!("it has weights that no layer here has: {}", dataset.path))),
        None => Ok(()),
    }
}

/// States of random numbers, which aren't taken over.
fn is_state(path: &str) -> bool {
    path.contains("seed_generator/")
}

/// The file of a model's weights.
pub(super) fn write(model: &Model) -> Result<Vec<u8>> {
    let layers = order(model).into_iter().map(|element| match element {
        Element::Input(number) => (model.inputs[number].0.as_str(), INPUT),
        Element::Layer(number) => {
            let node = &model.nodes[number];
            (node.name.as_str(), node.class_name())
        }
    });
    let layers: Vec<(&str, &str)> = layers.collect();
    let paths = paths(model, &folders(layers.iter().copied()))?;
    let mut datasets: Vec<(&str, &[usize], Values<'_>)> = model
        .weights()
        .zip(&paths)
        .map(|((_, shape, values), path)| (path.as_str(), shape, Values::F32(values)))
        .collect();
    let copies = copies(model, &paths);
    let all: Vec<(&[usize], &[f32])> = model.weights().map(|(_, shape, values)| (shape, values)).collect();
    datasets.extend(
        copies.iter().map(|(path, which)| (path.as_str(), all[*which].0, Values::F32(all[*which].1))),
    );
    let counts = counts(model, &paths);
    datasets.extend(counts.iter().map(|path| (path.as_str(), &[][..], Values::I64(&[0]))));
    let variables = training::variables(model, layers.iter().map(|(name, _)| *name));
    let numbers: Vec<String> =
        (0..variables.len()).map(|number| format!("optimizer/vars/{number}")).collect();
    for (variable, path) in variables.iter().zip(&numbers) {
        datasets.push(match variable {
            Variable::Count(count) => (path, &[], Values::I64(std::slice::from_ref(count))),
            Variable::Numbers(shape, values) => (path, shape, Values::F32(values)),
        });
    }
    hdf5::write(&datasets).map_err(|error| failed(error.to_string()))
}
