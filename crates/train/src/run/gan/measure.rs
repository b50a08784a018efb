//! The figure of what a generator makes: the Fréchet distance to real samples, of features that a classifier has learned
//! on the same data. It compares runs on one data set with one number of samples, and says nothing beside other figures
//! of that name, whose features are another network's.

use super::checkpoint::Classifier;
use super::session::Session;
use crate::activations::{Relu, Softmax};
use crate::error::Result;
use crate::gan::{Gan, Statistics, frechet_distance, normals};
use crate::layers::{Conv2D, Dense, Flatten, MaxPooling2D, Padding, Rescaling, Reshape};
use crate::losses::SparseCategoricalCrossentropy;
use crate::metrics::Accuracy;
use crate::model::{Array, Fit, Input, Model, Tensor, Wire};
use crate::optimizers::Adam;

/// Features that are compared: what the classifier's last hidden layer yields.
const WIDTH: usize = 64;
const BATCH: usize = 64;
/// The stream of noise that is measured with.
const STREAM: u32 = 0xf1d;
/// Apart from the weights of the networks.
const SEED_APART: u64 = 2;

pub(super) struct Measure {
    /// From samples to probabilities and features.
    pub extractor: Model,
    real: Statistics,
    noise: Vec<f32>,
    /// What is made, where classes are given.
    classes: Option<Vec<usize>>,
}

impl Measure {
    /// With the classifier of an earlier run, or one that is trained now; none where the data has no classes.
    pub fn new(session: &Session, classifier: Option<Classifier>) -> Result<Option<Measure>> {
        let Some(classes) = &session.classes else { return Ok(None) };
        let figure = &session.definition.gan.figure;
        let seed = session.definition.fit.seed.wrapping_add(SEED_APART);
        let mut extractor = network(session, seed, true)?;
        let weights = match classifier {
            Some(weights) => weights,
            None => {
                let mut model = network(session, seed, false)?;
                model.compile(Adam, SparseCategoricalCrossentropy, [Accuracy])?;
                let y = Array::new([classes.len()], classes.iter().map(|&class| class as f32).collect())?;
                model.fit(&session.x, &y, &Fit::epochs(figure.epochs).batch_size(BATCH))?;
                model.weights().map(|(path, _, values)| (path.to_owned(), values.to_vec())).collect()
            }
        };
        for (path, values) in &weights {
            extractor.set_weight(path, values)?;
        }
        let count = figure.samples.min(session.x.samples());
        let chosen: Vec<usize> = (0..count).collect();
        let real = features(&mut extractor, &session.x.chosen(&chosen))?.1;
        let noise = normals(session.definition.fit.seed, STREAM, count * session.gan.noise_len());
        let classes = session.gan.label_len().map(|_| classes[..count].to_vec());
        Ok(Some(Measure { extractor, real: Statistics::of(&real, WIDTH), noise, classes }))
    }

    /// The figure of what `gan` makes now.
    pub fn of(&mut self, gan: &mut Gan) -> Result<f64> {
        let made = gan.made_of(&self.noise, self.classes.as_deref())?;
        let made = features(&mut self.extractor, &made)?.1;
        Ok(frechet_distance(&self.real, &Statistics::of(&made, WIDTH)))
    }

    /// The classifier's accuracy on samples that it wasn't trained with, and their distance to those that it was: about
    /// what a perfect generator would reach.
    pub fn of_test(&mut self, x: &Array, classes: &[usize]) -> Result<(f64, f64)> {
        let (probabilities, features) = features(&mut self.extractor, x)?;
        let count = probabilities.len() / classes.len().max(1);
        let guesses = probabilities.chunks_exact(count.max(1)).map(crate::data::greatest);
        let right = guesses.zip(classes).filter(|(guess, class)| guess == *class).count();
        let distance = frechet_distance(&self.real, &Statistics::of(&features, WIDTH));
        Ok((right as f64 / classes.len() as f64, distance))
    }
}

/// Probabilities of classes, and features.
fn features(extractor: &mut Model, x: &Array) -> Result<(Vec<f32>, Vec<f32>)> {
    let mut outputs = extractor.predict(x, BATCH)?;
    let features = outputs.pop().map(|array| array.values).unwrap_or_default();
    Ok((outputs.pop().map(|array| array.values).unwrap_or_default(), features))
}

/// A classifier, whose features are its output too where they are wanted.
fn network(session: &Session, seed: u64, with_features: bool) -> Result<Model> {
    let shape = session.gan.sample_shape();
    let [low, high] = session.bounds;
    let span = if high > low { high - low } else { 1.0 };
    let input = Input::new(shape);
    let x = Rescaling::new(2.0 / span, -(high + low) / span).on(&input);
    let x = match super::grid::picture(shape) {
        Some([height, width, channels]) if height.min(width) >= 4 => {
            let x = Reshape::new([height as isize, width as isize, channels as isize]).on(&x);
            let x = convolved(&x, 32);
            let x = if height.min(width) >= 16 { convolved(&x, 64) } else { x };
            let x = Conv2D::new(64, 3).padding(Padding::Same).activation(Relu).on(&x);
            Flatten::new().on(&x)
        }
        _ => {
            let x = Flatten::new().on(&x);
            Dense::new(128).activation(Relu).on(&x)
        }
    };
    let features = Dense::new(WIDTH).activation(Relu).on(&x);
    let probabilities = Dense::new(session.class_count).activation(Softmax).on(&features);
    let outputs = if with_features { vec![probabilities, features] } else { vec![probabilities] };
    let threads = session.gan.threads();
    Model::with(&input, outputs, seed, threads)
}

fn convolved(x: &Tensor, filters: usize) -> Tensor {
    let x = Conv2D::new(filters, 3).padding(Padding::Same).activation(Relu).on(x);
    MaxPooling2D::new(2).on(&x)
}
