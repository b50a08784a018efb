//! Reads a Hugging Face `config.json` into a decoder. What it leaves out has the value that the family's
//! configuration class has in the `transformers` library (`models/*/configuration_*.py`).

use serde_json::Value;

use super::rotary_config::Reading;
pub(super) use super::section::Section;
use super::{Naming, Presence, Tensors, check_sizes, checked_layers, checked_vocabulary};
use crate::error::FormatError;
use crate::model::{Activation, Decoder, Experts, FeedForward, Layer, RotaryLayout};
use crate::storage::Catalogue;

/// A decoder from a configuration, and which tensors it needs.
#[derive(Clone, Debug)]
pub(crate) struct Configured {
    pub decoder: Decoder,
    pub tensors: Tensors,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Llama,
    Mistral,
    Mixtral,
    Qwen2,
    Qwen3,
    Qwen3Moe,
    Gemma2,
    Gemma3,
    Phi3,
}

/// What a family's configurations leave out.
struct Family {
    name: &'static str,
    kind: Kind,
    heads: Option<usize>,
    kv_heads: Option<usize>,
    head_dim: Option<usize>,
    context: usize,
    epsilon: f64,
    theta: f64,
}

const fn family(name: &'static str, kind: Kind, context: usize) -> Family {
    Family {
        name,
        kind,
        heads: None,
        kv_heads: None,
        head_dim: None,
        context,
        epsilon: 1e-6,
        theta: 10_000.0,
    }
}

const FAMILIES: [Family; 9] = [
    family("llama", Kind::Llama, 2048),
    Family { kv_heads: Some(8), ..family("mistral", Kind::Mistral, 131_072) },
    Family { kv_heads: Some(8), epsilon: 1e-5, theta: 1e6, ..family("mixtral", Kind::Mixtral, 131_072) },
    family("qwen2", Kind::Qwen2, 32_768),
    Family { head_dim: Some(128), ..family("qwen3", Kind::Qwen3, 32_768) },
    Family { kv_heads: Some(4), ..family("qwen3_moe", Kind::Qwen3Moe, 32_768) },
    Family { heads: Some(8), kv_heads: Some(4), head_dim: Some(256), ..family("gemma2", Kind::Gemma2, 8192) },
    Family {
        heads: Some(8),
        kv_heads: Some(4),
        head_dim: Some(256),
        theta: 1e6,
        ..family("gemma3", Kind::Gemma3, 131_072)
    },
    Family { epsilon: 1e-5, ..family("phi3", Kind::Phi3, 4096) },
];

/// The name in messages.
const CONFIG: &str = "config.json";

/// Reads the parsed `config.json` into a decoder; `vocabulary` is what it says, as no tensor is at hand.
///
/// # Errors
/// When the architecture or an option that changes what is computed is not supported, or a value is missing or out
/// of range.
pub fn read_config(config: &Value) -> Result<Decoder, FormatError> {
    Ok(read(config, "model.", "lm_head.weight")?.decoder)
}

/// Reads the parsed `config.json` of a model with these tensors.
///
/// # Errors
/// As for [`read_config`], and when the embedding is missing.
pub(crate) fn describe(config: &Value, catalogue: &Catalogue) -> Result<Configured, FormatError> {
    // As saved by different versions of the library, for plain models and for those that also see.
    const PREFIXES: [(&str, &str); 4] = [
        ("model.", "lm_head.weight"),
        ("model.language_model.", "lm_head.weight"),
        ("language_model.model.", "language_model.lm_head.weight"),
        ("", "lm_head.weight"),
    ];
    let embedding = PREFIXES.iter().find_map(|(prefix, output)| {
        let embedding = catalogue.get(&format!("{prefix}embed_tokens.weight"))?;
        Some((prefix, output, *embedding.shape.first()?))
    });
    let Some((prefix, output, vocabulary)) = embedding else {
        return Err(FormatError::Missing {
            what: "tensor model.embed_tokens.weight".to_owned(),
            needed_for: "every supported family has it".to_owned(),
        });
    };
    let mut configured = read(config, prefix, output)?;
    configured.decoder.vocabulary = checked_vocabulary(vocabulary)?;
    Ok(configured)
}

