//! Nineteen networks against Keras on TensorFlow: from equal weights and batches, the loss of 200 steps and the
//! predictions after them. `fixtures/training/make.py` made the goldens; a network here reads as the one there.

#![allow(clippy::unwrap_used)] // functions that tests share count as no tests

use std::collections::HashMap;
use std::path::Path;

use train::initializers::Initializer;
use train::penalties::Regularizer;
use train::prelude::*;

const STEPS: usize = 200;
const BATCH: usize = 16;
const BATCHES: usize = 6;
const SAMPLES: usize = BATCH * BATCHES;

fn numbers(shape: &[usize], salt: i64) -> Vec<f32> {
    let n: usize = shape.iter().product();
    let value = |i: i64| (((i * i * 31 + i * 7919) % 1009) as f64 / 504.5 - 1.0) as f32;
    (0..n as i64).map(|i| value(i + salt * 131)).collect()
}

fn inputs(shape: &[usize], salt: i64) -> Array {
    let shape = [&[SAMPLES], shape].concat();
    let values = numbers(&shape, salt);
    Array::new(shape, values).unwrap()
}

fn tokens(length: usize, salt: i64, count: f32) -> Array {
    let mut array = inputs(&[length], salt);
    array.values.iter_mut().for_each(|x| *x = ((*x + 1.0) * 0.499 * count).trunc());
    array
}

struct Golden(HashMap<String, (Vec<usize>, Vec<f32>)>);

impl Golden {
    fn read(name: &str) -> Golden {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/training");
        let file = std::fs::read(folder.join(format!("{name}.safetensors"))).unwrap();
        let tensors = formats::safetensors::read(&file).unwrap();
        let values = |bytes: &[u8]| bytes.as_chunks::<4>().0.iter().map(|x| f32::from_le_bytes(*x)).collect();
        let entries =
            tensors.iter().map(|t| (t.name.to_string(), (t.shape.clone(), values(&file[t.bytes.clone()]))));
        Golden(entries.collect())
    }

    fn array(&self, name: &str) -> Array {
        let (shape, values) = &self.0[name];
        Array::new(shape.clone(), values.clone()).unwrap()
    }
}

fn batch(array: &Array, index: usize) -> Array {
    let len = array.values.len() / SAMPLES * BATCH;
    let values = array.values[index * len..][..len].to_vec();
    Array::new([&[BATCH], &array.shape[1..]].concat(), values).unwrap()
}

fn check<L: Into<Loss>>(
    name: &str,
    wired: (Vec<Tensor>, Tensor),
    xs: Vec<Array>,
    loss: L,
    optimizer: impl Into<Optimizer>,
) {
    check_with(name, wired, xs, (loss.into(), &[]), optimizer);
}

