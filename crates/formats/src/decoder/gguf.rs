//! Reads a GGUF file's metadata into a decoder.
//!
//! Sources: the keys of the GGUF specification; for what files leave out, llama.cpp's loaders of each family.

use std::fmt::Display;

use kernels::elements::ElementType;

use super::{Naming, Presence, Tensors, check_sizes, checked_layers, checked_vocabulary};
use crate::error::FormatError;
use crate::gguf::{Gguf, Value};
use crate::model::{
    Activation, Decoder, Experts, FeedForward, Layer, RotaryLayout, RotaryScaling, RotarySettings,
};
use crate::storage::{Bytes, Catalogue, StoredTensor, part};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Llama,
    Qwen2,
    Qwen3,
    Qwen3Moe,
    Gemma2,
    Gemma3,
    Phi3,
}

/// By `general.architecture`.
const FAMILIES: [(&str, Kind); 7] = [
    ("llama", Kind::Llama),
    ("qwen2", Kind::Qwen2),
    ("qwen3", Kind::Qwen3),
    ("qwen3moe", Kind::Qwen3Moe),
    ("gemma2", Kind::Gemma2),
    ("gemma3", Kind::Gemma3),
    ("phi3", Kind::Phi3),
];

/// The published Gemmas whose attention is scaled by `hidden / heads`, which no key says, by their layers.
const GEMMA2_27B_LAYERS: usize = 46;
const GEMMA3_27B_LAYERS: usize = 62;

/// Reads the decoder that `gguf` describes; `catalogue` and `files` hold its tensors.
///
/// # Errors
/// When the architecture or an option that changes what is computed is not supported, or a key is missing or out
/// of range.
pub(crate) fn describe(
    gguf: &Gguf<'_>,
    catalogue: &Catalogue,
    files: &[Bytes],
) -> Result<(Decoder, Tensors), FormatError> {
    let architecture = gguf.text("general.architecture")?.unwrap_or_default();
    let Some((_, kind)) = FAMILIES.iter().find(|(name, _)| *name == architecture) else {
        return Err(FormatError::Unsupported {
            what: "the architecture (general.architecture)".to_owned(),
            found: format!("{:?}", architecture.chars().take(40).collect::<String>()),
            supported: FAMILIES.map(|(name, _)| name).join(", "),
        });
    };
    let embedding = catalogue.get("token_embd.weight").filter(|tensor| tensor.shape.len() == 2);
    let Some(embedding) = embedding else {
        return Err(FormatError::Missing {
            what: "tensor token_embd.weight of two dimensions".to_owned(),
            needed_for: "every supported family has it".to_owned(),
        });
    };
    let reader = Reader { gguf, architecture, kind: *kind, catalogue, files };
    reader.refuse_options()?;
    let decoder = reader.decoder(checked_vocabulary(embedding.shape[0])?)?;
    check_sizes(&decoder)?;
    Ok((decoder, reader.tensors()))
}

struct Reader<'r> {
    gguf: &'r Gguf<'r>,
    architecture: &'r str,
    kind: Kind,
    catalogue: &'r Catalogue,
    files: &'r [Bytes],
}

