//! What pictures are made from: numbers of the normal distribution, drawn within a step and, for samples that are looked
//! at, outside of one. Both by Box and Muller from the graph's uniform numbers.

use std::f64::consts::TAU;

use kernels::fused::{random_key, random_uniform};

use crate::error::Result;
use crate::graph::{Function, Graph, Id};

/// Numbers of the normal distribution, drawn anew for each `(seed, step)`.
pub(super) fn normal(graph: &mut Graph, seed: Id, step: Id, shape: &[usize]) -> Result<Id> {
    let (size, angle) = (graph.uniform(seed, step, shape), graph.uniform(seed, step, shape));
    // From (0, 1], whose logarithms are finite.
    let size = graph.scalar_sub(1.0, size)?;
    let log = graph.map(Function::Log, size);
    let square = graph.scale(log, -2.0)?;
    let radius = graph.map(Function::Sqrt, square);
    let angle = graph.scale(angle, TAU as f32)?;
    let cosine = graph.map(Function::Cos, angle);
    graph.mul(radius, cosine)
}

/// `count` numbers of the normal distribution; streams of one seed have nothing to do with each other.
pub(crate) fn normals(seed: u64, stream: u32, count: usize) -> Vec<f32> {
    let key = random_key(stream, seed as u32 as f32, -1.0);
    let draw = |index: usize| random_uniform(key, index as u32) as f64;
    let number = |index: usize| {
        let radius = (-2.0 * (1.0 - draw(2 * index)).ln()).sqrt();
        (radius * (TAU * draw(2 * index + 1)).cos()) as f32
    };
    (0..count).map(number).collect()
}

#[test]
fn numbers_are_of_the_normal_distribution() {
    let drawn = normals(7, 1, 40_000);
    let moment = |power: i32| drawn.iter().map(|x| (*x as f64).powi(power)).sum::<f64>() / 40_000.0;
    assert!(moment(1).abs() < 0.02 && (moment(2) - 1.0).abs() < 0.03, "{} {}", moment(1), moment(2));
    assert!(moment(3).abs() < 0.06 && (moment(4) - 3.0).abs() < 0.15, "{} {}", moment(3), moment(4));
    assert_ne!(drawn[..4], normals(7, 2, 4));
    assert_eq!(drawn[..4], normals(7, 1, 4));
}
