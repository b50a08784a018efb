//! Adversaries: their losses and gradients against finite differences in f64, steps against Keras, and that they learn.

use std::path::Path;

use super::programs::{Begun, DRAWS, ITERATION, LABELS, RATE, Role, SAMPLES, SEED};
use super::*;
use crate::activations::*;
use crate::compile::compile;
use crate::graph::reference::Values;
use crate::graph::{Graph, Id};
use crate::layers::{BatchNormalization, Concatenate, Conv2D, Dense, Flatten, Reshape};
use crate::model::{Array, Fit, Input, Wire};
use crate::optimizers::SGD;

const NOISE: usize = 10;
const MIX: usize = 11;

fn losses() -> [GanLoss; 5] {
    [
        GanLoss::NonSaturating {},
        GanLoss::LeastSquares {},
        GanLoss::Hinge {},
        GanLoss::Wasserstein { gradient_penalty: 10.0 },
        GanLoss::WassersteinClipped { clip: 0.1 },
    ]
}

fn numbers(count: usize, salt: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * i * 31 + i * 7919 + salt * 131) % 1009) as f32 / 504.5 - 1.0).collect()
}

/// Pictures of 4 x 4 of three classes, where `smooth` is an activation without kinks.
fn conditional(settings: GanSettings) -> Gan {
    let (noise, label) = (Input::named("noise", [5]), Input::named(LABEL, [3]));
    let both = Concatenate::new().on([&noise, &label]);
    let x = Dense::new(16).activation(Tanh).on(&both);
    let made = Reshape::new([4, 4, 1]).on(&x);
    let generator = Model::with([&noise, &label], &made, 1, 2).unwrap();
    let (picture, label) = (Input::named("picture", [4, 4, 1]), Input::named(LABEL, [3]));
    let x = Conv2D::new(3, 2).activation(Tanh).on(&picture);
    let x = Flatten::new().on(&x);
    let x = Concatenate::new().on([&x, &label]);
    let x = Dense::new(6).activation(Softplus).on(&x);
    let score = Dense::new(1).on(&x);
    let discriminator = Model::with([&picture, &label], &score, 2, 2).unwrap();
    Gan::new(generator, discriminator, settings).unwrap()
}

/// The graph of a loss of `role` on 3 samples, with noise and mix as inputs, and values for all that it depends on.
fn set_up(gan: &Gan, role: Role) -> (Begun, programs::Loss, Values) {
    let mut begun = gan.begun(3).unwrap();
    let noise = begun.graph.input(NOISE, &gan.noise_shape(3));
    let mix = begun.graph.input(MIX, &[3, 1, 1, 1]);
    let loss = match role {
        Role::Generator => gan.generator_loss(&mut begun, noise).unwrap(),
        Role::Discriminator => gan.discriminator_loss(&mut begun, noise, mix).unwrap(),
    };
    let mut values = Values::new();
    let mut set = |id: Id, numbers: Vec<f32>| values.set(id, numbers.into_iter().map(f64::from).collect());
    set(begun.real, numbers(48, 3));
    set(noise, numbers(15, 8));
    set(mix, vec![0.3, 0.6, 0.9]);
    set(begun.when.seed, vec![1.0]);
    set(begun.when.step, vec![1.0]);
    begun.labels.into_iter().for_each(|labels| set(labels, vec![1., 0., 0., 0., 0., 1., 0., 1., 0.]));
    set(begun.makes.vector, gan.generator.variables()[..gan.generator.trainable_len].to_vec());
    set(begun.scores.vector, gan.discriminator.variables()[..gan.discriminator.trainable_len].to_vec());
    (begun, loss, values)
}

/// The gradient of `loss` for `vector`, whose parts are `slices`, against finite differences.
fn check_slopes(graph: &mut Graph, loss: Id, vector: Id, slices: &[Id], values: &Values, what: &str) {
    let gradients = graph.gradients(loss, slices).unwrap();
    let gradient = graph.concat(&gradients, 0).unwrap();
    let found = values.of(graph, &[gradient]).unwrap().remove(0);
    let base = values.of(graph, &[vector]).unwrap().remove(0);
    assert!(found.iter().any(|slope| slope.abs() > 1e-4), "{what}: no slopes");
    for i in 0..base.len() {
        let at = |step: f64| {
            let mut moved = base.clone();
            moved[i] += step;
            let mut values = values.clone();
            values.set(vector, moved);
            values.of(graph, &[loss]).unwrap()[0][0]
        };
        let h = 1e-4;
        let slope = (8.0 * (at(h) - at(-h)) - (at(2.0 * h) - at(-2.0 * h))) / (12.0 * h);
        let error = (slope - found[i]).abs();
        assert!(error < 1e-7 * (1.0 + slope.abs()), "{what}, weight {i}: {} and {slope}", found[i]);
    }
}