fn check_with(
    name: &str,
    wired: (Vec<Tensor>, Tensor),
    xs: Vec<Array>,
    (loss, metrics): (Loss, &[Metric]),
    optimizer: impl Into<Optimizer>,
) {
    let golden = Golden::read(name);
    let optimizer = optimizer.into();
    let begun = || {
        let mut model = Model::new(wired.0.clone(), &wired.1).unwrap();
        let weights =
            golden.0.iter().filter_map(|(path, (_, values))| Some((path.strip_prefix("weight:")?, values)));
        let set = weights.map(|(path, values)| model.set_weight(path, values).unwrap()).count();
        assert_eq!(set, model.weights().count(), "{name}: weights");
        model.compile(optimizer.clone(), loss.clone(), metrics.to_vec()).unwrap();
        model
    };
    let mut model = begun();
    // The same bits where activations aren't kept.
    let mut forgetful = begun();
    forgetful.set_checkpoint_activations(true);
    let y = if golden.0.contains_key("targets") { golden.array("targets") } else { xs[0].clone() };
    let expected = &golden.0["losses"].1;
    let mut worst = (0.0f32, 0);
    for step in 0..STEPS {
        let x: Vec<Array> = xs.iter().map(|x| batch(x, step % BATCHES)).collect();
        let again =
            (step < 3).then(|| forgetful.train_on_batch(x.clone(), batch(&y, step % BATCHES)).unwrap());
        let loss = model.train_on_batch(x, batch(&y, step % BATCHES)).unwrap();
        assert!(again.is_none_or(|again| again == loss), "{name}, step {step}: {again:?}, not {loss}");
        let error = (loss / expected[step] - 1.0).abs();
        if step < 20 {
            assert!(error < 1e-4, "{name}, step {step}: {loss}, not {}", expected[step]);
            worst = if error > worst.0 { (error, step) } else { worst };
        } else if step == STEPS - 1 {
            println!("{name}: {:.1e} at step {}, {error:.1e} at the last", worst.0, worst.1);
            assert!(error < 1e-2, "{name}, the last step: {loss}, not {}", expected[step]);
        }
    }
    if let Some((_, expected)) = golden.0.get("evaluated") {
        let found = model.evaluate(xs.clone(), y, 32).unwrap();
        println!("{name}: {found:?}, {expected:?}");
        for ((_, found), expected) in found.iter().zip(expected) {
            assert!((found - f64::from(*expected)).abs() < 1e-2, "{name}: {found}, not {expected}");
        }
    }
    let predictions = model.predict(xs, 32).unwrap();
    let (_, expected) = &golden.0["predictions"];
    for (found, expected) in predictions[0].values.iter().zip(expected) {
        assert!((found - expected).abs() < 1e-2, "{name}: predictions {found} and {expected}");
    }
}

#[test]
fn dense() {
    let i = Input::new([20]);
    let h = Dense::new(32).activation(Relu).on(&i);
    let h = Dense::new(16).activation(Tanh).on(&h);
    let o = Dense::new(4).activation(Softmax).on(&h);
    check("dense", (vec![i], o), vec![inputs(&[20], 1)], CategoricalCrossentropy, Adam.learning_rate(0.01));
}

#[test]
fn cnn() {
    let i = Input::new([12, 12, 1]);
    let h = Conv2D::new(8, 3).activation(Relu).on(&i);
    let h = MaxPooling2D::new(2).on(&h);
    let h = Conv2D::new(16, 3).padding(Padding::Same).activation(Relu).on(&h);
    let h = AveragePooling2D::new(2).padding(Padding::Same).on(&h);
    let h = Flatten::new().on(&h);
    let o = Dense::new(4).activation(Softmax).on(&h);
    let sgd = Optimizer::new(Rule::SGD { momentum: 0.9, nesterov: true }, 0.01);
    check("cnn", (vec![i], o), vec![inputs(&[12, 12, 1], 2)], SparseCategoricalCrossentropy, sgd);
}

#[test]
fn residual() {
    let i = Input::new([10, 10, 2]);
    let a = Conv2D::new(8, 3).padding(Padding::Same).activation(Relu).on(&i);
    let h = Conv2D::new(8, 3).padding(Padding::Same).activation(Elu).on(&a);
    let h = Conv2D::new(8, 3).padding(Padding::Same).on(&h);
    let h = Add::new().on([&a, &h]);
    let h = ActivationLayer::new(Silu).on(&h);
    let h = Conv2D::new(12, 3).strides(2).padding(Padding::Same).activation(LeakyRelu).on(&h);
    let h = GlobalAveragePooling2D::new().on(&h);
    let o = Dense::new(3).activation(Softmax).on(&h);
    let rms = RMSprop.learning_rate(0.002);
    check("residual", (vec![i], o), vec![inputs(&[10, 10, 2], 3)], SparseCategoricalCrossentropy, rms);
}

#[test]
fn depthwise() {
    let i = Input::new([10, 10, 3]);
    let h = DepthwiseConv2D::new(3).depth_multiplier(2usize).activation(Relu).on(&i);
    let h = SeparableConv2D::new(8, 3).strides(2).padding(Padding::Same).activation(Softplus).on(&h);
    let h = Flatten::new().on(&h);
    let o = Dense::new(3).activation(Softmax).on(&h);
    let adam = Adam.learning_rate(0.005);
    check("depthwise", (vec![i], o), vec![inputs(&[10, 10, 3], 4)], SparseCategoricalCrossentropy, adam);
}

