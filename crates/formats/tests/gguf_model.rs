//! Models in GGUF files: what is read of them, and what is refused.

#![allow(clippy::unwrap_used)] // functions that tests share count as no tests

mod tiny;

use formats::gguf::Value;
use formats::model::{FeedForward, ModelFiles, Role, RotaryScaling};
use formats::tokenizer::TokenizerSource;
use kernels::elements::ElementType;
use tiny::{HIDDEN, Tiny};

fn open(tiny: &Tiny) -> ModelFiles {
    ModelFiles::from_gguf_bytes(vec![tiny.file()], "tiny").unwrap()
}

/// After `change`, opening fails and says `expected`.
fn refuses(change: impl Fn(&mut Tiny) -> &mut Tiny, expected: &str) {
    let mut tiny = Tiny::llama();
    change(&mut tiny);
    let error = ModelFiles::from_gguf_bytes(vec![tiny.file()], "tiny").unwrap_err().to_string();
    assert!(error.contains(expected), "{error}\nexpected: {expected}");
}

#[test]
fn a_model_opens_with_its_tokeniser_and_facts() {
    let model = open(&Tiny::llama());
    assert_eq!(model.facts().name, "tiny");
    // Most bytes are Q4_1: 3 matrices of 64 x 32 at 20 bytes for 32 elements.
    assert_eq!(model.facts().quantisation, "Q4_1");
    assert_eq!(model.facts().parameters, (6 * 32 + 3 * 32 + 3 * 32 * 64 + 32 * 96) as u64);
    assert_eq!(model.end_tokens(), [5, 4], "the end of text by its key, and <|im_end|> by its text");
    assert_eq!(model.chat_template(), None);
    let TokenizerSource::Gguf(tokenizer) = model.tokenizer() else { panic!("no GGUF tokeniser") };
    assert_eq!((tokenizer.tokens.len(), &tokenizer.merges[..]), (6, &["a b".to_owned()][..]));
    assert!(model.tensor(Role::Output, None).unwrap().is_none());
    let key = model.tensor(Role::Key, Some(0)).unwrap().unwrap();
    assert_eq!((key.name, key.shape, key.bytes.len()), ("blk.0.attn_k.weight", vec![16, 32], 16 * 18));
}

#[test]
fn unsupported_architectures_are_named() {
    refuses(|tiny| tiny.set("general.architecture", Value::String("mamba")), "\"mamba\"");
    refuses(|tiny| tiny.set("general.architecture", Value::String("mamba")), "llama, qwen2, qwen3, qwen3moe");
    refuses(|tiny| tiny.remove("general.architecture"), "\"\"");
}

#[test]
fn options_that_change_the_meaning_are_refused() {
    for (key, value) in [
        ("llama.attention.clamp_kqv", Value::F32(8.0)),
        ("llama.logit_scale", Value::F32(0.5)),
        ("llama.attention.kv_lora_rank", Value::U32(512)),
        ("llama.attention.causal", Value::Bool(false)),
        ("llama.attn_logit_softcapping", Value::F32(50.0)),
        ("llama.rope.scaling.type", Value::String("mystery")),
        ("llama.rope.scaling.attn_factor", Value::F32(1.2)),
        ("llama.rope.scaling.yarn_ext_factor", Value::F32(0.5)),
        ("llama.attention.value_length", Value::U32(8)),
    ] {
        refuses(|tiny| tiny.set(key, value), key);
    }
    refuses(|tiny| tiny.add("blk.0.attn_sinks.weight", ElementType::F32, &[2]), "is blk.0.attn_sinks.weight");
    refuses(|tiny| tiny.add("output.bias", ElementType::F32, &[6]), "is output.bias");
}