#[test]
fn losses_have_their_gradients_and_those_of_their_penalties() {
    for loss in losses() {
        for r1 in [0.0, 2.0] {
            let settings = GanSettings { loss: loss.clone(), r1, ..GanSettings::default() };
            let gan = conditional(settings);
            let (mut begun, computed, values) = set_up(&gan, Role::Discriminator);
            let Begun { graph, scores, .. } = &mut begun;
            let what = format!("discriminator, {loss:?}, r1 {r1}");
            check_slopes(graph, computed.total, scores.vector, &scores.slices, &values, &what);
        }
        let gan = conditional(GanSettings { loss: loss.clone(), ..GanSettings::default() });
        let (mut begun, computed, values) = set_up(&gan, Role::Generator);
        let Begun { graph, makes, .. } = &mut begun;
        let what = format!("generator, {loss:?}");
        check_slopes(graph, computed.total, makes.vector, &makes.slices, &values, &what);
    }
}

#[test]
fn losses_are_what_their_papers_say() {
    let (real, made) = ([0.5, -2.0, 1.5f64], [0.25, -0.5, 3.0f64]);
    let mean = |of: &dyn Fn(f64) -> f64, scores: &[f64]| scores.iter().map(|&x| of(x)).sum::<f64>() / 3.0;
    let log_sigmoid = |x: f64| -(-x).exp().ln_1p();
    type Of<'a> = &'a dyn Fn(f64) -> f64;
    let check = |loss: GanLoss, of_real: Of<'_>, of_made: Of<'_>, of_generator: Of<'_>| {
        let mut graph = Graph::new();
        let (r, m) = (graph.input(0, &[3, 1]), graph.input(1, &[3, 1]));
        let d = loss.of_discriminator(&mut graph, r, m).unwrap();
        let g = loss.of_generator(&mut graph, m).unwrap();
        let mut values = Values::new();
        values.set(r, real.to_vec());
        values.set(m, made.to_vec());
        let found = values.of(&graph, &[d, g]).unwrap();
        let expected = [mean(of_real, &real) + mean(of_made, &made), mean(of_generator, &made)];
        for (found, expected) in found.iter().zip(expected) {
            assert!((found[0] - expected).abs() < 1e-6, "{loss:?}: {} and {expected}", found[0]);
        }
    };
    check(GanLoss::NonSaturating {}, &|x| -log_sigmoid(x), &|x| -log_sigmoid(-x), &|x| -log_sigmoid(x));
    let squares = |to: f64| move |x: f64| (x - to) * (x - to) / 2.0;
    check(GanLoss::LeastSquares {}, &squares(1.0), &squares(0.0), &squares(1.0));
    check(GanLoss::Hinge {}, &|x| (1.0 - x).max(0.0), &|x| (1.0 + x).max(0.0), &|x| -x);
    check(GanLoss::Wasserstein { gradient_penalty: 1.0 }, &|x| -x, &|x| x, &|x| -x);
}

/// Points around (0.5, -1), scattered by 0.3 and 0.1.
fn points(count: usize) -> Array {
    let mut values = normals(3, 9, 2 * count);
    for point in values.chunks_exact_mut(2) {
        point[0] = 0.5 + 0.3 * point[0];
        point[1] = -1.0 + 0.1 * point[1];
    }
    Array::new([count, 2], values).unwrap()
}

fn of_points(settings: GanSettings, threads: usize) -> Gan {
    let noise = Input::new([4]);
    let x = Dense::new(16).activation(LeakyRelu).on(&noise);
    let x = BatchNormalization::new().on(&x);
    let generator = Model::with(&noise, Dense::new(2).on(&x), 5, threads).unwrap();
    let point = Input::new([2]);
    let x = Dense::new(32).activation(LeakyRelu).on(&point);
    let x = Dense::new(16).activation(LeakyRelu).on(&x);
    let discriminator = Model::with(&point, Dense::new(1).on(&x), 6, threads).unwrap();
    Gan::new(generator, discriminator, settings).unwrap()
}