#[test]
fn lstm() {
    let i = Input::new([10, 6]);
    let h = LSTM::new(12).return_sequences(true).on(&i);
    let h = LSTM::new(8).on(&h);
    let o = Dense::new(3).activation(Softmax).on(&h);
    let adam = Adam.learning_rate(0.01).clipnorm(0.5);
    check("lstm", (vec![i], o), vec![inputs(&[10, 6], 5)], SparseCategoricalCrossentropy, adam);
}

#[test]
fn bidirectional_gru() {
    let i = Input::new([9, 5]);
    let h = Bidirectional::new(GRU::new(8).return_sequences(true)).on(&i);
    let h = Bidirectional::new(SimpleRNN::new(6)).merge_mode(MergeMode::Sum).on(&h);
    let o = Dense::new(1).activation(Sigmoid).on(&h);
    let adam = Adam.learning_rate(0.01);
    check("bidirectional_gru", (vec![i], o), vec![inputs(&[9, 5], 6)], BinaryCrossentropy, adam);
}

#[test]
fn transformer() {
    let i = Input::new([12]);
    let e = Embedding::new(20, 16).on(&i);
    let h = LayerNormalization::new().on(&e);
    let h = MultiHeadAttention::new(2, 8).use_causal_mask(true).on([&h, &h]);
    let a = Add::new().on([&e, &h]);
    let h = LayerNormalization::new().on(&a);
    let h = Dense::new(32).activation(Gelu).on(&h);
    let h = Dense::new(16).on(&h);
    let h = Add::new().on([&a, &h]);
    let o = Dense::new(20).activation(Softmax).on(&h);
    let adam = Adam.learning_rate(0.01);
    check("transformer", (vec![i], o), vec![tokens(12, 7, 20.0)], SparseCategoricalCrossentropy, adam);
}

#[test]
fn autoencoder() {
    let i = Input::new([8, 8, 1]);
    let h = Conv2D::new(8, 3).strides(2).padding(Padding::Same).activation(Relu).on(&i);
    let h = Conv2D::new(4, 3).strides(2).padding(Padding::Same).activation(Selu).on(&h);
    let h = Conv2DTranspose::new(8, 3).strides(2).padding(Padding::Same).activation(Relu).on(&h);
    let h = UpSampling2D::new(2).on(&h);
    let o = Conv2D::new(1, 3).padding(Padding::Same).activation(Tanh).on(&h);
    let rule = Rule::Adam { beta_1: 0.9, beta_2: 0.999, epsilon: 1e-7, amsgrad: true };
    let adam = Optimizer::new(rule, 0.005);
    check("autoencoder", (vec![i], o), vec![inputs(&[8, 8, 1], 8)], MeanSquaredError, adam);
}

#[test]
fn two_inputs() {
    let (a, b) = (Input::new([8]), Input::new([6]));
    let l2 = Regularizer::L2 { l2: 0.01 };
    let h = Dense::new(10).activation(Softsign).kernel_regularizer(l2).on(&a);
    let g = Dense::new(10).activation(Mish).kernel_initializer(Initializer::GlorotUniform {}).on(&b);
    let m = Multiply::new().on([&h, &g]);
    let c = Concatenate::new().on([&h, &g, &m]);
    let o = Dense::new(2).on(&c);
    let xs = vec![inputs(&[8], 9), inputs(&[6], 10)];
    check("two_inputs", (vec![a, b], o), xs, Loss::Huber { delta: 0.7 }, Adamax.learning_rate(0.01));
}

#[test]
fn embeddings() {
    let i = Input::new([7]);
    let h = Embedding::new(30, 12).on(&i);
    let h = GlobalAveragePooling1D::new().on(&h);
    let h = Dense::new(16).activation(Relu).on(&h);
    let o = Dense::new(1).activation(Sigmoid).on(&h);
    let sgd = SGD.learning_rate(0.5).global_clipnorm(1.0);
    check("embeddings", (vec![i], o), vec![tokens(7, 11, 30.0)], BinaryCrossentropy, sgd);
}

