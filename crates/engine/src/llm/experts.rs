//! Mixture-of-experts feed-forward blocks: each token goes through the few experts that a router picks.
//!
//! Source: Jiang et al., "Mixtral of Experts" (2024); Qwen3-MoE differs in whether the picked weights are
//! scaled to sum to 1, which the description says.

use formats::model::Experts;
use kernels::softmax::softmax;

use super::forward::{GatedScratch, Step, quantize};
use super::weights::GatedWeights;

/// Buffers of a mixture, for at most as many rows as they were made for.
pub(super) struct ExpertBuffers {
    settings: Experts,
    /// Router probabilities, `[m, e]`.
    probabilities: Vec<f32>,
    /// Share of each expert in each row's sum, `[m, e]`; 0 for experts that were not picked.
    shares: Vec<f32>,
    /// The inputs of one expert's rows, and what it makes of them, `[m, h]` each.
    gathered: Vec<f32>,
    made: Vec<f32>,
}

impl ExpertBuffers {
    pub fn new(settings: &Experts, hidden: usize, rows_max: usize) -> ExpertBuffers {
        let zeros = |columns: usize| vec![0.0; rows_max * columns];
        ExpertBuffers {
            settings: *settings,
            probabilities: zeros(settings.count),
            shares: zeros(settings.count),
            gathered: zeros(hidden),
            made: zeros(hidden),
        }
    }

    /// Where the router writes its scores for `rows` rows, before [`mix_experts`].
    pub fn probabilities(&mut self, rows: usize) -> &mut [f32] {
        &mut self.probabilities[..rows * self.settings.count]
    }
}

/// The weighted sum of each row's experts, by the router's scores in `buffers`: `input` and `out` are `[m, h]`.
///
/// Experts are added in rising order, whichever rows share the batch, so that a row's sum has one order.
pub(super) fn mix_experts(
    step: &Step<'_>,
    experts: &[GatedWeights],
    input: &[f32],
    buffers: &mut ExpertBuffers,
    scratch: GatedScratch<'_>,
    out: &mut [f32],
) {
    let h = step.decoder.hidden;
    let count = experts.len();
    let probabilities = &mut buffers.probabilities[..step.m * count];
    for (row, shares) in probabilities.chunks_exact_mut(count).zip(buffers.shares.chunks_exact_mut(count)) {
        softmax(step.compute.isa(), row);
        pick(row, &buffers.settings, shares);
    }

    out.fill(0.0);
    for (index, expert) in experts.iter().enumerate() {
        let shares = &buffers.shares;
        let picked = |row: &usize| shares[row * count + index] != 0.0;
        let rows = (0..step.m).filter(picked);
        let mut used = 0;
        for (row, gathered) in rows.clone().zip(buffers.gathered.chunks_exact_mut(h)) {
            gathered.copy_from_slice(&input[row * h..][..h]);
            used += 1;
        }
        if used == 0 {
            continue;
        }
        let input = quantize(step.compute, &mut buffers.gathered[..used * h], h, &mut *scratch.quantized);
        let stacked = &mut scratch.stacked[..used * expert.gate_up.columns()];
        expert.gate_up.multiply(step.compute, input, used, stacked);
        let made = &mut buffers.made[..used * h];
        step.finish_gated(expert, stacked, scratch.inner, scratch.quantized, made);
        for (row, made) in rows.zip(made.chunks_exact(h)) {
            let share = shares[row * count + index];
            let out = &mut out[row * h..][..h];
            out.iter_mut().zip(made).for_each(|(out, made)| *out += share * made);
        }
    }
}

/// Leaves the shares of the likeliest experts, and 0 for all others; of equals, the first wins.
fn pick(probabilities: &[f32], settings: &Experts, shares: &mut [f32]) {
    shares.fill(0.0);
    for _ in 0..settings.used.min(probabilities.len()) {
        let free = (0..probabilities.len()).filter(|expert| shares[*expert] == 0.0);
        let best =
            free.reduce(|best, other| if probabilities[other] > probabilities[best] { other } else { best });
        let Some(best) = best else { break };
        // A share of exactly 0 would mark the expert as not picked, and adds nothing anyway. What is no number stays so.
        let share = probabilities[best];
        shares[best] = if share == 0.0 { f32::MIN_POSITIVE } else { share };
    }
    if settings.normalise {
        let sum: f32 = shares.iter().sum();
        shares.iter_mut().for_each(|share| *share /= sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(probabilities: &[f32], normalise: bool, expected: &[f32]) {
        let settings = Experts { count: probabilities.len(), used: 2, hidden: 1, normalise };
        let mut shares = vec![7.0; probabilities.len()];
        pick(probabilities, &settings, &mut shares);
        assert_eq!(shares, expected);
    }

    #[test]
    fn the_likeliest_experts_are_picked() {
        check(&[0.1, 0.5, 0.15, 0.25], false, &[0.0, 0.5, 0.0, 0.25]);
        check(&[0.125, 0.375, 0.375, 0.125], true, &[0.0, 0.5, 0.5, 0.0]);
        check(&[0.25, 0.25, 0.25, 0.25], false, &[0.25, 0.25, 0.0, 0.0]);
        check(&[0.0, 1.0, 0.0], false, &[f32::MIN_POSITIVE, 1.0, 0.0]);
    }

    #[test]
    fn a_router_that_is_no_number_is_not_hidden() {
        let settings = Experts { count: 2, used: 2, hidden: 1, normalise: false };
        let mut shares = [0.0; 2];
        pick(&[f32::NAN, f32::NAN], &settings, &mut shares);
        assert!(shares.iter().any(|share| share.is_nan()));
    }
}
