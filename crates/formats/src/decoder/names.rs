//! What each role's tensor is called in a file, and which of its rows belong to the role.
//!
//! Sources: the tensor names of the GGUF specification and of llama.cpp's converter; the module names of the
//! `transformers` library.

use super::{Naming, Presence, Tensors};
use crate::model::{Decoder, Role};

/// A tensor that may hold a role, alone or together with others.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Candidate {
    pub name: String,
    /// The whole tensor's.
    pub shape: Vec<usize>,
    /// The role's first row in it, its outer dimensions taken together.
    pub first: usize,
}

/// The shape that `role` has, outermost dimension first.
pub(super) fn shape(decoder: &Decoder, role: Role) -> Vec<usize> {
    let Decoder { vocabulary: v, hidden: h, feed_forward: f, .. } = *decoder;
    let q = decoder.heads * decoder.head_dim;
    let kv = decoder.kv_heads * decoder.head_dim;
    let (experts, e) = decoder.experts.map_or((0, 0), |experts| (experts.count, experts.hidden));
    match role {
        Role::Embedding | Role::Output => vec![v, h],
        Role::OutputNorm
        | Role::AttentionNorm
        | Role::AttentionOutputBias
        | Role::PostAttentionNorm
        | Role::FeedForwardNorm
        | Role::PostFeedForwardNorm => vec![h],
        Role::Query => vec![q, h],
        Role::Key | Role::Value => vec![kv, h],
        Role::QueryBias => vec![q],
        Role::KeyBias | Role::ValueBias => vec![kv],
        Role::QueryNorm | Role::KeyNorm => vec![decoder.head_dim],
        Role::AttentionOutput => vec![h, q],
        Role::Gate | Role::Up => vec![f, h],
        Role::Down => vec![h, f],
        Role::Router => vec![experts, h],
        Role::ExpertGate(_) | Role::ExpertUp(_) => vec![e, h],
        Role::ExpertDown(_) => vec![h, e],
    }
}

/// Whether the model has `role` in the layers that its kind of role is in.
pub(super) fn presence(tensors: &Tensors, role: Role) -> Presence {
    match role {
        Role::Output => tensors.output,
        Role::QueryBias | Role::KeyBias | Role::ValueBias => tensors.attention_bias,
        Role::AttentionOutputBias => tensors.attention_output_bias,
        Role::QueryNorm | Role::KeyNorm => tensors.head_norms,
        Role::PostAttentionNorm | Role::PostFeedForwardNorm => tensors.post_norms,
        _ => Presence::Required,
    }
}

/// Tensors that may hold `role`, likeliest first; `layer` is 0 for roles outside the layers.
pub(crate) fn candidates(tensors: &Tensors, decoder: &Decoder, role: Role, layer: usize) -> Vec<Candidate> {
    let build = Build { decoder, role };
    match &tensors.naming {
        Naming::Gguf => build.gguf(&format!("blk.{layer}."), tensors.fused_gate),
        Naming::HuggingFace { prefix, output, sandwich_norms } => match role {
            Role::Embedding => vec![build.whole(format!("{prefix}embed_tokens.weight"))],
            Role::OutputNorm => vec![build.whole(format!("{prefix}norm.weight"))],
            Role::Output => vec![build.whole((*output).to_owned())],
            _ => build.hugging_face(&format!("{prefix}layers.{layer}."), *sandwich_norms, tensors.fused_gate),
        },
    }
}

struct Build<'d> {
    decoder: &'d Decoder,
    role: Role,
}