#[test]
fn batch_norm() {
    let i = Input::new([8, 8, 2]);
    let h = Conv2D::new(8, 3).use_bias(false).on(&i);
    let h = BatchNormalization::new().on(&h);
    let h = ActivationLayer::new(Relu).on(&h);
    let h = Flatten::new().on(&h);
    let h = Dropout::new(0.0).on(&h);
    let h = Dense::new(16).on(&h);
    let h = BatchNormalization::new().momentum(0.9f32).on(&h);
    let h = ActivationLayer::new(Tanh).on(&h);
    let o = Dense::new(3).activation(Softmax).on(&h);
    let nadam = Nadam.learning_rate(0.003);
    check("batch_norm", (vec![i], o), vec![inputs(&[8, 8, 2], 12)], SparseCategoricalCrossentropy, nadam);
}

#[test]
fn label_smoothing() {
    let i = Input::new([24]);
    let h = Dense::new(32).activation(Gelu).on(&i);
    let h = RMSNormalization::new().on(&h);
    let o = Dense::new(4).on(&h);
    let rate = Schedule::CosineDecay {
        initial_learning_rate: 0.001,
        decay_steps: 150.0,
        alpha: 0.1,
        warmup_target: Some(0.01),
        warmup_steps: 20.0,
    };
    let loss = Loss::CategoricalCrossentropy { from_logits: true, label_smoothing: 0.1 };
    let adamw = AdamW.learning_rate(rate).weight_decay(0.02);
    check("label_smoothing", (vec![i], o), vec![inputs(&[24], 13)], loss, adamw);
}

#[test]
fn spectral() {
    let i = Input::new([8, 8, 2]);
    let h = SpectralNormalization::new(Conv2D::new(6, 3)).power_iterations(2usize).on(&i);
    let h = PReLU::new().shared_axes(vec![1, 2]).on(&h);
    let h = Flatten::new().on(&h);
    let l2 = Regularizer::L2 { l2: 0.01 };
    let h = SpectralNormalization::new(Dense::new(8).kernel_regularizer(l2)).on(&h);
    let h = LeakyReLU::new().on(&h);
    let o = Dense::new(3).named("last").on(&h);
    let o = SoftmaxLayer::new().on(&o);
    let ema = Adam.learning_rate(0.005).use_ema(0.9).ema_overwrite_frequency(7);
    check("spectral", (vec![i], o), vec![inputs(&[8, 8, 2], 14)], SparseCategoricalCrossentropy, ema);
}

#[test]
fn grouped() {
    let i = Input::new([10, 6]);
    let h = TimeDistributed::new(Dense::new(8)).on(&i);
    let h = TimeDistributed::new(BatchNormalization::new().momentum(0.9f32)).on(&h);
    let a = GroupQueryAttention::new(4, 4, 2).use_gate(true).use_causal_mask(true).on([&h, &h]);
    let b = GroupQueryAttention::new(4, 2, 1).sliding_window(3).use_bias(false).on([&h, &h]);
    let h = Add::new().on([&a, &b]);
    let h = ELU::new().alpha(0.7f32).on(&h);
    let d = Dot::new([2, 2]).normalize(true).on([&a, &h]);
    let h = Concatenate::new().on([&h, &d]);
    let h = ReLU::new().max_value(2.0).negative_slope(0.1f32).threshold(0.1f32).on(&h);
    let h = GlobalAveragePooling1D::new().on(&h);
    let o = Dense::new(3).activation(Softmax).named("last").on(&h);
    let adam = Adam.learning_rate(0.003).gradient_accumulation_steps(3).weight_decay(0.01);
    check("grouped", (vec![i], o), vec![inputs(&[10, 6], 15)], SparseCategoricalCrossentropy, adam);
}

#[test]
fn ctc() {
    let i = Input::new([9, 6]);
    let h = Bidirectional::new(GRU::new(8).return_sequences(true)).on(&i);
    let o = Dense::new(5).on(&h);
    let adafactor = Adafactor.learning_rate(0.02).weight_decay(0.01);
    check("ctc", (vec![i], o), vec![inputs(&[9, 6], 16)], CTC, adafactor);
}

