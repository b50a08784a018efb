//! Learning rates over steps, with Keras's names and arguments.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "class_name", content = "config")]
pub enum Schedule {
    Constant {
        learning_rate: f32,
    },
    ExponentialDecay {
        initial_learning_rate: f32,
        decay_steps: f32,
        decay_rate: f32,
        staircase: bool,
    },
    PiecewiseConstantDecay {
        boundaries: Vec<u64>,
        values: Vec<f32>,
    },
    PolynomialDecay {
        initial_learning_rate: f32,
        decay_steps: f32,
        end_learning_rate: f32,
        power: f32,
        cycle: bool,
    },
    InverseTimeDecay {
        initial_learning_rate: f32,
        decay_steps: f32,
        decay_rate: f32,
        staircase: bool,
    },
    /// With a warm-up from the initial rate to `warmup_target` over `warmup_steps`, if there is a target.
    CosineDecay {
        initial_learning_rate: f32,
        decay_steps: f32,
        alpha: f32,
        warmup_target: Option<f32>,
        warmup_steps: f32,
    },
    CosineDecayRestarts {
        initial_learning_rate: f32,
        first_decay_steps: f32,
        t_mul: f32,
        m_mul: f32,
        alpha: f32,
    },
    /// Up to `max_learning_rate` over `pct_start` of the steps and down to almost nothing, both by a cosine (PyTorch's).
    OneCycle {
        max_learning_rate: f32,
        total_steps: f32,
        pct_start: f32,
        div_factor: f32,
        final_div_factor: f32,
    },
}

impl From<f32> for Schedule {
    fn from(learning_rate: f32) -> Schedule {
        Schedule::Constant { learning_rate }
    }
}

/// From 1 at 0 to 0 at 1.
fn cosine(share: f64) -> f64 {
    0.5 * (1.0 + (std::f64::consts::PI * share).cos())
}

impl Schedule {
    /// The rate of the step after `step` others.
    pub fn at(&self, step: u64) -> f32 {
        let t = step as f64;
        let rate = match *self {
            Schedule::Constant { learning_rate } => learning_rate as f64,
            Schedule::ExponentialDecay { initial_learning_rate, decay_steps, decay_rate, staircase } => {
                let times = decays(t, decay_steps, staircase);
                initial_learning_rate as f64 * (decay_rate as f64).powf(times)
            }
            Schedule::InverseTimeDecay { initial_learning_rate, decay_steps, decay_rate, staircase } => {
                let times = decays(t, decay_steps, staircase);
                initial_learning_rate as f64 / (1.0 + decay_rate as f64 * times)
            }
            Schedule::PiecewiseConstantDecay { ref boundaries, ref values } => {
                let passed = boundaries.iter().filter(|&&boundary| step > boundary).count();
                values.get(passed).or(values.last()).copied().unwrap_or(0.0) as f64
            }
            Schedule::PolynomialDecay {
                initial_learning_rate,
                decay_steps,
                end_learning_rate,
                power,
                cycle,
            } => {
                let left = left(t, decay_steps, cycle).powf(power as f64);
                (initial_learning_rate as f64 - end_learning_rate as f64) * left + end_learning_rate as f64
            }
            Schedule::CosineDecay {
                initial_learning_rate,
                decay_steps,
                alpha,
                warmup_target,
                warmup_steps,
            } => {
                let (start, warm) = (initial_learning_rate as f64, warmup_steps as f64);
                let decayed = |from: f64, t: f64| {
                    let share = t.min(decay_steps as f64) / decay_steps as f64;
                    from * at_least(alpha, cosine(share))
                };
                match warmup_target {
                    None => decayed(start, t),
                    Some(target) if t < warm => start + (target as f64 - start) * t / warm,
                    Some(target) => decayed(target as f64, t - warm),
                }
            }
            Schedule::CosineDecayRestarts {
                initial_learning_rate,
                first_decay_steps,
                t_mul,
                m_mul,
                alpha,
            } => {
                let (share, height) = since_restart(t, first_decay_steps, t_mul, m_mul);
                initial_learning_rate as f64 * at_least(alpha, height * cosine(share))
            }
            Schedule::OneCycle {
                max_learning_rate,
                total_steps,
                pct_start,
                div_factor,
                final_div_factor,
            } => {
                let peak = max_learning_rate as f64;
                let start = peak / div_factor as f64;
                let end = start / final_div_factor as f64;
                one_cycle(t, total_steps, pct_start, [start, peak, end])
            }
        };
        rate as f32
    }
}

/// How many times a rate has decayed at `t`; whole times only where the decay is a staircase.
fn decays(t: f64, decay_steps: f32, staircase: bool) -> f64 {
    let times = t / decay_steps as f64;
    if staircase { times.floor() } else { times }
}

/// The share of the decay that is still to come; in cycles, the decay is as many times as long as have begun.
fn left(t: f64, decay_steps: f32, cycle: bool) -> f64 {
    let once = decay_steps as f64;
    let total = if cycle { once * (t / once).ceil().max(1.0) } else { once };
    1.0 - t.min(total) / total
}

/// `height` above the share `alpha` that is never lost.
fn at_least(alpha: f32, height: f64) -> f64 {
    (1.0 - alpha as f64) * height + alpha as f64
}

/// The share of the current cycle that has passed at `t`, and how high it began: each is `t_mul` times as long and
/// `m_mul` times as high as the one before.
fn since_restart(t: f64, first_decay_steps: f32, t_mul: f32, m_mul: f32) -> (f64, f64) {
    let (mut left, mut length, mut height) = (t, first_decay_steps as f64, 1.0);
    while left >= length {
        left -= length;
        length *= t_mul as f64;
        height *= m_mul as f64;
    }
    (left / length, height)
}

/// From `start` up to `peak` over `pct_start` of the steps, and down to `end` over the others.
fn one_cycle(t: f64, total_steps: f32, pct_start: f32, [start, peak, end]: [f64; 3]) -> f64 {
    let rise = (pct_start as f64 * total_steps as f64 - 1.0).max(1.0);
    if t <= rise {
        return peak + (start - peak) * cosine(t / rise);
    }
    let fall = (total_steps as f64 - 1.0 - rise).max(1.0);
    end + (peak - end) * cosine(((t - rise) / fall).min(1.0))
}