fn read(config: &Value, prefix: &'static str, output: &'static str) -> Result<Configured, FormatError> {
    let whole = config.as_object().ok_or_else(|| FormatError::Malformed {
        format: CONFIG,
        problem: "it is no JSON object".to_owned(),
    })?;
    let outer = Section::new(whole, CONFIG);
    outer.refuse("quantization_config")?;
    let model_type = outer.text("model_type")?.unwrap_or_default();
    let (name, config) = match (model_type, outer.object("text_config")?) {
        ("gemma3", Some(text)) => ("gemma3", Section::new(text, "text_config of config.json")),
        ("gemma3_text", _) => ("gemma3", outer),
        (name, _) => (name, outer),
    };
    let Some(family) = FAMILIES.iter().find(|family| family.name == name) else {
        let supported = FAMILIES.map(|family| family.name).join(", ");
        return Err(outer.unsupported("model_type", format!("the text {name:?}"), &supported));
    };
    refuse_options(&config, family.kind)?;
    let decoder = read_decoder(&config, family)?;
    check_sizes(&decoder)?;

    let gemma = matches!(family.kind, Kind::Gemma2 | Kind::Gemma3);
    let bias = config.boolean("attention_bias")?.unwrap_or(false);
    let (attention_bias, output_bias) = match family.kind {
        Kind::Qwen2 => (true, false),
        Kind::Mistral | Kind::Mixtral | Kind::Phi3 => (false, false),
        _ => (bias, bias),
    };
    // Text models inside others keep it outside.
    let tied = match config.boolean("tie_word_embeddings")? {
        Some(tied) => tied,
        None => outer.boolean("tie_word_embeddings")?.unwrap_or(gemma),
    };
    let tensors = Tensors {
        naming: Naming::HuggingFace { prefix, output, sandwich_norms: gemma },
        attention_bias: Presence::required_if(attention_bias),
        attention_output_bias: Presence::required_if(output_bias),
        head_norms: Presence::required_if(matches!(family.kind, Kind::Qwen3 | Kind::Qwen3Moe | Kind::Gemma3)),
        post_norms: Presence::required_if(gemma),
        output: Presence::required_if(!tied),
        fused_gate: family.kind == Kind::Phi3,
    };
    Ok(Configured { decoder, tensors })
}

/// Refuses options that change what is computed and that no supported model uses.
fn refuse_options(config: &Section<'_>, kind: Kind) -> Result<(), FormatError> {
    for key in [
        "mlp_bias",
        "kv_lora_rank",
        "q_lora_rank",
        "clip_qkv",
        "qk_layernorm",
        "use_bidirectional_attention",
        "is_encoder_decoder",
        "no_rope_layers",
        "attention_sinks",
        "use_attention_sinks",
        "num_shared_experts",
        "n_shared_experts",
        "shared_expert_intermediate_size",
        "embedding_multiplier",
        "residual_multiplier",
        "attention_multiplier",
        "logits_scaling",
        "logit_scale",
    ] {
        config.refuse(key)?;
    }
    if !matches!(kind, Kind::Qwen3 | Kind::Qwen3Moe | Kind::Gemma3) {
        config.refuse("use_qk_norm")?;
    }
    if !matches!(kind, Kind::Gemma2) {
        config.refuse("attn_logit_softcapping")?;
    }
    if !matches!(kind, Kind::Gemma2 | Kind::Gemma3) {
        config.refuse("final_logit_softcapping")?;
    }
    if config.boolean("is_causal")? == Some(false) {
        return Err(config.unsupported("is_causal", "false".to_owned(), "true"));
    }
    Ok(())
}

