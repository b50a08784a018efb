//! The keys of a GGUF file, from what a folder's configuration was read to.

use super::architecture;
use crate::files::ModelFiles;
use crate::gguf::{Value, ValueType, Writer};
use crate::model::{Decoder, RotaryScaling};
use crate::tokenizer::GgufTokenizer;

/// All that describes the model and what it computes.
pub(super) fn write(model: &ModelFiles, writer: &mut Writer) {
    let (decoder, facts) = (model.decoder(), model.facts());
    let (architecture, _) = architecture(&decoder.family);
    writer.text("general.architecture", architecture).text("general.type", "model");
    writer.text("general.name", &facts.name);
    if let Some(licence) = &facts.licence {
        writer.text("general.license", licence);
    }
    let mut keys = Keys { architecture, writer };
    keys.sizes(decoder);
    keys.floats(decoder);
    keys.window(decoder);
    keys.rotary(decoder);
}

struct Keys<'w> {
    architecture: &'w str,
    writer: &'w mut Writer,
}

impl Keys<'_> {
    /// Sizes are checked to be far below the largest such number when a model is read.
    fn size(&mut self, key: &str, size: usize) {
        let size = u32::try_from(size).unwrap_or(u32::MAX);
        self.writer.value(&format!("{}.{key}", self.architecture), Value::U32(size));
    }

    fn float(&mut self, key: &str, value: f32) {
        self.writer.value(&format!("{}.{key}", self.architecture), Value::F32(value));
    }

    fn sizes(&mut self, decoder: &Decoder) {
        self.size("block_count", decoder.layers.len());
        self.size("context_length", decoder.context);
        self.size("embedding_length", decoder.hidden);
        self.size("feed_forward_length", decoder.feed_forward);
        self.size("attention.head_count", decoder.heads);
        self.size("attention.head_count_kv", decoder.kv_heads);
        self.size("attention.key_length", decoder.head_dim);
        self.size("attention.value_length", decoder.head_dim);
        self.size("vocab_size", decoder.vocabulary);
        if let Some(experts) = decoder.experts {
            self.size("expert_count", experts.count);
            self.size("expert_used_count", experts.used);
            // Llama's architecture has the feed-forward size for it.
            if self.architecture != "llama" {
                self.size("expert_feed_forward_length", experts.hidden);
            }
        }
    }

    fn floats(&mut self, decoder: &Decoder) {
        self.float("attention.layer_norm_rms_epsilon", decoder.norm_epsilon);
        // In Gemma 2 a missing key means the published caps.
        if let Some(cap) = decoder.attention_softcap.or((self.architecture == "gemma2").then_some(0.0)) {
            self.float("attn_logit_softcapping", cap);
        }
        if let Some(cap) = decoder.logit_softcap.or((self.architecture == "gemma2").then_some(0.0)) {
            self.float("final_logit_softcapping", cap);
        }
    }

    /// Of the architectures that have one; where its layers are is known by the family.
    fn window(&mut self, decoder: &Decoder) {
        let window = decoder.layers.iter().find_map(|layer| layer.window);
        match (self.architecture, window) {
            ("gemma2" | "gemma3" | "phi3", Some(window)) => self.size("attention.sliding_window", window),
            // Which llama.cpp doesn't open without it.
            ("phi3", None) => self.size("attention.sliding_window", 0),
            _ => {}
        }
    }

    fn rotary(&mut self, decoder: &Decoder) {
        if let Some(local) = decoder.rotaries.get(1) {
            self.float("rope.freq_base_swa", local.theta);
        }
        let Some(settings) = decoder.rotaries.first() else { return };
        self.size("rope.dimension_count", settings.dim);
        self.float("rope.freq_base", settings.theta);
        let kind = format!("{}.rope.scaling.type", self.architecture);
        match &settings.scaling {
            RotaryScaling::Linear { factor } => {
                self.writer.text(&kind, "linear");
                self.float("rope.scaling.factor", *factor);
            }
            RotaryScaling::Yarn { factor, original_context, beta_fast, beta_slow, .. } => {
                self.writer.text(&kind, "yarn");
                self.float("rope.scaling.factor", *factor);
                self.size("rope.scaling.original_context_length", *original_context);
                self.float("rope.scaling.yarn_beta_fast", *beta_fast);
                self.float("rope.scaling.yarn_beta_slow", *beta_slow);
            }
            RotaryScaling::LongRope { original_context, .. } => {
                self.size("rope.scaling.original_context_length", *original_context);
                if let Some(rotary) = decoder.rotaries_at(decoder.context).first() {
                    self.float("rope.scaling.attn_factor", rotary.attention_factor);
                }
            }
            // Tensors say these.
            RotaryScaling::Llama3 { .. } | RotaryScaling::Divisors(_) => {}
            // The first needs no key, and the second has none.
            RotaryScaling::None | RotaryScaling::Dynamic { .. } => {}
        }
    }
}

/// The keys of the tokeniser.
pub(super) fn write_tokenizer(source: &GgufTokenizer, template: Option<&str>, writer: &mut Writer) {
    let texts = |list: &[String], key: &str, writer: &mut Writer| {
        writer.array(key, ValueType::String, list.iter().map(|text| Value::String(text)));
    };
    writer.text("tokenizer.ggml.model", &source.model);
    if let Some(pre) = &source.pre {
        writer.text("tokenizer.ggml.pre", pre);
    }
    texts(&source.tokens, "tokenizer.ggml.tokens", writer);
    if !source.scores.is_empty() {
        let scores = source.scores.iter().map(|score| Value::F32(*score));
        writer.array("tokenizer.ggml.scores", ValueType::F32, scores);
    }
    let types = source.types.iter().map(|kind| Value::I32(*kind));
    writer.array("tokenizer.ggml.token_type", ValueType::I32, types);
    if !source.merges.is_empty() {
        texts(&source.merges, "tokenizer.ggml.merges", writer);
    }
    for (name, id) in [
        ("bos", source.bos),
        ("eos", source.eos),
        ("eot", source.eot),
        ("eom", source.eom),
        ("unknown", source.unk),
        ("padding", source.pad),
    ] {
        if let Some(id) = id {
            writer.value(&format!("tokenizer.ggml.{name}_token_id"), Value::U32(id));
        }
    }
    for (key, value) in [
        ("add_bos_token", source.add_bos),
        ("add_space_prefix", source.add_space_prefix),
        ("remove_extra_whitespaces", source.remove_extra_whitespaces),
    ] {
        if let Some(value) = value {
            writer.value(&format!("tokenizer.ggml.{key}"), Value::Bool(value));
        }
    }
    if let Some(template) = template {
        writer.text("tokenizer.chat_template", template);
    }
}
