//! Models from wiring to predictions.

use super::*;
use crate::activations::*;
use crate::layers::{
    Add, BatchNormalization, Conv2D, Dense, Dropout, Flatten, LSTM, LayerNormalization, MultiHeadAttention,
};
use crate::losses::{CategoricalCrossentropy, Loss, MeanSquaredError, SparseCategoricalCrossentropy};
use crate::metrics::{Accuracy, Metric};
use crate::optimizers::{Adam, Lamb, Lion, Muon, Nadam, Optimizer, RMSprop, SGD, Settings};

/// Points of two classes, one within the other.
fn rings(samples: usize) -> (Array, Array) {
    let mut x = vec![];
    let mut y = vec![];
    for i in 0..samples {
        let angle = i as f32 * 2.399_963;
        let radius = if i % 2 == 0 { 0.4 } else { 1.1 } + ((i * 7919) % 101) as f32 / 400.0;
        x.extend([radius * angle.cos(), radius * angle.sin()]);
        y.extend(if i % 2 == 0 { [1.0, 0.0] } else { [0.0, 1.0] });
    }
    (Array::new([samples, 2], x).unwrap(), Array::new([samples, 2], y).unwrap())
}

fn classifier(threads: usize) -> Model {
    let inputs = Input::new([2]);
    let x = Dense::new(32).activation(Relu).on(&inputs);
    let x = Dropout::new(0.1).on(&x);
    let x = Dense::new(32).activation(Tanh).on(&x);
    let outputs = Dense::new(2).activation(Softmax).on(&x);
    Model::with(&inputs, &outputs, 7, threads).unwrap()
}

fn learns(optimizer: impl Into<Optimizer>) {
    let optimizer = optimizer.into();
    let name = format!("{:?}", optimizer.rule);
    let (x, y) = rings(400);
    let mut model = classifier(2);
    model.compile(optimizer, CategoricalCrossentropy, [Accuracy]).unwrap();
    let history = model.fit(&x, &y, &Fit::epochs(30).batch_size(48)).unwrap();
    let figures = model.evaluate(&x, &y, 100).unwrap();
    assert!(figures[1].1 > 0.97, "{name}: accuracy {}", figures[1].1);
    assert_eq!(history.of("accuracy").len(), 30);
}

#[test]
fn classifiers_learn() {
    learns(Adam.learning_rate(0.01));
    learns(Adam.learning_rate(0.01).clipnorm(1.0).weight_decay(0.004));
    learns(SGD.learning_rate(0.3).global_clipnorm(5.0));
    learns(RMSprop.learning_rate(0.005).clipvalue(1.0));
    learns(Nadam.learning_rate(0.01));
    learns(Lion.learning_rate(0.003));
    learns(Lamb.learning_rate(0.02));
    learns(Muon.learning_rate(0.02));
}

#[test]
fn metrics_take_numbers_of_classes_as_they_take_ones() {
    let (x, one_hot) = rings(50);
    let numbers: Vec<f32> = (0..50).map(|i| (i % 2) as f32).collect();
    let figures = |loss: Loss, y: &Array| {
        let mut model = classifier(1);
        let mae = Metric::Mean { name: "mae".to_owned(), loss: crate::losses::MeanAbsoluteError.into() };
        let metrics = [
            Metric::Precision { threshold: 0.5 },
            Metric::Recall { threshold: 0.5 },
            Metric::F1Score { average: None, threshold: Some(0.5) },
            Metric::AUC { num_thresholds: 200 },
            Metric::TopKCategoricalAccuracy { k: 1 },
            mae,
        ];
        model.compile(Adam, loss, metrics).unwrap();
        model.evaluate(&x, y, 25).unwrap()
    };
    let sparse = figures(SparseCategoricalCrossentropy.into(), &Array::new([50], numbers).unwrap());
    assert_eq!(sparse, figures(CategoricalCrossentropy.into(), &one_hot));
}

#[test]
fn a_seed_gives_the_same_bits_on_any_number_of_threads() {
    let (x, y) = rings(300);
    let run = |threads: usize| {
        let mut model = classifier(threads);
        model.compile(Adam, CategoricalCrossentropy, [Accuracy]).unwrap();
        model.fit(&x, &y, &Fit::epochs(3)).unwrap();
        model.weights().flat_map(|(_, _, values)| values.iter().map(|x| x.to_bits())).collect::<Vec<_>>()
    };
    assert_eq!(run(1), run(1));
    assert_eq!(run(1), run(3));
}