#[test]
fn all_losses_learn_where_points_are() {
    for loss in losses() {
        let critic_steps = if matches!(loss, GanLoss::Wasserstein { .. }) { 3 } else { 1 };
        let optimizer = Adam.learning_rate(0.002);
        let Rule::Adam { beta_2, epsilon, amsgrad, .. } = optimizer.rule else { panic!("not Adam") };
        let rule = Rule::Adam { beta_1: 0.5, beta_2, epsilon, amsgrad };
        let optimizer = Optimizer { rule, ..optimizer };
        let settings = GanSettings {
            loss: loss.clone(),
            critic_steps,
            generator_optimizer: optimizer.clone(),
            discriminator_optimizer: optimizer,
            moving_average: 0.98,
            ..GanSettings::default()
        };
        let mut gan = of_points(settings, 2);
        let history = gan.fit(&points(640), None, &Fit::epochs(80 * critic_steps).batch_size(64)).unwrap();
        assert_eq!(history.of("generator_loss").len(), 80 * critic_steps);
        let made = gan.generate(500, None, 1).unwrap();
        let mean = |at: usize| made.values.iter().skip(at).step_by(2).sum::<f32>() / 500.0;
        let far = (mean(0) - 0.5).abs().max((mean(1) + 1.0).abs());
        assert!(far < 0.2, "{loss:?}: {} {}", mean(0), mean(1));
    }
}

fn bits(gan: &Gan) -> Vec<u32> {
    gan.state().iter().flat_map(|(_, values)| values.iter().map(|x| x.to_bits())).collect()
}

#[test]
fn a_seed_gives_the_same_bits_on_any_number_of_threads_and_from_any_step() {
    let settings = GanSettings { critic_steps: 2, r1: 0.1, ..GanSettings::default() };
    let x = points(96);
    let steps = |gan: &mut Gan, from: usize, to: usize| {
        for number in from..to {
            let batch: Vec<usize> = (0..32).map(|i| (number * 7 + i) % 96).collect();
            gan.step(&x, None, &batch, &mut Totals::default()).unwrap();
        }
    };
    let mut one = of_points(settings.clone(), 1);
    steps(&mut one, 0, 9);
    let mut three = of_points(settings.clone(), 3);
    steps(&mut three, 0, 5);
    let state: Vec<(String, Vec<f32>)> =
        three.state().into_iter().map(|(name, values)| (name, values.to_vec())).collect();
    let mut resumed = of_points(settings, 2);
    let values = |name: &str| Ok(state.iter().find(|(other, _)| other == name).unwrap().1.clone());
    resumed.set_state(&values).unwrap();
    resumed.set_iterations(three.iterations());
    steps(&mut resumed, 5, 9);
    assert_eq!(one.iterations(), [4, 9]);
    assert_eq!(bits(&one), bits(&resumed));
    assert_eq!(one.generate(4, None, 3).unwrap(), resumed.generate(4, None, 3).unwrap());
}

#[test]
fn clipping_keeps_the_discriminators_weights_small() {
    let settings = GanSettings { loss: GanLoss::WassersteinClipped { clip: 0.02 }, ..GanSettings::default() };
    let mut gan = of_points(settings, 1);
    gan.fit(&points(64), None, &Fit::epochs(1)).unwrap();
    assert!(gan.discriminator().weights().all(|(_, _, values)| values.iter().all(|x| x.abs() <= 0.02)));
}

#[test]
fn pairs_that_do_not_go_together_are_named() {
    let pair = |noise: &[(&str, usize)], made: usize, samples: &[(&str, usize)], settings: GanSettings| {
        let network = |inputs: &[(&str, usize)], units: usize, normalized: bool| {
            let inputs: Vec<_> = inputs.iter().map(|(name, size)| Input::named(name, [*size])).collect();
            let all = match &inputs[..] {
                [one] => one.clone(),
                several => Concatenate::new().on(several.to_vec()),
            };
            let x = if normalized { BatchNormalization::new().on(&all) } else { all };
            Model::new(inputs, Dense::new(units).on(&x)).unwrap()
        };
        let normalized = settings.r1 == 3.0;
        let gan = Gan::new(network(noise, made, false), network(samples, 1, normalized), settings);
        gan.err().map(|error| error.to_string()).unwrap_or_default()
    };
    let check = |found: String, expected: &str| assert!(found.contains(expected), "{found}\n{expected}");
    let plain = GanSettings::default;
    check(
        pair(&[("noise", 4)], 3, &[("point", 2)], plain()),
        "the generator gives [3], and the discriminator's input point takes [2]",
    );
    check(
        pair(&[("noise", 4), ("label", 3)], 2, &[("point", 2)], plain()),
        "the generator takes [3] as its input label, and the discriminator has no input label",
    );
    check(
        pair(&[("noise", 4), ("label", 3)], 2, &[("point", 2), ("label", 4)], plain()),
        "the generator takes [3] as its input label, and the discriminator takes [4] as its input label",
    );
    check(
        pair(&[("a", 4), ("b", 3)], 2, &[("point", 2)], plain()),
        "the generator takes one input of noise, and one named label where classes are given; it has: a, b",
    );
    check(
        pair(&[("noise", 4)], 2, &[("point", 2)], GanSettings { r1: 3.0, ..plain() }),
        "r1 is of each sample's own slope, and the discriminator's layer batch_normalization",
    );
    check(
        pair(&[("noise", 4)], 2, &[("point", 2)], GanSettings { critic_steps: 0, ..plain() }),
        "critic_steps takes 1 or more; received 0",
    );
    let mut gan = conditional(plain());
    check(
        gan.generate(2, None, 1).unwrap_err().to_string(),
        "the networks have an input label, and no classes",
    );
    check(gan.generate(1, Some(&[3]), 1).unwrap_err().to_string(), "which takes 3 classes");
    let x = Array::new([2, 3], vec![0.0; 6]).unwrap();
    check(
        gan.fit(&x, Some(&[0, 1]), &Fit::epochs(1)).unwrap_err().to_string(),
        "samples have the shape [3], and the networks make and take [4, 4, 1]",
    );
}