#[test]
fn sizes_are_checked() {
    let number =
        |key: &'static str, n: u32, expected: &str| refuses(|tiny| tiny.set(key, Value::U32(n)), expected);
    number("llama.block_count", 0, "number of layers is 0");
    number("llama.block_count", u32::MAX, "at most 1024");
    number("llama.attention.head_count", 0, "0");
    number("llama.attention.head_count", u32::MAX, "head");
    number("llama.attention.head_count_kv", 3, "a divisor of the 2 heads");
    number("llama.feed_forward_length", 1 << 30, "at most");
    number("llama.context_length", 0, "context is 0");
    number("llama.rope.dimension_count", 17, "rotary embedding's size is 17");
    number("tokenizer.ggml.eos_token_id", 6, "tokenizer.ggml.eos_token_id is 6");
    refuses(|tiny| tiny.set("llama.rope.freq_base", Value::F32(0.0)), "theta is 0");
    refuses(|tiny| tiny.set("llama.rope.freq_base", Value::F32(f32::NAN)), "rope.freq_base is NaN");
    refuses(|tiny| tiny.set("llama.attention.layer_norm_rms_epsilon", Value::F32(-1.0)), "positive");
    refuses(|tiny| tiny.set("llama.embedding_length", Value::String("32")), "the text \"32\"");
    refuses(|tiny| tiny.remove("llama.context_length"), "llama.context_length is missing");
}

#[test]
fn missing_and_misshapen_tensors_are_named() {
    refuses(|tiny| tiny.remove("blk.0.ffn_down.weight"), "tensor blk.0.ffn_down.weight is missing");
    refuses(|tiny| tiny.remove("token_embd.weight"), "token_embd.weight");
    refuses(|tiny| tiny.set("llama.block_count", Value::U32(1000)), "blk.1.attn_norm.weight, ");
    refuses(
        |tiny| tiny.add("blk.0.attn_k.weight", ElementType::F32, &[32, HIDDEN]),
        "tensor blk.0.attn_k.weight has shape [32, 32]; Key of this model needs [16, 32]",
    );
    refuses(|tiny| tiny.add("token_embd.weight", ElementType::F32, &[5, HIDDEN]), "at most the 5 tokens");
}

#[test]
fn fused_tensors_are_cut() {
    let mut tiny = Tiny::llama();
    for (key, value) in tiny.keys.clone() {
        tiny.set(&key.replace("llama.", "phi3."), value);
    }
    tiny.set("general.architecture", Value::String("phi3"));
    tiny.remove("blk.0.attn_q").remove("blk.0.attn_k").remove("blk.0.attn_v").remove("blk.0.ffn_gate");
    tiny.add("blk.0.attn_qkv.weight", ElementType::Q4_0, &[64, HIDDEN]);
    tiny.add("blk.0.ffn_up.weight", ElementType::Q4_0, &[128, HIDDEN]);
    let model = open(&tiny);
    let check = |role: Role, rows: usize, first: usize, whole: &str| {
        let tensor = model.tensor(role, Some(0)).unwrap().unwrap();
        assert_eq!((tensor.name, &tensor.shape[..]), (whole, &[rows, HIDDEN][..]), "{role:?}");
        assert_eq!(tensor.bytes.len(), rows * 18, "{role:?}");
        let start = model
            .tensor(if whole.contains("qkv") { Role::Query } else { Role::Gate }, Some(0))
            .unwrap()
            .unwrap();
        assert_eq!(tensor.bytes.as_ptr() as usize - start.bytes.as_ptr() as usize, first * 18, "{role:?}");
    };
    check(Role::Query, 32, 0, "blk.0.attn_qkv.weight");
    check(Role::Key, 16, 32, "blk.0.attn_qkv.weight");
    check(Role::Value, 16, 48, "blk.0.attn_qkv.weight");
    check(Role::Gate, 64, 0, "blk.0.ffn_up.weight");
    check(Role::Up, 64, 64, "blk.0.ffn_up.weight");
}

fn mixture(count: usize) -> Tiny {
    let mut tiny = Tiny::llama();
    tiny.set("llama.expert_count", Value::U32(count as u32)).set("llama.expert_used_count", Value::U32(2));
    tiny.remove("blk.0.ffn_gate").remove("blk.0.ffn_up").remove("blk.0.ffn_down");
    tiny.add("blk.0.ffn_gate_inp.weight", ElementType::F32, &[count, HIDDEN]);
    tiny
}