fn read_decoder(config: &Section<'_>, family: &Family) -> Result<Decoder, FormatError> {
    let kind = family.kind;
    let gemma = matches!(kind, Kind::Gemma2 | Kind::Gemma3);
    let hidden = config.required_size("hidden_size")?;
    let heads = match config.size("num_attention_heads")?.or(family.heads) {
        Some(heads) => heads,
        None => config.required_size("num_attention_heads")?,
    };
    let kv_heads = match (config.size("num_key_value_heads")?, config.mentions("num_key_value_heads")) {
        (Some(kv_heads), _) => kv_heads,
        (None, true) => heads,
        (None, false) => family.kv_heads.unwrap_or(heads),
    };
    let head_dim = match config.size("head_dim")?.or(family.head_dim) {
        Some(head_dim) => head_dim,
        None => hidden.checked_div(heads).unwrap_or(0),
    };
    let context = config.size("max_position_embeddings")?.unwrap_or(family.context);
    let layer_count = checked_layers(config.required_size("num_hidden_layers")?)?;

    let reading =
        Reading { config: *config, head_dim, context, theta: family.theta, phi3: kind == Kind::Phi3 };
    let rotaries = match kind {
        Kind::Gemma3 => reading.global_and_local(10_000.0)?,
        _ => vec![reading.single()?],
    };
    let experts = read_experts(config, kind)?;
    let layers = read_layers(config, kind, layer_count, experts.is_some())?;
    let scaled_by =
        if gemma { config.float("query_pre_attn_scalar")?.unwrap_or(256.0) } else { head_dim as f64 };
    let softcap = |key: &str, default: Option<f64>| -> Result<Option<f32>, FormatError> {
        let given = config.float(key)?;
        let cap = if config.mentions(key) { given } else { default };
        match cap.map(|cap| cap as f32) {
            Some(cap) if !(cap.is_finite() && cap > 0.0) => {
                Err(config.invalid(key, cap.to_string(), "a positive number"))
            }
            cap => Ok(cap),
        }
    };
    let gemma2 = |default: f64| if kind == Kind::Gemma2 { Some(default) } else { None };
    Ok(Decoder {
        family: family.name.to_owned(),
        vocabulary: config.size("vocab_size")?.unwrap_or_default(),
        hidden,
        context,
        heads,
        kv_heads,
        head_dim,
        feed_forward: config.required_size("intermediate_size")?,
        norm_epsilon: config.float("rms_norm_eps")?.unwrap_or(family.epsilon) as f32,
        norm_offset: if gemma { 1.0 } else { 0.0 },
        embedding_scale: if gemma { (hidden as f32).sqrt() } else { 1.0 },
        attention_scale: (1.0 / scaled_by.sqrt()) as f32,
        attention_softcap: if gemma { softcap("attn_logit_softcapping", gemma2(50.0))? } else { None },
        logit_softcap: if gemma { softcap("final_logit_softcapping", gemma2(30.0))? } else { None },
        activation: read_activation(config, gemma)?,
        rotary_layout: RotaryLayout::Halves,
        rotaries,
        layers,
        experts,
    })
}

fn read_activation(config: &Section<'_>, gemma: bool) -> Result<Activation, FormatError> {
    let (key, default) =
        if gemma { ("hidden_activation", "gelu_pytorch_tanh") } else { ("hidden_act", "silu") };
    match config.text(key)?.unwrap_or(default) {
        "silu" | "swish" => Ok(Activation::Silu),
        "gelu_pytorch_tanh" => Ok(Activation::GeluTanh),
        other => Err(config.unsupported(key, format!("the text {other:?}"), "silu, gelu_pytorch_tanh")),
    }
}

