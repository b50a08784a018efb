//! Frequencies of rotary embeddings, by the formulas of the `transformers` library (`modeling_rope_utils.py`).

use std::f64::consts::PI;

use crate::error::FormatError;
use crate::model::{Decoder, Rotary, RotaryScaling, RotarySettings};

impl Decoder {
    /// The rotary embeddings in the order of [`Decoder::rotaries`], for a context of `context` positions: some
    /// scalings depend on how much of it is used.
    pub fn rotaries_at(&self, context: usize) -> Vec<Rotary> {
        self.rotaries.iter().map(|settings| rotary(settings, self.context, context)).collect()
    }
}

/// `trained` is the context that the model was made for, `context` the one in use.
fn rotary(settings: &RotarySettings, trained: usize, context: usize) -> Rotary {
    let (dim, theta) = (settings.dim, f64::from(settings.theta));
    let plain = frequencies(dim, theta);
    let mut attention_factor = 1.0;
    let scaled: Vec<f64> = match &settings.scaling {
        RotaryScaling::None => plain,
        RotaryScaling::Linear { factor } => plain.iter().map(|x| x / f64::from(*factor)).collect(),
        RotaryScaling::Dynamic { factor, original_context } => {
            let (factor, original) = (f64::from(*factor), *original_context as f64);
            let grown = factor * (context as f64).max(original) / original - (factor - 1.0);
            frequencies(dim, theta * libm::pow(grown, dim as f64 / (dim as f64 - 2.0)))
        }
        RotaryScaling::Yarn { factor, attention_factor: given, .. } => {
            attention_factor = given.map_or_else(|| yarn_attention(f64::from(*factor), 1.0), f64::from);
            yarn(settings, &plain)
        }
        RotaryScaling::Llama3 { .. } => llama3(&settings.scaling, &plain),
        RotaryScaling::LongRope { short, long, original_context, attention_factor: given } => {
            let factor = trained as f64 / *original_context as f64;
            attention_factor = given.map_or_else(|| longrope_attention(factor, *original_context), f64::from);
            divide(&plain, if context > *original_context { long } else { short })
        }
        RotaryScaling::Divisors(divisors) => divide(&plain, divisors),
    };
    Rotary {
        frequencies: scaled.into_iter().map(|x| x as f32).collect(),
        attention_factor: attention_factor as f32,
    }
}

fn frequencies(dim: usize, theta: f64) -> Vec<f64> {
    (0..dim / 2).map(|pair| libm::pow(theta, -((2 * pair) as f64) / dim as f64)).collect()
}

fn divide(frequencies: &[f64], divisors: &[f32]) -> Vec<f64> {
    frequencies.iter().zip(divisors).map(|(x, divisor)| x / f64::from(*divisor)).collect()
}

/// The factor of YaRN's paper (Peng et al. 2023, section 3.4), in the form with DeepSeek's `mscale`.
pub(super) fn yarn_attention(factor: f64, mscale: f64) -> f64 {
    if factor <= 1.0 { 1.0 } else { 0.1 * mscale * libm::log(factor) + 1.0 }
}

/// The factor of LongRoPE (Ding et al. 2024).
pub(super) fn longrope_attention(factor: f64, original_context: usize) -> f64 {
    if factor <= 1.0 { 1.0 } else { (1.0 + libm::log(factor) / libm::log(original_context as f64)).sqrt() }
}

/// Fast pairs are kept, slow ones slowed down by the factor, those between are blended (Peng et al. 2023).
fn yarn(settings: &RotarySettings, plain: &[f64]) -> Vec<f64> {
    let RotaryScaling::Yarn { factor, original_context, beta_fast, beta_slow, .. } = settings.scaling else {
        return plain.to_vec();
    };
    let dim = settings.dim as f64;
    // The pair that turns `rotations` times within the original context.
    let pair_of = |rotations: f32| {
        let positions = original_context as f64 / (f64::from(rotations) * 2.0 * PI);
        dim * libm::log(positions) / (2.0 * libm::log(f64::from(settings.theta)))
    };
    let low = pair_of(beta_fast).floor().max(0.0);
    let high = pair_of(beta_slow).ceil().min(dim - 1.0);
    let width = if low == high { 0.001 } else { high - low };
    let blend = |(pair, x): (usize, &f64)| {
        let slowed = ((pair as f64 - low) / width).clamp(0.0, 1.0);
        x / f64::from(factor) * slowed + x * (1.0 - slowed)
    };
    plain.iter().enumerate().map(blend).collect()
}

