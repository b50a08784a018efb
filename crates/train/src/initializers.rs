//! How weights begin, with Keras's names and arguments.

use kernels::fused::{random_key, random_uniform};
use serde::{Deserialize, Serialize};

/// An initialiser. The draws are this project's own: Keras's depend on its backend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "class_name", content = "config")]
pub enum Initializer {
    Zeros {},
    Ones {},
    Constant {
        value: f32,
    },
    RandomUniform {
        minval: f32,
        maxval: f32,
    },
    RandomNormal {
        mean: f32,
        stddev: f32,
    },
    TruncatedNormal {
        mean: f32,
        stddev: f32,
    },
    GlorotUniform {},
    GlorotNormal {},
    HeUniform {},
    HeNormal {},
    LecunUniform {},
    LecunNormal {},
    VarianceScaling {
        scale: f32,
        mode: Mode,
        distribution: Distribution,
    },
    #[serde(rename = "Orthogonal", alias = "OrthogonalInitializer")]
    OrthogonalInitializer {
        gain: f32,
    },
    #[serde(rename = "Identity", alias = "IdentityInitializer")]
    IdentityInitializer {
        // Keras doesn't write it.
        #[serde(default = "one")]
        gain: f32,
    },
    /// The bias of an LSTM: ones for the forget gate, the second of four.
    #[serde(skip)]
    UnitForgetBias {
        units: usize,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    FanIn,
    FanOut,
    FanAvg,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Distribution {
    Uniform,
    TruncatedNormal,
    UntruncatedNormal,
}

impl Default for Initializer {
    fn default() -> Initializer {
        Initializer::GlorotUniform {}
    }
}

fn one() -> f32 {
    1.0
}

/// Random numbers of one weight.
struct Draws {
    key: u64,
    next: u32,
}

impl Draws {
    fn uniform(&mut self) -> f64 {
        self.next += 1;
        random_uniform(self.key, self.next) as f64
    }

    /// Box and Muller's method.
    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    fn truncated_normal(&mut self) -> f64 {
        loop {
            let x = self.normal();
            if x.abs() < 2.0 {
                return x;
            }
        }
    }
}

/// Inputs and outputs of a unit, as Keras counts them.
fn fans(shape: &[usize]) -> (f64, f64) {
    match shape {
        [] => (1.0, 1.0),
        [n] => (*n as f64, *n as f64),
        [field @ .., input, output] => {
            let field = field.iter().product::<usize>() as f64;
            (*input as f64 * field, *output as f64 * field)
        }
    }
}

impl Initializer {
    /// The values of weight number `which` of a model with this seed.
    pub fn values(&self, shape: &[usize], seed: u64, which: usize) -> Vec<f32> {
        let seeds = [seed as u32, (seed >> 32) as u32].map(|part| part as f32);
        let mut draws = Draws { key: random_key(which as u32 ^ 0x5eed, seeds[0], seeds[1]), next: 0 };
        let n: usize = shape.iter().product();
        use Distribution::{TruncatedNormal as Truncated, Uniform};
        match self {
            Initializer::Zeros {} => vec![0.0; n],
            Initializer::Ones {} => vec![1.0; n],
            Initializer::Constant { value } => vec![*value; n],
            Initializer::RandomUniform { minval, maxval } => {
                (0..n).map(|_| minval + (maxval - minval) * draws.uniform() as f32).collect()
            }
            Initializer::RandomNormal { mean, stddev } => {
                (0..n).map(|_| mean + stddev * draws.normal() as f32).collect()
            }
            Initializer::TruncatedNormal { mean, stddev } => {
                (0..n).map(|_| mean + stddev * draws.truncated_normal() as f32).collect()
            }
            Initializer::GlorotUniform {} => scaled(shape, 1.0, Mode::FanAvg, Uniform, &mut draws),
            Initializer::GlorotNormal {} => scaled(shape, 1.0, Mode::FanAvg, Truncated, &mut draws),
            Initializer::HeUniform {} => scaled(shape, 2.0, Mode::FanIn, Uniform, &mut draws),
            Initializer::HeNormal {} => scaled(shape, 2.0, Mode::FanIn, Truncated, &mut draws),
            Initializer::LecunUniform {} => scaled(shape, 1.0, Mode::FanIn, Uniform, &mut draws),
            Initializer::LecunNormal {} => scaled(shape, 1.0, Mode::FanIn, Truncated, &mut draws),
            Initializer::VarianceScaling { scale, mode, distribution } => {
                scaled(shape, *scale as f64, *mode, *distribution, &mut draws)
            }
            Initializer::UnitForgetBias { units } => {
                (0..n).map(|i| if i / units == 1 { 1.0 } else { 0.0 }).collect()
            }
            Initializer::OrthogonalInitializer { gain } => orthogonal(shape, *gain, &mut draws),
            Initializer::IdentityInitializer { gain } => {
                let columns = shape.last().copied().unwrap_or(1);
                (0..n).map(|i| if i / columns == i % columns { *gain } else { 0.0 }).collect()
            }
        }
    }
}

fn scaled(
    shape: &[usize],
    scale: f64,
    mode: Mode,
    distribution: Distribution,
    draws: &mut Draws,
) -> Vec<f32> {
    let (input, output) = fans(shape);
    let fan = match mode {
        Mode::FanIn => input,
        Mode::FanOut => output,
        Mode::FanAvg => (input + output) / 2.0,
    };
    let variance = scale / fan.max(1.0);
    let n = shape.iter().product::<usize>();
    let draw = |draws: &mut Draws| match distribution {
        Distribution::Uniform => (3.0 * variance).sqrt() * (2.0 * draws.uniform() - 1.0),
        // What cutting at two deviations takes from the variance is given back.
        Distribution::TruncatedNormal => variance.sqrt() / 0.879_625_661_034_239_8 * draws.truncated_normal(),
        Distribution::UntruncatedNormal => variance.sqrt() * draws.normal(),
    };
    (0..n).map(|_| draw(draws) as f32).collect()
}

/// Rows (or columns, if there are more rows) of unit length at right angles: Gram and Schmidt's method, twice over.
fn orthogonal(shape: &[usize], gain: f32, draws: &mut Draws) -> Vec<f32> {
    let columns = shape.last().copied().unwrap_or(1).max(1);
    let rows = shape.iter().product::<usize>() / columns;
    let (count, len) = (rows.min(columns), rows.max(columns));
    let mut vectors: Vec<Vec<f64>> = Vec::new();
    while vectors.len() < count {
        let mut vector: Vec<f64> = (0..len).map(|_| draws.normal()).collect();
        for _ in 0..2 {
            for other in &vectors {
                let dot: f64 = vector.iter().zip(other).map(|(a, b)| a * b).sum();
                vector.iter_mut().zip(other).for_each(|(a, b)| *a -= dot * b);
            }
        }
        let length = vector.iter().map(|x| x * x).sum::<f64>().sqrt();
        if length > 1e-6 {
            vectors.push(vector.into_iter().map(|x| x / length).collect());
        }
    }
    let at =
        |row: usize, column: usize| if rows <= columns { vectors[row][column] } else { vectors[column][row] };
    (0..rows * columns).map(|i| gain * at(i / columns, i % columns) as f32).collect()
}
