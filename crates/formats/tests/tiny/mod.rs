//! A tiny model of the Llama family as GGUF, to change one thing of at a time.

use formats::gguf::{Value, ValueType, Writer};
use kernels::elements::ElementType;

pub const HIDDEN: usize = 32;
pub const TOKENS: usize = 6;

/// Keys, and tensors with zeros in them.
#[derive(Clone)]
pub struct Tiny {
    pub keys: Vec<(String, Value<'static>)>,
    pub tensors: Vec<(String, ElementType, Vec<usize>)>,
}

impl Tiny {
    /// One layer with two heads of 16, of which one has keys and values; 64 in the feed-forward block.
    pub fn llama() -> Tiny {
        let number = |key: &str, n: u32| (format!("llama.{key}"), Value::U32(n));
        let mut keys = vec![
            ("general.architecture".to_owned(), Value::String("llama")),
            ("llama.attention.layer_norm_rms_epsilon".to_owned(), Value::F32(1e-5)),
            ("tokenizer.ggml.model".to_owned(), Value::String("gpt2")),
            ("tokenizer.ggml.eos_token_id".to_owned(), Value::U32(5)),
        ];
        keys.extend([
            number("context_length", 128),
            number("embedding_length", HIDDEN as u32),
            number("block_count", 1),
            number("feed_forward_length", 64),
            number("attention.head_count", 2),
            number("attention.head_count_kv", 1),
        ]);
        let mut tiny = Tiny { keys, tensors: Vec::new() };
        tiny.add("token_embd.weight", ElementType::Q8_0, &[TOKENS, HIDDEN]);
        tiny.add("output_norm.weight", ElementType::F32, &[HIDDEN]);
        tiny.add("blk.0.attn_norm.weight", ElementType::F32, &[HIDDEN]);
        tiny.add("blk.0.ffn_norm.weight", ElementType::F32, &[HIDDEN]);
        tiny.add("blk.0.attn_q.weight", ElementType::Q4_0, &[32, HIDDEN]);
        tiny.add("blk.0.attn_k.weight", ElementType::Q4_0, &[16, HIDDEN]);
        tiny.add("blk.0.attn_v.weight", ElementType::Q4_0, &[16, HIDDEN]);
        tiny.add("blk.0.attn_output.weight", ElementType::Q4_0, &[HIDDEN, 32]);
        tiny.add("blk.0.ffn_gate.weight", ElementType::Q4_1, &[64, HIDDEN]);
        tiny.add("blk.0.ffn_up.weight", ElementType::Q4_1, &[64, HIDDEN]);
        tiny.add("blk.0.ffn_down.weight", ElementType::Q4_1, &[HIDDEN, 64]);
        tiny
    }

    pub fn set(&mut self, key: &str, value: Value<'static>) -> &mut Tiny {
        self.keys.retain(|(name, _)| name != key);
        self.keys.push((key.to_owned(), value));
        self
    }

    pub fn add(&mut self, name: &str, element_type: ElementType, shape: &[usize]) -> &mut Tiny {
        self.remove(name);
        self.tensors.push((name.to_owned(), element_type, shape.to_vec()));
        self
    }

    /// Removes the keys and tensors whose names begin so.
    pub fn remove(&mut self, prefix: &str) -> &mut Tiny {
        self.keys.retain(|(name, _)| !name.starts_with(prefix));
        self.tensors.retain(|(name, _, _)| !name.starts_with(prefix));
        self
    }

    pub fn file(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        for (key, value) in &self.keys {
            writer.value(key, *value);
        }
        writer.texts("tokenizer.ggml.tokens", &["a", "b", "ab", "<unk>", "<|im_end|>", "</s>"]);
        writer.array("tokenizer.ggml.token_type", ValueType::I32, [1, 1, 1, 2, 3, 3].map(Value::I32));
        writer.texts("tokenizer.ggml.merges", &["a b"]);
        for (name, element_type, shape) in &self.tensors {
            let bytes =
                shape.iter().product::<usize>() / element_type.block_elements() * element_type.block_bytes();
            writer.tensor(name, *element_type, shape, &vec![0; bytes]);
        }
        writer.finish()
    }
}
