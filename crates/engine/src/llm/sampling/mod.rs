//! The next token out of the logits.
//!
//! The order of steps: logit bias; repetition, presence and frequency penalties; temperature; top-k; typical;
//! top-p; min-p; draw. Filters see the distribution that temperature has shaped, as in Hugging Face's
//! `generate` and in vLLM, whose users bring their settings along (llama.cpp filters first). Each filter works
//! on what the one before left, and none removes the last token. Ties go to the lowest id.
//!
//! Sources: repetition penalty, Keskar et al. 2019 (CTRL); presence and frequency penalties, the OpenAI API
//! reference; top-k, Fan et al. 2018; typical, Meister et al. 2022; top-p, Holtzman et al. 2020; min-p, Nguyen
//! et al. 2024.

mod random;
mod select;
#[cfg(test)]
mod tests;

use kernels::compute::Isa;
use kernels::sampling::{all_finite, argmax, draw, weigh};

use super::request::Sampling;
use random::Random;
use select::Candidate;

/// Chooses the tokens of one answer.
#[derive(Clone, Debug)]
pub struct Sampler {
    isa: Isa,
    settings: Sampling,
    random: Random,
    /// Tokens of prompt and answer, each once; filled only if the repetition penalty is on.
    seen: Vec<u32>,
    /// One bit a token of the vocabulary: whether it is in `seen`.
    seen_bits: Vec<u64>,
    /// Times that the answer has each token, `[v]`; filled only if the presence or frequency penalty is on.
    counts: Vec<u32>,
    /// Tokens with a count, each once.
    counted: Vec<u32>,
    candidates: Vec<Candidate>,
}

impl Sampler {
    /// `vocabulary` is the number of logits; ids of the prompt and of biases beyond it are without effect.
    pub fn new(isa: Isa, settings: &Sampling, vocabulary: usize, prompt: &[u32]) -> Sampler {
        let repetition = settings.repetition_penalty != 1.0;
        let counting = settings.presence_penalty != 0.0 || settings.frequency_penalty != 0.0;
        let mut sampler = Sampler {
            isa,
            settings: settings.clone(),
            random: Random::new(settings.seed.unwrap_or_else(random::fresh_seed)),
            seen: Vec::new(),
            seen_bits: if repetition { vec![0; vocabulary.div_ceil(64)] } else { Vec::new() },
            counts: if counting { vec![0; vocabulary] } else { Vec::new() },
            counted: Vec::new(),
            candidates: Vec::new(),
        };
        prompt.iter().for_each(|&id| sampler.mark_seen(id));
        sampler
    }

    /// Whether a row of logits may be used: infinities and what is no number say that something is broken.
    pub fn accepts(&self, logits: &[f32]) -> bool {
        all_finite(self.isa, logits)
    }

    /// Chooses the next token out of finite logits and remembers it. The logits are overwritten. Where biases leave no
    /// token possible, the answer is token 0.
    pub fn sample(&mut self, logits: &mut [f32]) -> u32 {
        let id = self.choose(logits);
        self.mark_seen(id);
        self.count(id);
        id
    }

    fn choose(&mut self, logits: &mut [f32]) -> u32 {
        self.bias_and_penalties(logits);
        let Some(best) = argmax(self.isa, logits) else { return 0 };
        if self.settings.temperature <= 0.0 || self.settings.temperature.is_nan() {
            return best as u32;
        }
        // From here on weights: 1 for the likeliest, in proportion to probability. The quotient of a huge difference
        // and a tiny temperature is -inf, and its weight 0: as it should be.
        weigh(self.isa, logits, logits[best], self.settings.temperature);
        if !self.filters() {
            return draw(self.isa, logits, self.random.unit()).unwrap_or(best) as u32;
        }
        let total = logits.iter().map(|weight| f64::from(*weight)).sum();
        self.filter(logits, total);
        let weights: Vec<f32> = self.candidates.iter().map(|candidate| candidate.weight).collect();
        let chosen = draw(self.isa, &weights, self.random.unit());
        chosen.map_or(best as u32, |index| self.candidates[index].id)
    }

    fn bias_and_penalties(&self, logits: &mut [f32]) {
        for &(id, bias) in &self.settings.logit_bias {
            if let Some(logit) = logits.get_mut(id as usize) {
                let sum = *logit + bias;
                *logit = if sum.is_nan() { f32::NEG_INFINITY } else { sum.min(f32::MAX) };
            }
        }
        let penalty = self.settings.repetition_penalty;
        for &id in &self.seen {
            let Some(logit) = logits.get_mut(id as usize) else { continue };
            let changed = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
            *logit = if changed.is_nan() { f32::NEG_INFINITY } else { changed.min(f32::MAX) };
        }
        for &id in &self.counted {
            let times = self.counts[id as usize] as f32;
            if let Some(logit) = logits.get_mut(id as usize) {
                *logit -= self.settings.presence_penalty + self.settings.frequency_penalty * times;
            }
        }
    }