/// Short wavelengths are kept, long ones stretched by the factor, those between are blended (Llama 3.1).
fn llama3(scaling: &RotaryScaling, plain: &[f64]) -> Vec<f64> {
    let RotaryScaling::Llama3 { factor, low_frequency_factor, high_frequency_factor, original_context } =
        *scaling
    else {
        return plain.to_vec();
    };
    let (factor, original) = (f64::from(factor), original_context as f64);
    let (low, high) = (f64::from(low_frequency_factor), f64::from(high_frequency_factor));
    let scale = |x: &f64| {
        let wavelength = 2.0 * PI / x;
        if wavelength < original / high {
            *x
        } else if wavelength > original / low {
            x / factor
        } else {
            let smooth = (original / wavelength - low) / (high - low);
            (1.0 - smooth) * x / factor + smooth * x
        }
    };
    plain.iter().map(scale).collect()
}

/// Checks that the formulas above stay within numbers.
///
/// # Errors
/// When a size, a factor or a list of divisors is out of range.
pub(super) fn check(decoder: &Decoder) -> Result<(), FormatError> {
    let invalid = |what: &str, found: String, expected: String| FormatError::Invalid {
        what: format!("the rotary embedding's {what}"),
        found,
        expected,
    };
    for settings in &decoder.rotaries {
        let dim = settings.dim;
        if dim == 0 || dim > decoder.head_dim || !dim.is_multiple_of(2) {
            let expected = format!("an even number of at most {}, the head's size", decoder.head_dim);
            return Err(invalid("size", dim.to_string(), expected));
        }
        let (numbers, lists, original_context): (Vec<f32>, Vec<&Vec<f32>>, usize) = match &settings.scaling {
            RotaryScaling::None => (vec![], vec![], 1),
            RotaryScaling::Linear { factor } => (vec![*factor], vec![], 1),
            RotaryScaling::Dynamic { factor, original_context } => (vec![*factor], vec![], *original_context),
            RotaryScaling::Yarn { factor, original_context, beta_fast, beta_slow, attention_factor } => {
                let numbers = vec![*factor, *beta_fast, *beta_slow, attention_factor.unwrap_or(1.0)];
                (numbers, vec![], *original_context)
            }
            RotaryScaling::Llama3 {
                factor,
                low_frequency_factor: low,
                high_frequency_factor: high,
                original_context,
            } => (vec![*factor, *low, *high, high - low], vec![], *original_context),
            RotaryScaling::LongRope { short, long, original_context, attention_factor } => {
                // A logarithm of the original context is divided by.
                let original = if *original_context > 1 { *original_context } else { 0 };
                (vec![attention_factor.unwrap_or(1.0)], vec![short, long], original)
            }
            RotaryScaling::Divisors(divisors) => (vec![], vec![divisors], 1),
        };
        if !settings.theta.is_finite() || settings.theta <= 1.0 {
            return Err(invalid("theta", settings.theta.to_string(), "a number above 1".to_owned()));
        }
        if dim == 2 && matches!(settings.scaling, RotaryScaling::Dynamic { .. }) {
            return Err(invalid("size", "2".to_owned(), "more than 2, with dynamic scaling".to_owned()));
        }
        if original_context == 0 {
            return Err(invalid(
                "original context",
                "too small".to_owned(),
                "at least 1 (longrope: 2)".to_owned(),
            ));
        }
        let positive = |x: &f32| x.is_finite() && *x > 0.0;
        if let Some(number) = numbers.iter().chain(lists.iter().copied().flatten()).find(|x| !positive(x)) {
            return Err(invalid(
                "scaling",
                number.to_string(),
                "positive numbers, high above low".to_owned(),
            ));
        }
        if let Some(list) = lists.iter().find(|list| list.len() != dim / 2) {
            let expected = format!("{} of them, one for each pair", dim / 2);
            return Err(invalid("divisors", list.len().to_string(), expected));
        }
    }
    Ok(())
}