/// The last loss, and the weights' bits.
fn fitted_to_waves(policy: DtypePolicy, threads: usize) -> Option<(f32, Vec<u32>)> {
    let inputs = Input::new([64]);
    let x = Dense::new(256).activation(Relu).on(&inputs);
    let outputs = Dense::new(10).activation(Softmax).on(&x);
    let mut model = Model::with(&inputs, &outputs, 3, threads).unwrap();
    match model.set_dtype_policy(policy) {
        Err(TrainError::Argument { argument: "dtype_policy", .. }) => return None,
        set => set.unwrap(),
    }
    model.compile(Adam, SparseCategoricalCrossentropy, [Accuracy]).unwrap();
    let wave = |i: usize| ((i * 7919 + i / 64 * 31) as f32 * 0.37).sin();
    let x = Array::new([640, 64], (0..640 * 64).map(wave).collect()).unwrap();
    let y = Array::new([640], (0..640).map(|i| ((i * 13) % 10) as f32).collect()).unwrap();
    let history = model.fit(&x, &y, &Fit::epochs(10).batch_size(64)).unwrap();
    let bits = model.weights().flat_map(|(_, _, values)| values.iter().map(|x| x.to_bits())).collect();
    Some((history.of("loss")[9] as f32, bits))
}

#[test]
fn mixed_precision_ends_at_the_same_loss_with_the_same_bits_on_any_threads() {
    let (exact, exact_bits) = fitted_to_waves(DtypePolicy::Float32, 2).unwrap();
    let Some((mixed, bits)) = fitted_to_waves(DtypePolicy::MixedBfloat16, 2) else {
        assert!(!Isa::Avx512Bf16.is_available(), "refused where it is there");
        return;
    };
    assert!(bits != exact_bits, "nothing was rounded");
    assert!((mixed / exact - 1.0).abs() < 0.01, "{mixed} instead of {exact}");
    assert_eq!(fitted_to_waves(DtypePolicy::MixedBfloat16, 3).map(|(_, bits)| bits), Some(bits));
}

/// The figures are those of Keras 3.15 for the same.
#[test]
fn samples_of_the_validation_count_their_weight_in_its_loss_alone() {
    let inputs = Input::new([1]);
    let output = Dense::new(1)
        .use_bias(false)
        .kernel_initializer(crate::initializers::Initializer::Ones {})
        .on(&inputs);
    let mut model = Model::new(&inputs, &output).unwrap();
    let mae = Metric::Mean { name: "mae".to_owned(), loss: crate::losses::MeanAbsoluteError.into() };
    model.compile(SGD.learning_rate(0.0), MeanSquaredError, [mae]).unwrap();
    let x = Array::new([10, 1], (0..10).map(|i| i as f32).collect()).unwrap();
    let y = Array::new([10, 1], (0..10).map(|i| 2.0 * i as f32).collect()).unwrap();
    let weights = vec![0.0, 1.0, 2.0, 3.0, 4.0, 0.5, 0.0, 1.0, 1.0, 2.0];
    let fit = Fit::epochs(1).batch_size(4).validation(x.clone(), y.clone());
    let history = model.fit(&x, &y, &fit.clone().validation_sample_weight(weights)).unwrap();
    assert!((history.of("val_loss")[0] - 38.75).abs() < 1e-5, "{history:?}");
    assert_eq!((history.of("val_mae")[0], history.of("loss")[0]), (4.5, 28.5));
    let error = model.fit(&x, &y, &fit.validation_sample_weight(vec![1.0; 9])).unwrap_err().to_string();
    assert!(error.contains("validation_sample_weight") && error.contains("10 weights"), "{error}");
}

/// Blocks of a transformer with all that follows from seeds and running means.
fn deep() -> Model {
    let inputs = Input::new([32, 16]);
    let mut x = BatchNormalization::new().on(&inputs);
    for _ in 0..12 {
        let h = LayerNormalization::new().on(&x);
        let h = MultiHeadAttention::new(2, 8).use_causal_mask(true).on([&h, &h]);
        x = Add::new().on([&x, &Dropout::new(0.1).on(&h)]);
        let h = LayerNormalization::new().on(&x);
        let h = Dense::new(64).activation(Gelu).on(&h);
        x = Add::new().on([&x, &Dense::new(16).on(&h)]);
    }
    let outputs = Dense::new(4).activation(Softmax).on(Flatten::new().on(&x));
    let mut model = Model::with(&inputs, &outputs, 5, 2).unwrap();
    model.compile(Adam, SparseCategoricalCrossentropy, [Accuracy]).unwrap();
    model
}