    fn filters(&self) -> bool {
        let settings = &self.settings;
        settings.top_k > 0 || settings.top_p < 1.0 || settings.min_p > 0.0 || settings.typical_p < 1.0
    }

    /// Leaves in `candidates` what the filters keep of the weights, which add up to `total`.
    fn filter(&mut self, weights: &[f32], mut total: f64) {
        let Sampling { top_k, top_p, min_p, typical_p, .. } = self.settings;
        let candidates = &mut self.candidates;
        if top_k > 0 && top_k < weights.len() {
            select::top_k(weights, top_k, candidates);
            total = sum(candidates);
        } else if typical_p < 1.0 {
            gather(weights, f32::MIN_POSITIVE, candidates);
        } else if top_p < 1.0 {
            // The nucleus is almost always among the few tokens that are not far below the best.
            for floor in [1e-3, 1e-6, f32::MIN_POSITIVE] {
                gather(weights, floor, candidates);
                if sum(candidates) >= f64::from(top_p) * total {
                    break;
                }
            }
        } else {
            gather(weights, min_p.clamp(f32::MIN_POSITIVE, 1.0), candidates);
        }
        if typical_p < 1.0 {
            keep_typical(candidates, total, f64::from(typical_p));
            total = sum(candidates);
        }
        if top_p < 1.0 {
            select::keep_share(candidates, total, f64::from(top_p), select::heavier);
        }
        if min_p > 0.0 {
            let heaviest = candidates.iter().map(|candidate| candidate.weight).fold(0.0, f32::max);
            candidates.retain(|candidate| candidate.weight >= heaviest * min_p.min(1.0));
        }
        // One order, so that a seed means the same token whichever way the candidates were found.
        candidates.sort_unstable_by(select::heavier);
    }

    fn mark_seen(&mut self, id: u32) {
        if let Some(word) = self.seen_bits.get_mut(id as usize / 64) {
            let bit = 1 << (id % 64);
            if *word & bit == 0 {
                *word |= bit;
                self.seen.push(id);
            }
        }
    }

    fn count(&mut self, id: u32) {
        if let Some(count) = self.counts.get_mut(id as usize) {
            if *count == 0 {
                self.counted.push(id);
            }
            *count = count.saturating_add(1);
        }
    }
}

/// The log-probability of `chosen` and the `k` likeliest tokens with theirs, likeliest first, under the model's
/// own distribution. The logits are finite. Call it before [`Sampler::sample`], which overwrites them.
pub fn logprobs(logits: &[f32], chosen: u32, k: usize) -> (f32, Vec<(u32, f32)>) {
    let max = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let sum: f64 = logits.iter().map(|&logit| libm::exp(f64::from(logit) - max)).sum();
    let logprob = |logit: f32| (f64::from(logit) - max - libm::log(sum)) as f32;
    let mut top = Vec::new();
    if k > 0 {
        select::top_k(logits, k, &mut top);
    }
    let chosen = logits.get(chosen as usize).map_or(f32::NEG_INFINITY, |&logit| logprob(logit));
    (chosen, top.into_iter().map(|candidate| (candidate.id, logprob(candidate.weight))).collect())
}

fn gather(weights: &[f32], floor: f32, out: &mut Vec<Candidate>) {
    out.clear();
    let all = weights.iter().enumerate().map(|(id, &weight)| Candidate { id: id as u32, weight });
    out.extend(all.filter(|candidate| candidate.weight >= floor));
}

fn sum(candidates: &[Candidate]) -> f64 {
    candidates.iter().map(|candidate| f64::from(candidate.weight)).sum()
}

/// Keeps the tokens whose surprise is nearest to the expected one, until they reach `share` of the whole.
fn keep_typical(candidates: &mut Vec<Candidate>, total: f64, share: f64) {
    candidates.retain(|candidate| candidate.weight > 0.0);
    let surprise = |candidate: &Candidate| -libm::log(f64::from(candidate.weight) / total);
    let expected: f64 =
        candidates.iter().map(|candidate| f64::from(candidate.weight) / total * surprise(candidate)).sum();
    select::keep_share(candidates, total, share, |a, b| {
        let distance = |candidate| (surprise(candidate) - expected).abs();
        distance(a).total_cmp(&distance(b)).then_with(|| select::heavier(a, b))
    });
}
