//! Which tensor of a language model becomes which type: one type for all, or the usual mixes, which spend more bits
//! where errors cost most.
//!
//! Source: the mixes that GGUF files are published in, as llama.cpp's `llama-quantize` makes them; so that Q4_K_M is as
//! large here as there.

use std::collections::BTreeMap;

use formats::to_gguf::GgufTensor;
use kernels::elements::ElementType;

/// What a person asks for: `Q4_K_M`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mix {
    pub name: &'static str,
    /// In a few words.
    pub about: &'static str,
    /// GGUF's `general.file_type`.
    pub file_type: u32,
    /// The type of what no rule is for.
    base: ElementType,
}

use ElementType::*;

/// Every mix, the smallest first.
pub const MIXES: [Mix; 20] = [
    mix("Q2_K_S", "2.6 bits a weight: the smallest, with a heavy loss", 21, Q2_K),
    mix("Q2_K", "3 bits: heavy loss", 10, Q2_K),
    mix("Q3_K_S", "3.5 bits", 11, Q3_K),
    mix("Q3_K_M", "3.9 bits: noticeable loss", 12, Q3_K),
    mix("Q3_K_L", "4.2 bits", 13, Q3_K),
    mix("Q4_0", "4.5 bits: what many machines multiply fastest", 2, Q4_0),
    mix("IQ4_NL", "4.5 bits, unevenly spaced", 25, IQ4_NL),
    mix("Q4_K_S", "4.6 bits", 14, Q4_K),
    mix("Q4_K_M", "4.8 bits: what most people want", 15, Q4_K),
    mix("Q4_1", "5 bits", 3, Q4_1),
    mix("Q5_0", "5.5 bits", 8, Q5_0),
    mix("Q5_K_S", "5.5 bits", 16, Q5_K),
    mix("Q5_K_M", "5.7 bits: hardly a loss", 17, Q5_K),
    mix("Q5_1", "6 bits", 9, Q5_1),
    mix("Q6_K", "6.6 bits: next to no loss", 18, Q6_K),
    mix("Q8_0", "8.5 bits: as good as the original", 7, Q8_0),
    mix("F16", "16 bits, of which 10 for the fraction", 1, F16),
    mix("BF16", "16 bits, of which 7 for the fraction, and the range of F32", 32, BF16),
    mix("F32", "32 bits", 0, F32),
    mix("Q4_K", "the same as Q4_K_M", 15, Q4_K),
];

const fn mix(name: &'static str, about: &'static str, file_type: u32, base: ElementType) -> Mix {
    Mix { name, about, file_type, base }
}

/// What says which type each tensor gets.
#[derive(Clone, Copy, Debug)]
pub enum Types<'a> {
    Mix(&'a Mix),
    /// By the source's names; those that aren't named stay as they are.
    Each(&'a BTreeMap<String, ElementType>),
}

impl Types<'_> {
    /// Of each tensor.
    pub(crate) fn of(self, tensors: &[GgufTensor<'_>], model: &Shape) -> Vec<ElementType> {
        let of = |tensor: &GgufTensor<'_>| match self {
            Types::Mix(mix) => mix.type_of(&tensor.name, &tensor.shape, tensor.element_type, model),
            Types::Each(types) => types.get(tensor.source).copied().unwrap_or(tensor.element_type),
        };
        tensors.iter().map(of).collect()
    }

    /// GGUF's `general.file_type`: of a mix its own, else that of the type which most weights have.
    pub(crate) fn file_type(self, tensors: &[GgufTensor<'_>], chosen: &[ElementType]) -> u32 {
        let elements = |base: ElementType| -> usize {
            let of_it = tensors.iter().zip(chosen).filter(|(_, one)| **one == base);
            of_it.map(|(tensor, _)| tensor.shape.iter().product::<usize>()).sum()
        };
        match self {
            Types::Mix(mix) => mix.file_type,
            Types::Each(_) => {
                MIXES.iter().max_by_key(|mix| elements(mix.base)).map_or(0, |mix| mix.file_type)
            }
        }
    }
}

/// What the rules ask of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    pub layers: usize,
    /// Query heads that share a key/value head.
    pub heads_per_kv_head: usize,
    pub experts: usize,
    /// Whether the output is a matrix of its own; else the embedding is used for it.
    pub has_output: bool,
    /// Whether importance is known.
    pub has_importance: bool,
}