#[test]
fn checkpointing_activations_takes_less_memory_for_the_same_bits() {
    let x = Array::new([24, 32, 16], (0..24 * 512).map(|i| (i as f32 * 0.37).sin()).collect()).unwrap();
    let y = Array::new([24], (0..24).map(|i| (i % 4) as f32).collect()).unwrap();
    let fitted = |checkpoint: bool| {
        let mut model = deep();
        model.set_checkpoint_activations(checkpoint);
        let bytes = model.step_bytes(8).unwrap();
        let history = model.fit(&x, &y, &Fit::epochs(3).batch_size(8)).unwrap();
        let bits = model.weights().flat_map(|(_, _, values)| values.iter().map(|x| x.to_bits()));
        (bytes, history.of("loss").to_vec(), bits.collect::<Vec<_>>())
    };
    let ((all, losses, bits), (fewer, same_losses, same_bits)) = (fitted(false), fitted(true));
    assert!(fewer * 2 < all, "{fewer} bytes instead of {all}");
    assert_eq!(same_losses, losses);
    assert!(same_bits == bits, "other weights");
}

#[test]
fn shared_layers_and_several_outputs_are_wired() {
    let (a, b) = (Input::new([3]), Input::new([3]));
    let shared = Dense::new(4).activation(Relu).shared();
    let sum = Add::new().on([&shared.on(&a), &shared.on(&b)]);
    let (first, second) = (Dense::new(2).on(&sum), Dense::new(1).on(&sum));
    let mut model = Model::new([&a, &b], [&first, &second]).unwrap();
    assert_eq!(model.weights().count(), 6);
    model.compile(SGD, [MeanSquaredError, MeanSquaredError], [] as [Accuracy; 0]).unwrap();
    let x = Array::new([5, 3], (0..15).map(|i| i as f32 / 15.0).collect()).unwrap();
    let y = vec![Array::new([5, 2], vec![0.5; 10]).unwrap(), Array::new([5, 1], vec![1.0; 5]).unwrap()];
    let history = model.fit(vec![x.clone(), x.clone()], y, &Fit::epochs(50)).unwrap();
    let losses = history.of("loss");
    assert!(losses[49] < losses[0] / 3.0, "{losses:?}");
    let predictions = model.predict(vec![x.clone(), x], 2).unwrap();
    assert_eq!(predictions[1].shape, [5, 1]);
}

#[test]
fn shapes_that_do_not_fit_name_the_layer_and_both() {
    let inputs = Input::new([8, 8]);
    let x = LSTM::new(4).return_sequences(true).on(&inputs);
    let y = Conv2D::new(2, 3).on(&x);
    let error = Model::new(&inputs, &y).err().map(|error| error.to_string());
    let expected =
        "conv2d: the layer takes one input of 4 dimensions or more, the batch counted; received [2, 8, 4]";
    assert_eq!(error.as_deref(), Some(expected));
}

#[test]
fn labels_out_of_range_and_nan_are_said() {
    let inputs = Input::new([2]);
    let mut model = Model::new(&inputs, Dense::new(3).activation(Softmax).on(&inputs)).unwrap();
    model.compile(SGD, SparseCategoricalCrossentropy, [Accuracy]).unwrap();
    let x = Array::new([4, 2], vec![0.0; 8]).unwrap();
    let y = Array::new([4], vec![0.0, 2.0, 3.0, 1.0]).unwrap();
    let error = model.fit(&x, &y, &Fit::epochs(1)).unwrap_err().to_string();
    assert!(error.contains("classes 0 to 2") && error.contains("3 in sample 2"), "{error}");
    let y = Array::new([4], vec![0.0; 4]).unwrap();
    let x = Array::new([4, 2], vec![f32::NAN; 8]).unwrap();
    assert!(matches!(model.fit(&x, &y, &Fit::epochs(1)), Err(TrainError::NotFinite { step: 1, .. })));
}

#[test]
fn configurations_read_back() {
    let inputs = Input::new([12, 12, 3]);
    let layer = Conv2D::new(8, 3).strides(2).activation(Gelu);
    let config = crate::layers::Layer::config(&layer);
    assert_eq!(config["kernel_size"], serde_json::json!([3, 3]));
    assert_eq!(config["kernel_initializer"]["class_name"], "GlorotUniform");
    let read: Shared = crate::layers::from_config("Conv2D", &config).unwrap().into();
    let model = Model::new(&inputs, read.on(&inputs)).unwrap();
    assert_eq!(model.output_shape(0), [5, 5, 8]);
    let error = crate::layers::from_config("Lambda", &config).unwrap_err().to_string();
    assert!(error.contains("layer \"Lambda\" is not supported"), "{error}");
}

#[test]
fn the_summary_is_kerass() {
    let inputs = Input::new([100]);
    let x = Dense::new(128).activation(Relu).on(&inputs);
    let outputs = Dense::new(10).activation(Softmax).on(&x);
    let summary = Model::new(&inputs, &outputs).unwrap().summary();
    // As Keras 3.15 prints it.
    let expected = include_str!("../../tests/summary.txt");
    assert_eq!(summary, expected);
    let _ = Loss::from(CategoricalCrossentropy);
}
