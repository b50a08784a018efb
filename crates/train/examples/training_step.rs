//! Times a training step of the networks of `bench/train`: `training_step [NAME...]` prints a line of JSON for each. Steps
//! are those of `fit`, with shuffling, the gathering of batches and the metric. MIXED computes products in bfloat16,
//! CHECKPOINT computes activations again, PROFILE tells where the time goes.

use std::time::Instant;

use train::prelude::*;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

struct Network {
    name: &'static str,
    inputs: Vec<Tensor>,
    output: Tensor,
    x: Vec<Array>,
    y: Array,
    batch: usize,
    steps: usize,
}

fn values(shape: &[usize], scale: f32) -> Array {
    let n: usize = shape.iter().product();
    let value = |i: usize| ((i * 7919 + i / 97) % 1009) as f32 / 1009.0 * scale;
    Array { shape: shape.to_vec(), values: (0..n).map(value).collect() }
}

fn classes(shape: &[usize], count: usize) -> Array {
    let mut array = values(shape, count as f32 * 0.999);
    array.values.iter_mut().for_each(|x| *x = x.floor());
    array
}

fn dense(name: &'static str, sizes: [usize; 3], batch: usize, steps: usize) -> Network {
    let i = Input::new([sizes[0]]);
    let h = Dense::new(sizes[1]).activation(Relu).on(&i);
    let output = Dense::new(sizes[2]).activation(Softmax).on(&h);
    let samples = batch * steps;
    let (x, y) = (values(&[samples, sizes[0]], 1.0), classes(&[samples], sizes[2]));
    Network { name, inputs: vec![i], output, x: vec![x], y, batch, steps }
}

fn cnn() -> Network {
    let i = Input::new([28, 28, 1]);
    let h = Conv2D::new(32, 3).activation(Relu).on(&i);
    let h = MaxPooling2D::new(2).on(&h);
    let h = Conv2D::new(64, 3).activation(Relu).on(&h);
    let h = MaxPooling2D::new(2).on(&h);
    let h = Flatten::new().on(&h);
    let output = Dense::new(10).activation(Softmax).on(&h);
    let (x, y) = (values(&[64 * 40, 28, 28, 1], 1.0), classes(&[64 * 40], 10));
    Network { name: "cnn", inputs: vec![i], output, x: vec![x], y, batch: 64, steps: 40 }
}

fn gpt() -> Network {
    let (i, p) = (Input::new([128]), Input::new([128]));
    let mut x = Add::new().on([&Embedding::new(256, 256).on(&i), &Embedding::new(128, 256).on(&p)]);
    for _ in 0..4 {
        let h = LayerNormalization::new().on(&x);
        let h = MultiHeadAttention::new(8, 32).use_causal_mask(true).on([&h, &h]);
        x = Add::new().on([&x, &h]);
        let h = LayerNormalization::new().on(&x);
        let h = Dense::new(1024).activation(Gelu).on(&h);
        let h = Dense::new(256).on(&h);
        x = Add::new().on([&x, &h]);
    }
    let x = LayerNormalization::new().on(&x);
    let output = Dense::new(256).activation(Softmax).on(&x);
    let tokens = classes(&[8 * 6, 128], 256);
    let mut positions = tokens.clone();
    positions.values.iter_mut().enumerate().for_each(|(i, x)| *x = (i % 128) as f32);
    let y = tokens.clone();
    Network { name: "gpt", inputs: vec![i, p], output, x: vec![tokens, positions], y, batch: 8, steps: 6 }
}

fn lstm() -> Network {
    let i = Input::new([64, 64]);
    let h = LSTM::new(128).on(&i);
    let output = Dense::new(10).activation(Softmax).on(&h);
    let (x, y) = (values(&[32 * 30, 64, 64], 1.0), classes(&[32 * 30], 10));
    Network { name: "lstm", inputs: vec![i], output, x: vec![x], y, batch: 32, steps: 30 }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let networks = [
        dense("article", [100, 128, 10], 32, 1000),
        dense("dense", [784, 1024, 10], 128, 60),
        cnn(),
        gpt(),
        lstm(),
    ];
    for network in networks {
        if !wanted.is_empty() && !wanted.iter().any(|name| name == network.name) {
            continue;
        }
        let started = Instant::now();
        let mut model = Model::new(network.inputs, &network.output)?;
        if std::env::var_os("MIXED").is_some() {
            model.set_dtype_policy(DtypePolicy::MixedBfloat16)?;
        }
        model.set_checkpoint_activations(std::env::var_os("CHECKPOINT").is_some());
        model.compile(Adam, SparseCategoricalCrossentropy, [Accuracy])?;
        let fit = Fit::epochs(1).batch_size(network.batch);
        model.fit(network.x.clone(), &network.y, &fit)?;
        let compile_ms = started.elapsed().as_millis();
        let mut times: Vec<f64> = Vec::new();
        for _ in 0..7 {
            let x = Arrays::from(network.x.clone());
            let y = Arrays::from(network.y.clone());
            let started = Instant::now();
            model.fit(x, y, &fit)?;
            times.push(started.elapsed().as_secs_f64() * 1e6 / network.steps as f64);
        }
        times.sort_by(f64::total_cmp);
        let (median, best) = (times[times.len() / 2], times[0]);
        let bytes = model.step_bytes(network.batch)?;
        println!(
            r#"{{"who": "tureen", "network": "{}", "step_us": {median:.1}, "best_us": {best:.1}, "step_bytes": {bytes}, "first_epoch_ms": {compile_ms}}}"#,
            network.name
        );
        if let Some(profile) = std::env::var_os("PROFILE") {
            println!("{}", model.profile(profile.len())?);
        }
    }
    Ok(())
}