impl Mix {
    /// By its name, in either case; Q3_K and Q5_K mean the M mixes, as Q4_K does.
    pub fn find(name: &str) -> Option<&'static Mix> {
        let name = match name.to_ascii_uppercase().as_str() {
            "Q3_K" => "Q3_K_M".to_owned(),
            "Q4_K" => "Q4_K_M".to_owned(),
            "Q5_K" => "Q5_K_M".to_owned(),
            name => name.to_owned(),
        };
        MIXES.iter().find(|mix| mix.name == name)
    }

    /// The type that a tensor gets; `shape` is its own, outermost dimension first.
    pub fn type_of(&self, name: &str, shape: &[usize], from: ElementType, model: &Shape) -> ElementType {
        let [.., _, columns] = *shape else { return from };
        if !is_matrix(name) {
            return from;
        }
        fitting(self.wanted(name, model), columns)
    }

    /// What the rules say, wherever it fits.
    fn wanted(&self, name: &str, model: &Shape) -> ElementType {
        if matches!(self.base, F32 | F16 | BF16 | Q8_0) {
            return self.base;
        }
        let is_output = name == "output.weight" || (!model.has_output && name == "token_embd.weight");
        if is_output {
            return Q6_K;
        }
        let (layer, what) = layer_and_role(name);
        match what {
            "attn_v.weight" => self.attention_value(layer, model),
            "attn_k.weight" if model.experts == 8 => Q8_0,
            "attn_qkv.weight" => match self.name {
                "Q3_K_M" | "Q3_K_L" => Q4_K,
                "Q4_K_M" => Q5_K,
                "Q5_K_M" => Q6_K,
                _ => self.base,
            },
            "attn_output.weight" => self.attention_output(model),
            "ffn_down.weight" | "ffn_down_exps.weight" => self.down(layer, model),
            _ => self.base,
        }
    }

    fn attention_value(&self, layer: usize, model: &Shape) -> ElementType {
        if model.experts == 8 {
            return Q8_0;
        }
        match self.name {
            "Q2_K" if model.heads_per_kv_head >= 4 => Q4_K,
            "Q2_K" => Q3_K,
            "Q2_K_S" if model.heads_per_kv_head >= 4 => Q4_K,
            "Q3_K_M" if layer < 2 => Q5_K,
            "Q3_K_M" => Q4_K,
            "Q3_K_L" => Q5_K,
            "Q4_K_M" | "Q5_K_M" if is_sensitive(layer, model.layers) => Q6_K,
            "Q4_K_S" if layer < 4 => Q5_K,
            _ => self.base,
        }
    }

    fn attention_output(&self, model: &Shape) -> ElementType {
        match self.name {
            "Q2_K" | "Q3_K_S" | "Q3_K_M" | "Q4_K_S" | "Q4_K_M" if model.experts == 8 => Q5_K,
            "Q2_K" => Q3_K,
            "Q3_K_M" => Q4_K,
            "Q3_K_L" => Q5_K,
            _ => self.base,
        }
    }

    fn down(&self, layer: usize, model: &Shape) -> ElementType {
        let is_early = layer < model.layers / 8;
        match self.name {
            "Q2_K" => Q3_K,
            "Q2_K_S" if is_early => Q4_K,
            "Q3_K_M" if layer < model.layers / 16 => Q5_K,
            "Q3_K_M" => Q4_K,
            "Q3_K_L" => Q5_K,
            "Q4_K_M" | "Q5_K_M" if is_sensitive(layer, model.layers) => Q6_K,
            "Q4_K_S" if is_early => Q5_K,
            "Q4_0" if is_early && model.has_importance => Q4_1,
            "Q5_0" if is_early && model.has_importance => Q5_1,
            _ => self.base,
        }
    }
}

