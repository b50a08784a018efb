//! Layers that are otherwise while training: what they do then shows in the loss.

use crate::losses::MeanSquaredError;
use crate::metrics::Metric;
use crate::model::{Array, Input, Model, Wire};
use crate::optimizers::SGD;

use super::*;

/// A model of this layer alone for images of `size`, which learns nothing.
fn alone(layer: impl Layer + 'static, size: [usize; 3]) -> Model {
    let input = Input::new(size);
    let mut model = Model::with(&input, layer.on(&input), 7, 1).unwrap();
    model.compile(SGD, MeanSquaredError, [] as [Metric; 0]).unwrap();
    model
}

fn images(samples: usize, [height, width, channels]: [usize; 3]) -> Array {
    let values = (0..samples * height * width * channels).map(|i| ((i * 31) % 17) as f32).collect();
    Array::new([samples, height, width, channels], values).unwrap()
}

#[test]
fn half_of_the_images_are_flipped_while_training() {
    let size = [2, 3, 1];
    let x = images(256, size);
    let mut model = alone(RandomFlip::new().mode(FlipMode::Horizontal), size);
    let flipped = |at: usize| x.values[at / 3 * 3 + 2 - at % 3];
    let squares = (0..x.values.len()).map(|at| (x.values[at] - flipped(at)).powi(2));
    let of_all = squares.sum::<f32>() / x.values.len() as f32;
    let losses = [0; 3].map(|_| model.train_on_batch(&x, &x).unwrap() / of_all);
    assert!(losses.iter().all(|share| (0.35..0.65).contains(share)), "{losses:?}");
    assert!(losses[0] != losses[1] && losses[1] != losses[2], "{losses:?}");
    assert_eq!(model.predict(&x, 64).unwrap()[0], x);
    let mut again = alone(RandomFlip::new().mode(FlipMode::Horizontal), size);
    assert_eq!(again.train_on_batch(&x, &x).unwrap() / of_all, losses[0]);
}

#[test]
fn a_batch_is_cropped_at_one_place_and_predictions_in_the_middle() {
    let size = [5, 6, 1];
    let x = images(3, size);
    let mut model = alone(RandomCrop::new(2, 3), size);
    let zeros = Array::new([3, 2, 3, 1], vec![0.0; 18]).unwrap();
    let at = |sample: usize, row: usize, column: usize| x.values[sample * 30 + row * 6 + column];
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..20 {
        let loss = model.train_on_batch(&x, &zeros).unwrap();
        let places = (0..4).flat_map(|top| (0..4).map(move |left| (top, left)));
        let place = places.into_iter().find(|(top, left)| {
            let square = |i: usize| at(i / 6, top + i % 6 / 3, left + i % 3).powi(2);
            ((0..18).map(square).sum::<f32>() / 18.0 - loss).abs() < 1e-3
        });
        seen.insert(place.expect("the loss is that of a part of the images"));
    }
    assert!(seen.len() > 5, "{seen:?}");
    // Of five rows and six columns, four and six are in the proportions of two and three: then halved.
    let found = model.predict(&x, 3).unwrap().remove(0);
    assert_eq!(found.shape, [3, 2, 3, 1]);
    let mean = (at(0, 0, 0) + at(0, 0, 1) + at(0, 1, 0) + at(0, 1, 1)) / 4.0;
    assert_eq!(found.values[0], mean);
}

#[test]
fn a_quarter_turn_is_one() {
    let size = [4, 4, 2];
    let x = images(2, size);
    let mut model = alone(RandomRotation::new(0.0).factor([0.25, 0.25]), size);
    let mut turned = x.clone();
    for i in 0..x.values.len() {
        let (sample, row, column, channel) = (i / 32, i % 32 / 8, i % 8 / 2, i % 2);
        turned.values[i] = x.values[sample * 32 + column * 8 + (3 - row) * 2 + channel];
    }
    assert!(model.train_on_batch(&x, &turned).unwrap() < 1e-6);
    assert_eq!(model.predict(&x, 2).unwrap()[0], x);
}

#[test]
fn a_layer_that_is_called_twice_is_divided_once_a_step() {
    let input = Input::new([3]);
    let shared = SpectralNormalization::new(Dense::new(3)).shared();
    let output = shared.on(shared.on(&input));
    let mut model = Model::with(&input, output, 7, 1).unwrap();
    model.compile(SGD, MeanSquaredError, [] as [Metric; 0]).unwrap();
    model
        .set_weight("spectral_normalization/layer/kernel", &[2.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.5])
        .unwrap();
    model.set_weight("spectral_normalization/vector_u", &[1.0, 0.0, 0.0]).unwrap();
    let x = Array::new([1, 3], vec![1.0, 2.0, 4.0]).unwrap();
    // The kernel becomes half of what it is, and is applied twice.
    let y = Array::new([1, 3], vec![1.0, 0.5, 0.25]).unwrap();
    assert!(model.train_on_batch(&x, &y).unwrap() < 1e-10);
}