#[test]
fn experts_are_found_stacked_apart_and_fused() {
    let mut stacked = mixture(3);
    stacked.add("blk.0.ffn_gate_exps.weight", ElementType::F16, &[3, 64, HIDDEN]);
    stacked.add("blk.0.ffn_up_exps.weight", ElementType::F16, &[3, 64, HIDDEN]);
    stacked.add("blk.0.ffn_down_exps.weight", ElementType::F16, &[3, HIDDEN, 64]);
    let mut apart = mixture(3);
    for expert in 0..3 {
        apart.add(&format!("blk.0.ffn_gate.{expert}.weight"), ElementType::F16, &[64, HIDDEN]);
        apart.add(&format!("blk.0.ffn_up.{expert}.weight"), ElementType::F16, &[64, HIDDEN]);
        apart.add(&format!("blk.0.ffn_down.{expert}.weight"), ElementType::F16, &[HIDDEN, 64]);
    }
    let mut fused = mixture(3);
    fused.add("blk.0.ffn_gate_up_exps.weight", ElementType::F16, &[3, 128, HIDDEN]);
    fused.add("blk.0.ffn_down_exps.weight", ElementType::F16, &[3, HIDDEN, 64]);
    for tiny in [&stacked, &apart, &fused] {
        let model = open(tiny);
        assert_eq!(model.decoder().layers[0].feed_forward, FeedForward::Experts);
        assert!(model.decoder().experts.unwrap().normalise);
        let down = model.tensor(Role::ExpertDown(2), Some(0)).unwrap().unwrap();
        assert_eq!((&down.shape[..], down.bytes.len()), (&[HIDDEN, 64][..], HIDDEN * 128));
        assert_eq!(model.tensor(Role::ExpertUp(1), Some(0)).unwrap().unwrap().shape, [64, HIDDEN]);
    }
    let model = open(&fused);
    let place = |role| model.tensor(role, Some(0)).unwrap().unwrap().bytes.as_ptr() as usize;
    assert_eq!(place(Role::ExpertUp(1)) - place(Role::ExpertGate(0)), (128 + 64) * HIDDEN * 2);

    apart.remove("blk.0.ffn_up.2.weight");
    let error = ModelFiles::from_gguf_bytes(vec![apart.file()], "tiny").unwrap_err().to_string();
    assert!(error.contains("blk.0.ffn_up"), "{error}");
}

#[test]
fn rope_scalings_are_read() {
    let check = |change: &dyn Fn(&mut Tiny) -> &mut Tiny, expected: RotaryScaling| {
        let mut tiny = Tiny::llama();
        change(&mut tiny);
        assert_eq!(open(&tiny).decoder().rotaries[0].scaling, expected);
    };
    check(&|tiny| tiny, RotaryScaling::None);
    check(
        &|tiny| tiny.set("llama.rope.scale_linear", Value::F32(4.0)),
        RotaryScaling::Linear { factor: 4.0 },
    );
    check(
        &|tiny| {
            tiny.set("llama.rope.scaling.type", Value::String("yarn"))
                .set("llama.rope.scaling.factor", Value::F32(4.0))
        },
        RotaryScaling::Yarn {
            factor: 4.0,
            original_context: 128,
            beta_fast: 32.0,
            beta_slow: 1.0,
            attention_factor: None,
        },
    );
    // The tiny files' tensors hold zeros, by which nothing can be divided.
    refuses(|tiny| tiny.add("rope_freqs.weight", ElementType::F32, &[8]), "scaling is 0");
    refuses(|tiny| tiny.add("rope_freqs.weight", ElementType::F16, &[8]), "tensor rope_freqs.weight");
    refuses(|tiny| tiny.add("rope_factors_long.weight", ElementType::F32, &[8]), "they go together");
}