#[test]
fn muon() {
    let i = Input::new([7]);
    let h = Embedding::new(30, 12).on(&i);
    let h = Flatten::new().on(&h);
    let h = Dense::new(16).activation(Relu).on(&h);
    let o = Dense::new(3).activation(Softmax).on(&h);
    let muon = Muon.learning_rate(0.01).weight_decay(0.02);
    check("muon", (vec![i], o), vec![tokens(7, 17, 30.0)], SparseCategoricalCrossentropy, muon);
}

/// Sample `s` has `1 + s % steps` steps, and zeros after them.
fn cut(mut array: Array) -> Array {
    let (steps, width) = (array.shape[1], array.shape[2..].iter().product::<usize>());
    for (sample, values) in array.values.chunks_mut(steps * width).enumerate() {
        values[(1 + sample % steps) * width..].fill(0.0);
    }
    array
}

#[test]
fn masked_tags() {
    let i = Input::new([9]);
    let h = Embedding::new(20, 8).mask_zero(true).on(&i);
    let h = LSTM::new(8).return_sequences(true).on(&h);
    let h = Bidirectional::new(GRU::new(6).return_sequences(true)).on(&h);
    let h = Dropout::new(0.0).on(&h);
    let o = Dense::new(4).activation(Softmax).on(&h);
    let of = (SparseCategoricalCrossentropy.into(), &[Metric::Accuracy {}][..]);
    check_with("masked_tags", (vec![i], o), vec![cut(tokens(9, 18, 20.0))], of, Adam.learning_rate(0.01));
}

#[test]
fn masked_attention() {
    let i = Input::new([10, 6]);
    let m = Masking::new().on(&i);
    let h = Dense::new(8).on(&m);
    let a = MultiHeadAttention::new(2, 4).use_causal_mask(true).on([&h, &h]);
    let d = Dense::new(8).named("apart").on(&m);
    let g = GroupQueryAttention::new(4, 2, 1).on([&d, &d]);
    let h = LayerNormalization::new().on(Add::new().on([&a, &g]));
    let h = BatchNormalization::new().momentum(0.9).on(Concatenate::new().on([&h, &m]));
    let wide = Dense::new(8).named("wide").on(&i);
    let h = MultiHeadAttention::new(2, 3).named("across").on([&wide, &h]);
    let h = Concatenate::new().on([&h, &GRU::new(4).return_sequences(true).on(&m)]);
    let h = GlobalAveragePooling1D::new().on(&h);
    let o = Dense::new(3).activation(Softmax).named("last").on(&h);
    let of = (SparseCategoricalCrossentropy.into(), &[Metric::Accuracy {}][..]);
    let x = vec![cut(inputs(&[10, 6], 19))];
    check_with("masked_attention", (vec![i], o), x, of, Adam.learning_rate(0.005));
}

#[test]
fn masked_steps() {
    let i = Input::new([8, 5]);
    let m = Masking::new().on(&i);
    let h = SimpleRNN::new(6).return_sequences(true).zero_output_for_mask(true).on(&m);
    let last = LSTM::new(5).go_backwards(true).on(&h);
    let start = Dense::new(6).on(&last);
    let h = GRU::new(6).return_sequences(true).reset_after(false).on([&h, &start]);
    let h = Bidirectional::new(SimpleRNN::new(6).return_sequences(true)).merge_mode(MergeMode::Sum).on(&h);
    let each = TimeDistributed::new(Dense::new(6)).on(&h);
    let h = Multiply::new().on([&h, &each]);
    let o = Dense::new(1).named("last").on(&h);
    let mae = Metric::Mean { name: "mae".to_owned(), loss: Loss::MeanAbsoluteError {} };
    let of = (MeanSquaredError.into(), &[mae][..]);
    let x = vec![cut(inputs(&[8, 5], 20))];
    check_with("masked_steps", (vec![i], o), x, of, RMSprop.learning_rate(0.005));
}