fn read_experts(config: &Section<'_>, kind: Kind) -> Result<Option<Experts>, FormatError> {
    let or = |key: &str, default: usize| Ok::<_, FormatError>(config.size(key)?.unwrap_or(default));
    match kind {
        Kind::Mixtral => Ok(Some(Experts {
            count: or("num_local_experts", 8)?,
            used: or("num_experts_per_tok", 2)?,
            hidden: config.required_size("intermediate_size")?,
            normalise: true,
        })),
        Kind::Qwen3Moe => Ok(Some(Experts {
            count: match config.size("num_experts")? {
                Some(count) => count,
                None => or("num_local_experts", 128)?,
            },
            used: or("num_experts_per_tok", 8)?,
            hidden: or("moe_intermediate_size", 768)?,
            normalise: config.boolean("norm_topk_prob")?.unwrap_or(false),
        })),
        _ => Ok(None),
    }
}

fn read_layers(
    config: &Section<'_>,
    kind: Kind,
    count: usize,
    has_experts: bool,
) -> Result<Vec<Layer>, FormatError> {
    let sliding = sliding_layers(config, kind, count)?;
    let default = match kind {
        Kind::Mistral | Kind::Gemma2 | Kind::Gemma3 | Kind::Qwen2 | Kind::Qwen3 | Kind::Qwen3Moe => {
            Some(4096)
        }
        _ => None,
    };
    let window = match config.size("sliding_window")? {
        None if !config.mentions("sliding_window") => default,
        given => given,
    };
    let dense: Vec<usize> = match config.list("mlp_only_layers")? {
        Some(list) => list.iter().filter_map(|index| usize::try_from(index.as_u64()?).ok()).collect(),
        None => Vec::new(),
    };
    let step = config.size("decoder_sparse_step")?.unwrap_or(1);
    if step == 0 {
        return Err(config.invalid("decoder_sparse_step", "0".to_owned(), "a positive number"));
    }
    let layer = |(index, sliding): (usize, bool)| {
        let sparse = kind == Kind::Mixtral || (!dense.contains(&index) && (index + 1).is_multiple_of(step));
        Layer {
            window: window.filter(|_| sliding),
            rotary: usize::from(kind == Kind::Gemma3 && sliding),
            feed_forward: if has_experts && sparse { FeedForward::Experts } else { FeedForward::Dense },
        }
    };
    Ok(sliding.into_iter().enumerate().map(layer).collect())
}

/// For each layer, whether its window slides.
fn sliding_layers(config: &Section<'_>, kind: Kind, count: usize) -> Result<Vec<bool>, FormatError> {
    let by_name = matches!(kind, Kind::Qwen2 | Kind::Qwen3 | Kind::Gemma2 | Kind::Gemma3);
    if let Some(names) = config.list("layer_types")?.filter(|_| by_name) {
        if names.len() != count {
            let expected = format!("one entry for each of {count} layers");
            return Err(config.invalid("layer_types", format!("a list of {}", names.len()), &expected));
        }
        let sliding = |name: &Value| match name.as_str() {
            Some("sliding_attention") => Ok(true),
            Some("full_attention") => Ok(false),
            _ => {
                Err(config.unsupported("layer_types", name.to_string(), "full_attention, sliding_attention"))
            }
        };
        return names.iter().map(sliding).collect();
    }
    let used = config.boolean("use_sliding_window")?.unwrap_or(false);
    let first = config.size("max_window_layers")?.unwrap_or(28);
    let every = match kind {
        Kind::Gemma2 => 2,
        _ => config.size("sliding_window_pattern")?.unwrap_or(6),
    };
    if every == 0 {
        return Err(config.invalid("sliding_window_pattern", "0".to_owned(), "a positive number"));
    }
    let slides = |index: usize| match kind {
        Kind::Llama => false,
        Kind::Mistral | Kind::Mixtral | Kind::Phi3 => true,
        Kind::Qwen2 | Kind::Qwen3 => used && index >= first,
        Kind::Qwen3Moe => used,
        Kind::Gemma2 | Kind::Gemma3 => !(index + 1).is_multiple_of(every),
    };
    Ok((0..count).map(slides).collect())
}