/// Whether a tensor is one that products read in blocks: norms, biases, routers and what is no weight stay.
pub(crate) fn is_matrix(name: &str) -> bool {
    const KEPT: [&str; 6] =
        ["_norm.weight", "ffn_gate_inp", "position_embd", "token_types", "rope_", "altup"];
    name.ends_with("weight") && !KEPT.iter().any(|kept| name.contains(kept))
}

/// Layers at both ends, and every third between them.
fn is_sensitive(layer: usize, layers: usize) -> bool {
    let eighth = layers / 8;
    layer < eighth || layer >= 7 * layers / 8 || (layer - eighth) % 3 == 2
}

/// `blk.3.attn_v.weight` as `(3, "attn_v.weight")`.
pub(crate) fn layer_and_role(name: &str) -> (usize, &str) {
    let parts = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.'));
    match parts {
        Some((layer, role)) => (layer.parse().unwrap_or(usize::MAX), role),
        None => (usize::MAX, name),
    }
}

/// The type itself, or one of about as many bits where rows are no whole blocks of it.
pub(crate) fn fitting(wanted: ElementType, columns: usize) -> ElementType {
    if columns.is_multiple_of(wanted.block_elements()) {
        return wanted;
    }
    let smaller = match wanted {
        Q2_K | Q3_K => IQ4_NL,
        Q4_K => Q5_0,
        Q5_K => Q5_1,
        Q6_K => Q8_0,
        other => other,
    };
    if columns.is_multiple_of(smaller.block_elements()) { smaller } else { F16 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODEL: Shape =
        Shape { layers: 30, heads_per_kv_head: 3, experts: 0, has_output: false, has_importance: false };

    fn check(mix: &str, name: &str, shape: &[usize], expected: ElementType) {
        let found = Mix::find(mix).unwrap().type_of(name, shape, F32, &MODEL);
        assert_eq!(found, expected, "{mix} {name}");
    }

    #[test]
    fn mixes_spend_bits_where_errors_cost_most() {
        check("Q4_K_M", "token_embd.weight", &[100, 512], Q6_K);
        check("Q4_K_M", "blk.0.attn_v.weight", &[64, 512], Q6_K);
        check("Q4_K_M", "blk.3.attn_v.weight", &[64, 512], Q4_K);
        check("Q4_K_M", "blk.5.ffn_down.weight", &[64, 512], Q6_K);
        check("Q4_K_M", "blk.5.ffn_up.weight", &[64, 512], Q4_K);
        check("q4_k_s", "blk.0.attn_v.weight", &[64, 512], Q5_K);
        check("Q2_K", "blk.0.attn_output.weight", &[64, 512], Q3_K);
        check("Q5_K", "blk.29.ffn_down.weight", &[64, 512], Q6_K);
        check("BF16", "token_embd.weight", &[100, 512], BF16);
    }

    #[test]
    fn narrow_rows_get_what_fits_them() {
        check("Q4_K_M", "blk.0.attn_q.weight", &[64, 576], Q5_0);
        check("Q6_K", "token_embd.weight", &[64, 576], Q8_0);
        check("Q2_K", "blk.0.attn_q.weight", &[64, 576], IQ4_NL);
        check("Q4_0", "blk.0.attn_q.weight", &[64, 40], F16);
    }

    #[test]
    fn what_is_no_matrix_stays() {
        check("Q4_0", "blk.0.attn_norm.weight", &[576], F32);
        check("Q4_0", "blk.0.attn_q.bias", &[576], F32);
        check("Q4_0", "blk.0.ffn_gate_inp.weight", &[8, 576], F32);
        check("Q4_0", "rope_freqs.weight", &[1, 32], F32);
    }
}