impl Reader<'_> {
    fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }

    fn float(&self, key: &str) -> Result<Option<f32>, FormatError> {
        self.gguf.float(&self.key(key))
    }

    /// A size; where the file has a list with one entry a layer, all of them must be equal.
    fn size(&self, key: &str) -> Result<Option<usize>, FormatError> {
        let key = self.key(key);
        let Some(Value::Array(array)) = self.gguf.get(&key) else { return self.gguf.size(&key) };
        let mut sizes = array.iter().map(|value| usize::try_from(value.integer()?).ok());
        match sizes.next().flatten() {
            Some(size) if sizes.all(|other| other == Some(size)) => Ok(Some(size)),
            _ => Err(self.unsupported(&key, Value::Array(array).describe(), "one size for all layers")),
        }
    }

    fn required(&self, key: &str) -> Result<usize, FormatError> {
        self.size(key)?.ok_or_else(|| FormatError::Missing {
            what: format!("metadata key {}", self.key(key)),
            needed_for: "the model cannot be described without it".to_owned(),
        })
    }

    fn unsupported(&self, what: &str, found: impl Display, supported: &str) -> FormatError {
        FormatError::Unsupported {
            what: what.to_owned(),
            found: found.to_string(),
            supported: supported.to_owned(),
        }
    }

    fn is_gemma(&self) -> bool {
        matches!(self.kind, Kind::Gemma2 | Kind::Gemma3)
    }

    /// Refuses options that change what is computed and that no supported model uses.
    fn refuse_options(&self) -> Result<(), FormatError> {
        for (key, neutral) in [
            ("attention.clamp_kqv", 0.0),
            ("attention.max_alibi_bias", 0.0),
            ("logit_scale", 1.0),
            ("residual_scale", 1.0),
            ("embedding_scale", 1.0),
            ("expert_weights_scale", 1.0),
            ("attention.temperature_scale", 0.0),
            ("rope.scaling.yarn_log_multiplier", 0.0),
            ("rope.scaling.yarn_ext_factor", 1.0),
            ("rope.scaling.alpha", 0.0),
        ] {
            if let Some(found) = self.float(key)?.filter(|found| *found != neutral && *found != 0.0) {
                return Err(self.unsupported(&self.key(key), found, "leaving it out"));
            }
        }
        for key in [
            "attention.q_lora_rank",
            "attention.kv_lora_rank",
            "attention.key_length_mla",
            "attention.shared_kv_layers",
            "expert_shared_count",
            "expert_group_count",
            "leading_dense_block_count",
            "nextn_predict_layers",
        ] {
            if let Some(found) = self.size(key)?.filter(|found| *found != 0) {
                return Err(self.unsupported(&self.key(key), found, "leaving it out"));
            }
        }
        const SOFTMAX: usize = 1;
        if let Some(found) = self.size("expert_gating_func")?.filter(|found| *found > SOFTMAX) {
            return Err(self.unsupported(&self.key("expert_gating_func"), found, "1 (softmax)"));
        }
        if self.gguf.boolean(&self.key("attention.causal"))? == Some(false) {
            return Err(self.unsupported(&self.key("attention.causal"), "false", "true"));
        }
        let softcap = self.float("attn_logit_softcapping")?.filter(|found| *found != 0.0);
        if let Some(found) = softcap.filter(|_| self.kind != Kind::Gemma2) {
            return Err(self.unsupported(&self.key("attn_logit_softcapping"), found, "leaving it out"));
        }
        Ok(())
    }

    fn decoder(&self, vocabulary: usize) -> Result<Decoder, FormatError> {
        let hidden = self.required("embedding_length")?;
        let heads = self.required("attention.head_count")?;
        let layer_count = checked_layers(self.required("block_count")?)?;
        let head_dim = match self.size("attention.key_length")? {
            Some(head_dim) => head_dim,
            None => hidden.checked_div(heads).unwrap_or(0),
        };
        if let Some(value_length) = self.size("attention.value_length")?.filter(|length| *length != head_dim)
        {
            let supported = format!("the length of keys, {head_dim}");
            return Err(self.unsupported(&self.key("attention.value_length"), value_length, &supported));
        }
        let context = self.required("context_length")?;
        let experts = self.experts()?;
        let layers = self.layers(layer_count, experts.is_some())?;
        let epsilon = "attention.layer_norm_rms_epsilon";
        Ok(Decoder {
            family: match self.kind {
                Kind::Llama if experts.is_some() => "mixtral".to_owned(),
                Kind::Qwen3Moe => "qwen3_moe".to_owned(),
                _ => self.architecture.to_owned(),
            },
            vocabulary,
            hidden,
            context,
            heads,
            kv_heads: self.size("attention.head_count_kv")?.unwrap_or(heads),
            head_dim,
            feed_forward: match (self.size("feed_forward_length")?, experts) {
                (Some(size), _) => size,
                (None, Some(experts)) => experts.hidden,
                (None, None) => self.required("feed_forward_length")?,
            },
            norm_epsilon: self.float(epsilon)?.ok_or_else(|| FormatError::Missing {
                what: format!("metadata key {}", self.key(epsilon)),
                needed_for: "the norms need it".to_owned(),
            })?,
            // The converter has added Gemma's 1 already.
            norm_offset: 0.0,
            embedding_scale: if self.is_gemma() { (hidden as f32).sqrt() } else { 1.0 },
            attention_scale: self.attention_scale(hidden, heads, head_dim, layer_count)?,
            attention_softcap: match self.kind {
                Kind::Gemma2 => self.softcap("attn_logit_softcapping", Some(50.0))?,
                _ => None,
            },
            logit_softcap: match self.kind {
                Kind::Gemma2 => self.softcap("final_logit_softcapping", Some(30.0))?,
                _ => self.softcap("final_logit_softcapping", None)?,
            },
            activation: if self.is_gemma() { Activation::GeluTanh } else { Activation::Silu },
            // The converter permutes the rows of Llama's queries and keys to this order.
            rotary_layout: match self.kind {
                Kind::Llama => RotaryLayout::Interleaved,
                _ => RotaryLayout::Halves,
            },
            rotaries: self.rotaries(head_dim, context)?,
            layers,
            experts,
        })
    }

    fn attention_scale(
        &self,
        hidden: usize,
        heads: usize,
        head_dim: usize,
        layers: usize,
    ) -> Result<f32, FormatError> {
        if let Some(scale) = self.float("attention.scale")?.filter(|scale| *scale != 0.0) {
            return Ok(scale);
        }
        let scaled_by = match self.kind {
            Kind::Gemma2 if layers == GEMMA2_27B_LAYERS => hidden.checked_div(heads).unwrap_or(0),
            Kind::Gemma3 if layers == GEMMA3_27B_LAYERS => hidden.checked_div(heads).unwrap_or(0),
            _ => head_dim,
        };
        Ok(1.0 / (scaled_by as f32).sqrt())
    }

    /// 0 is none.
    fn softcap(&self, key: &str, default: Option<f32>) -> Result<Option<f32>, FormatError> {
        match self.float(key)?.or(default) {
            Some(cap) if cap < 0.0 => Err(self.unsupported(&self.key(key), cap, "a positive number")),
            cap => Ok(cap.filter(|cap| *cap > 0.0)),
        }
    }

    fn experts(&self) -> Result<Option<Experts>, FormatError> {
        let count = self.size("expert_count")?.unwrap_or(0);
        if count == 0 {
            return Ok(None);
        }
        let hidden = match (self.kind, self.size("expert_feed_forward_length")?) {
            (Kind::Llama | Kind::Qwen3Moe, Some(hidden)) => hidden,
            (Kind::Llama | Kind::Qwen3Moe, None) => self.required("feed_forward_length")?,
            _ => return Err(self.unsupported(&self.key("expert_count"), count, "0 in this architecture")),
        };
        Ok(Some(Experts {
            count,
            used: self.required("expert_used_count")?,
            hidden,
            normalise: self.gguf.boolean(&self.key("expert_weights_norm"))?.unwrap_or(true),
        }))
    }

    fn layers(&self, count: usize, has_experts: bool) -> Result<Vec<Layer>, FormatError> {
        let window = match (self.size("attention.sliding_window")?, self.kind) {
            (None, Kind::Gemma2) => Some(4096),
            (given, _) => given.filter(|window| *window > 0),
        };
        let slides = self.sliding_layers(count)?;
        let layer = |(index, slides): (usize, bool)| {
            let routed =
                has_experts && self.catalogue.get(&format!("blk.{index}.ffn_gate_inp.weight")).is_some();
            Layer {
                window: window.filter(|_| slides),
                rotary: usize::from(self.kind == Kind::Gemma3 && slides && window.is_some()),
                feed_forward: if routed { FeedForward::Experts } else { FeedForward::Dense },
            }
        };
        Ok(slides.into_iter().enumerate().map(layer).collect())
    }

    /// For each layer, whether its window slides: by a list, by every how many layers one is global, or as published.
    fn sliding_layers(&self, count: usize) -> Result<Vec<bool>, FormatError> {
        let key = self.key("attention.sliding_window_pattern");
        if let Some(Value::Array(array)) = self.gguf.get(&key) {
            let slides: Option<Vec<bool>> = array.iter().map(|value| value.boolean()).collect();
            return slides.filter(|slides| slides.len() == count).ok_or_else(|| FormatError::Invalid {
                what: key,
                found: Value::Array(array).describe(),
                expected: format!("a boolean for each of {count} layers"),
            });
        }
        let every = match (self.gguf.size(&key)?, self.kind) {
            (Some(every), _) => every,
            (None, Kind::Gemma2) => 2,
            (None, Kind::Gemma3) => 6,
            (None, _) => 0,
        };
        Ok((1..=count).map(|layer| every == 0 || !layer.is_multiple_of(every)).collect())
    }

    fn rotaries(&self, head_dim: usize, context: usize) -> Result<Vec<RotarySettings>, FormatError> {
        let dim = self.size("rope.dimension_count")?.unwrap_or(head_dim);
        let theta = self.float("rope.freq_base")?.unwrap_or(10_000.0);
        let global = RotarySettings { dim, theta, scaling: self.rotary_scaling(context)? };
        if self.kind != Kind::Gemma3 {
            return Ok(vec![global]);
        }
        let theta = self.float("rope.freq_base_swa")?.unwrap_or(10_000.0);
        Ok(vec![global, RotarySettings { dim, theta, scaling: RotaryScaling::None }])
    }

    fn rotary_scaling(&self, context: usize) -> Result<RotaryScaling, FormatError> {
        let kind_key = self.key("rope.scaling.type");
        let factor = match self.float("rope.scaling.factor")? {
            Some(factor) => Some(factor),
            None => self.float("rope.scale_linear")?,
        };
        let factor = factor.filter(|factor| *factor != 0.0 && *factor != 1.0);
        let original_context = self.size("rope.scaling.original_context_length")?.unwrap_or(context);
        let divisors = self.divisors("rope_freqs.weight")?;
        let longrope =
            match (self.divisors("rope_factors_short.weight")?, self.divisors("rope_factors_long.weight")?) {
                (Some(short), Some(long)) => Some(RotaryScaling::LongRope {
                    short,
                    long,
                    original_context,
                    attention_factor: self.float("rope.scaling.attn_factor")?,
                }),
                (None, None) => None,
                _ => {
                    return Err(FormatError::Missing {
                        what: "one of the tensors rope_factors_short.weight, rope_factors_long.weight"
                            .to_owned(),
                        needed_for: "they go together".to_owned(),
                    });
                }
            };
        let attention_factor = self.float("rope.scaling.attn_factor")?.filter(|factor| *factor != 1.0);
        if let Some(found) = attention_factor.filter(|_| longrope.is_none()) {
            return Err(self.unsupported(
                &self.key("rope.scaling.attn_factor"),
                found,
                "1 without longrope's tensors",
            ));
        }
        let scaled = match self.gguf.text(&kind_key)? {
            Some("none") => None,
            // Files without a type mean this one.
            None | Some("linear") => factor.map(|factor| RotaryScaling::Linear { factor }),
            Some("yarn") => Some(RotaryScaling::Yarn {
                factor: factor.unwrap_or(1.0),
                original_context,
                beta_fast: self.float("rope.scaling.yarn_beta_fast")?.unwrap_or(32.0),
                beta_slow: self.float("rope.scaling.yarn_beta_slow")?.unwrap_or(1.0),
                attention_factor: self.float("rope.scaling.yarn_attn_factor")?,
            }),
            Some("longrope") if longrope.is_some() => None,
            Some(other) => {
                let found: String = other.chars().take(40).collect();
                return Err(self.unsupported(
                    &kind_key,
                    found,
                    "none, linear, yarn, longrope with its tensors",
                ));
            }
        };
        match (divisors, longrope, scaled) {
            (Some(divisors), None, None) => Ok(RotaryScaling::Divisors(divisors)),
            (None, Some(longrope), None) => Ok(longrope),
            (None, None, Some(scaled)) => Ok(scaled),
            (None, None, None) => Ok(RotaryScaling::None),
            _ => Err(self.unsupported("the rope scaling", "of two kinds at once", "one kind")),
        }
    }

    /// A tensor of divisors for the frequencies, if the file has it.
    fn divisors(&self, name: &str) -> Result<Option<Vec<f32>>, FormatError> {
        // Some files repeat it in each layer.
        let Some(stored) = self.catalogue.get(name).or_else(|| self.catalogue.get(&format!("blk.0.{name}")))
        else {
            return Ok(None);
        };
        let StoredTensor { shape, .. } = stored;
        let length = stored.elements();
        if stored.element_type != Ok(ElementType::F32) || length > super::DIMENSION_MAX {
            return Err(self.unsupported(
                &format!("tensor {name}"),
                format!("of shape {shape:?}"),
                "F32, a vector",
            ));
        }
        let tensor = part(self.files, stored, 0, vec![length])?;
        let number = |bytes: &[u8]| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        Ok(Some(tensor.bytes.chunks_exact(4).map(number).collect()))
    }

    fn tensors(&self) -> Tensors {
        let bias = match self.kind {
            Kind::Qwen2 => Presence::Required,
            _ => Presence::Optional,
        };
        Tensors {
            naming: Naming::Gguf,
            attention_bias: bias,
            attention_output_bias: Presence::Optional,
            head_norms: Presence::required_if(matches!(
                self.kind,
                Kind::Qwen3 | Kind::Qwen3Moe | Kind::Gemma3
            )),
            post_norms: Presence::required_if(self.is_gemma()),
            output: Presence::Optional,
            fused_gate: self.kind == Kind::Phi3,
        }
    }
}