/// One step of each, from equal weights, samples, noise and mix, as `fixtures/training/gan.py` takes them with Keras.
#[test]
fn steps_are_those_of_keras() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/training/gan.safetensors");
    let file = std::fs::read(path).unwrap();
    let tensors = formats::safetensors::read(&file).unwrap();
    let golden = |name: &str| -> Vec<f32> {
        let tensor = tensors.iter().find(|tensor| tensor.name == name).unwrap();
        file[tensor.bytes.clone()].as_chunks().0.iter().map(|x| f32::from_le_bytes(*x)).collect()
    };
    for (name, loss, r1) in [
        ("non_saturating", GanLoss::NonSaturating {}, 0.0),
        ("least_squares", GanLoss::LeastSquares {}, 0.5),
        ("hinge", GanLoss::Hinge {}, 0.0),
        ("wasserstein", GanLoss::Wasserstein { gradient_penalty: 10.0 }, 0.0),
    ] {
        let rate = SGD.learning_rate(0.1);
        let mut gan = conditional(GanSettings {
            loss,
            r1,
            generator_optimizer: rate.clone(),
            discriminator_optimizer: rate,
            moving_average: 0.0,
            ..GanSettings::default()
        });
        gan.set_state(&|weight: &str| {
            let length = gan_len(weight);
            Ok(numbers(length, weight.len()).into_iter().map(|x| x * 0.5).collect())
        })
        .unwrap();
        for role in [Role::Discriminator, Role::Generator] {
            let (mut begun, loss, _) = set_up(&gan, role);
            let updates = gan.updates(&mut begun, role, &loss).unwrap();
            let isa = gan.compute.isa();
            let program = compile(&begun.graph, &[loss.total], &updates, &gan.variables, isa).unwrap();
            gan.workspace.grow(program.floats());
            program.prepare(&mut gan.workspace);
            let given = [
                (SAMPLES, numbers(48, 3)),
                (LABELS, vec![1., 0., 0., 0., 0., 1., 0., 1., 0.]),
                (NOISE, numbers(15, 8)),
                (MIX, vec![0.3, 0.6, 0.9]),
                (RATE, vec![0.1]),
                (ITERATION, vec![1.0]),
                (SEED, vec![1.0]),
                (DRAWS, vec![1.0]),
            ];
            for (number, values) in given {
                if let Some(to) = program.input(&mut gan.workspace, number) {
                    to.copy_from_slice(&values);
                }
            }
            program.run(&gan.compute, &mut gan.workspace);
            let found = program.output(&gan.workspace, 0)[0];
            let which = if role == Role::Generator { "generator" } else { "discriminator" };
            let expected = golden(&format!("{name}:{which}_loss"))[0];
            assert!(
                (found - expected).abs() < 1e-5 * (1.0 + expected.abs()),
                "{name}: {found} and {expected}"
            );
        }
        for (weight, values) in gan.state() {
            let expected = golden(&format!("{name}:{weight}"));
            for (found, expected) in values.iter().zip(&expected) {
                let error = (found - expected).abs();
                assert!(error < 1e-5 * (1.0 + expected.abs()), "{name}, {weight}: {found} and {expected}");
            }
        }
    }
}

/// Values of each weight of [`conditional`].
fn gan_len(weight: &str) -> usize {
    match weight {
        "generator:dense/kernel" => 8 * 16,
        "generator:dense/bias" => 16,
        "discriminator:conv2d/kernel" => 2 * 2 * 3,
        "discriminator:conv2d/bias" => 3,
        "discriminator:dense/kernel" => 30 * 6,
        "discriminator:dense/bias" => 6,
        "discriminator:dense_1/kernel" => 6,
        "discriminator:dense_1/bias" => 1,
        other => panic!("{other}"),
    }
}