impl Build<'_> {
    /// A tensor that is the role's alone.
    fn whole(&self, name: String) -> Candidate {
        Candidate { name, shape: shape(self.decoder, self.role), first: 0 }
    }

    /// The rows of query, key and value, one after the other.
    fn fused_attention(&self, name: String) -> Candidate {
        let q = self.decoder.heads * self.decoder.head_dim;
        let kv = self.decoder.kv_heads * self.decoder.head_dim;
        let first = match self.role {
            Role::Key | Role::KeyBias => q,
            Role::Value | Role::ValueBias => q + kv,
            _ => 0,
        };
        let mut shape = shape(self.decoder, self.role);
        shape[0] = q + 2 * kv;
        Candidate { name, shape, first }
    }

    /// The rows of gate and up, one after the other.
    fn fused_gate(&self, name: String) -> Candidate {
        let Decoder { feed_forward, hidden, .. } = *self.decoder;
        let first = if self.role == Role::Up { feed_forward } else { 0 };
        Candidate { name, shape: vec![2 * feed_forward, hidden], first }
    }

    /// All experts' matrices, one after the other; `of_each` of them belong to each expert, and this one comes
    /// `before` others.
    fn stacked(&self, name: String, expert: usize, of_each: usize, before: usize) -> Candidate {
        let count = self.decoder.experts.map_or(0, |experts| experts.count);
        let matrix = shape(self.decoder, self.role);
        let (rows, columns) = (matrix[0], matrix[1]);
        Candidate {
            name,
            shape: vec![count, of_each * rows, columns],
            first: (expert * of_each + before) * rows,
        }
    }

    fn gguf(&self, block: &str, fused_gate: bool) -> Vec<Candidate> {
        let top = |name: &str| vec![self.whole(name.to_owned())];
        let one = |name: &str| vec![self.whole(format!("{block}{name}"))];
        let attention = |name: &str, fused: &str| {
            vec![self.whole(format!("{block}{name}")), self.fused_attention(format!("{block}{fused}"))]
        };
        let experts = |name: &str, expert: usize, before: Option<usize>| {
            let mut found = vec![
                self.stacked(format!("{block}{name}_exps.weight"), expert, 1, 0),
                self.whole(format!("{block}{name}.{expert}.weight")),
            ];
            found
                .extend(before.map(|before| {
                    self.stacked(format!("{block}ffn_gate_up_exps.weight"), expert, 2, before)
                }));
            found
        };
        match self.role {
            Role::Embedding => top("token_embd.weight"),
            Role::OutputNorm => top("output_norm.weight"),
            Role::Output => top("output.weight"),
            Role::AttentionNorm => one("attn_norm.weight"),
            Role::Query => attention("attn_q.weight", "attn_qkv.weight"),
            Role::Key => attention("attn_k.weight", "attn_qkv.weight"),
            Role::Value => attention("attn_v.weight", "attn_qkv.weight"),
            Role::QueryBias => attention("attn_q.bias", "attn_qkv.bias"),
            Role::KeyBias => attention("attn_k.bias", "attn_qkv.bias"),
            Role::ValueBias => attention("attn_v.bias", "attn_qkv.bias"),
            Role::QueryNorm => one("attn_q_norm.weight"),
            Role::KeyNorm => one("attn_k_norm.weight"),
            Role::AttentionOutput => one("attn_output.weight"),
            Role::AttentionOutputBias => one("attn_output.bias"),
            Role::PostAttentionNorm => one("post_attention_norm.weight"),
            Role::FeedForwardNorm => one("ffn_norm.weight"),
            Role::Gate | Role::Up if fused_gate => vec![self.fused_gate(format!("{block}ffn_up.weight"))],
            Role::Gate => one("ffn_gate.weight"),
            Role::Up => one("ffn_up.weight"),
            Role::Down => one("ffn_down.weight"),
            Role::PostFeedForwardNorm => one("post_ffw_norm.weight"),
            Role::Router => one("ffn_gate_inp.weight"),
            Role::ExpertGate(expert) => experts("ffn_gate", expert, Some(0)),
            Role::ExpertUp(expert) => experts("ffn_up", expert, Some(1)),
            Role::ExpertDown(expert) => experts("ffn_down", expert, None),
        }
    }

    /// Names within a layer.
    fn hugging_face(&self, block: &str, sandwich_norms: bool, fused_gate: bool) -> Vec<Candidate> {
        let one = |name: &str| vec![self.whole(format!("{block}{name}"))];
        let attention = |name: &str| {
            let (part, kind) = name.split_once('.').unwrap_or((name, "weight"));
            vec![
                self.whole(format!("{block}self_attn.{part}_proj.{kind}")),
                self.fused_attention(format!("{block}self_attn.qkv_proj.{kind}")),
            ]
        };
        // Mixtral's names, Qwen's, and those of files that keep experts stacked.
        let experts = |mixtral: &str, qwen: &str, expert: usize, before: Option<usize>| {
            let stacked = match before {
                Some(before) => self.stacked(format!("{block}mlp.experts.gate_up_proj"), expert, 2, before),
                None => self.stacked(format!("{block}mlp.experts.{qwen}"), expert, 1, 0),
            };
            vec![
                self.whole(format!("{block}mlp.experts.{expert}.{qwen}.weight")),
                self.whole(format!("{block}block_sparse_moe.experts.{expert}.{mixtral}.weight")),
                stacked,
            ]
        };
        match self.role {
            Role::Embedding | Role::OutputNorm | Role::Output => Vec::new(),
            Role::AttentionNorm => one("input_layernorm.weight"),
            Role::Query => attention("q.weight"),
            Role::Key => attention("k.weight"),
            Role::Value => attention("v.weight"),
            Role::QueryBias => attention("q.bias"),
            Role::KeyBias => attention("k.bias"),
            Role::ValueBias => attention("v.bias"),
            Role::QueryNorm => one("self_attn.q_norm.weight"),
            Role::KeyNorm => one("self_attn.k_norm.weight"),
            Role::AttentionOutput => one("self_attn.o_proj.weight"),
            Role::AttentionOutputBias => one("self_attn.o_proj.bias"),
            Role::PostAttentionNorm => one("post_attention_layernorm.weight"),
            Role::FeedForwardNorm if sandwich_norms => one("pre_feedforward_layernorm.weight"),
            Role::FeedForwardNorm => one("post_attention_layernorm.weight"),
            Role::PostFeedForwardNorm => one("post_feedforward_layernorm.weight"),
            Role::Gate | Role::Up if fused_gate => {
                vec![self.fused_gate(format!("{block}mlp.gate_up_proj.weight"))]
            }
            Role::Gate => one("mlp.gate_proj.weight"),
            Role::Up => one("mlp.up_proj.weight"),
            Role::Down => one("mlp.down_proj.weight"),
            Role::Router => [one("mlp.gate.weight"), one("block_sparse_moe.gate.weight")].concat(),
            Role::ExpertGate(expert) => experts("w1", "gate_proj", expert, Some(0)),
            Role::ExpertUp(expert) => experts("w3", "up_proj", expert, Some(1)),
            Role::ExpertDown(expert) => experts("w2", "down_proj", expert, None),
        }
    }
}
