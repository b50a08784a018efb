//! Damaged files of every kind: none may panic, and none may take more memory than its own size justifies.
//!
//! One test only, as the memory that is measured is the whole process's.

#![allow(clippy::unwrap_used)] // functions that tests share count as no tests

mod tiny;

use std::panic::{AssertUnwindSafe, catch_unwind};

use formats::decoder::read_config;
use formats::gguf::Value;
use formats::hugging_face::parse_config;
use formats::model::{ModelFiles, Role};
use formats::safetensors;
use kernels::elements::ElementType;
use peak_alloc::PeakAlloc;
use tiny::{HIDDEN, Tiny};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

const MUTANTS: u64 = 10_000;
/// Bytes of memory that reading may take: so many for each byte of the file, and so many in any case. Parsed JSON
/// takes far more than its text.
const MEMORY_FACTOR: usize = 16;
const MEMORY_FACTOR_JSON: usize = 200;
const MEMORY_BASE: usize = 64 << 10;

/// Vigna's SplitMix64: the same numbers in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^ (x >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }
}

/// Damages `file`, mostly within its first `header` bytes.
fn damage(file: &mut Vec<u8>, header: usize, random: &mut Random) {
    const NUMBERS: [u64; 10] =
        [0, 1, 7, 0xFF, 0xFFFF, 1 << 31, u32::MAX as u64, 1 << 40, i64::MAX as u64, u64::MAX];
    for _ in 0..=random.below(3) {
        let place = random.below(header.min(file.len()));
        match random.below(7) {
            0 => file.truncate(place),
            1 if place < file.len() => drop(file.remove(place)),
            2 => file.insert(place, random.next() as u8),
            3 if place + 8 <= file.len() => {
                let number = NUMBERS[random.below(NUMBERS.len())];
                file[place..place + 8].copy_from_slice(&number.to_le_bytes());
            }
            4 if place + 4 <= file.len() => {
                let number = NUMBERS[random.below(NUMBERS.len())] as u32;
                file[place..place + 4].copy_from_slice(&number.to_le_bytes());
            }
            5 => {
                let length = random.below(64).min(file.len() - place);
                let to = random.below(file.len() - length + 1);
                file.copy_within(place..place + length, to);
            }
            _ if place < file.len() => file[place] ^= 1 << random.below(8),
            _ => {}
        }
    }
}

/// Reads `mutants` files that `make` damages, and says how many of them were still good.
fn survive(
    kind: &str,
    factor: usize,
    make: impl Fn(&mut Random) -> Vec<u8>,
    read: impl Fn(Vec<u8>) -> bool,
) -> u64 {
    let mut good = 0;
    for index in 0..MUTANTS {
        let file = make(&mut Random(index));
        let allowed = MEMORY_BASE + factor * file.len();
        let before = MEMORY.current_usage();
        MEMORY.reset_peak_usage();
        let outcome = catch_unwind(AssertUnwindSafe(|| read(file)));
        let taken = MEMORY.peak_usage().saturating_sub(before);
        assert!(outcome.is_ok(), "{kind} {index}: panicked");
        assert!(taken <= allowed, "{kind} {index}: took {taken} bytes, and {allowed} are allowed");
        good += u64::from(outcome.unwrap());
    }
    println!("{kind}: {good} of {MUTANTS} were still good");
    good
}

fn gguf_seeds() -> [Vec<u8>; 2] {
    let mut mixture = Tiny::llama();
    mixture.set("llama.expert_count", Value::U32(3)).set("llama.expert_used_count", Value::U32(2));
    mixture.remove("blk.0.ffn_gate").remove("blk.0.ffn_up").remove("blk.0.ffn_down");
    mixture.add("blk.0.ffn_gate_inp.weight", ElementType::F32, &[3, HIDDEN]);
    mixture.add("blk.0.ffn_gate_exps.weight", ElementType::Q4_0, &[3, 64, HIDDEN]);
    mixture.add("blk.0.ffn_up_exps.weight", ElementType::Q4_0, &[3, 64, HIDDEN]);
    mixture.add("blk.0.ffn_down_exps.weight", ElementType::Q4_0, &[3, HIDDEN, 64]);
    [Tiny::llama().file(), mixture.file()]
}

fn opens(file: Vec<u8>) -> bool {
    let Ok(model) = ModelFiles::from_gguf_bytes(vec![file], "mutant") else { return false };
    model.decoder().rotaries_at(4096);
    for layer in 0..model.decoder().layers.len() {
        assert!(model.tensor(Role::Query, Some(layer)).unwrap().is_some());
    }
    true
}

fn safetensors_seed() -> Vec<u8> {
    let header = br#"{"__metadata__":{"format":"pt"},
        "a":{"dtype":"BF16","shape":[2,3],"data_offsets":[0,12]},"b":{"dtype":"F32","shape":[4],"data_offsets":[12,28]},
        "c":{"dtype":"I64","shape":[],"data_offsets":[28,36]},"d":{"dtype":"F16","shape":[2,2],"data_offsets":[36,44]}}"#;
    [&(header.len() as u64).to_le_bytes()[..], header, &[0; 44]].concat()
}

/// A configuration with one or two entries exchanged for something else, as text.
fn damaged_config(random: &mut Random) -> Vec<u8> {
    const SEEDS: [&str; 4] = [
        r#"{"model_type":"gemma3","text_config":{"model_type":"gemma3_text","hidden_size":64,"intermediate_size":128,
            "num_hidden_layers":6,"rope_scaling":{"rope_type":"linear","factor":8.0},"sliding_window_pattern":3}}"#,
        r#"{"model_type":"llama","hidden_size":64,"intermediate_size":128,"num_hidden_layers":2,"head_dim":16,
            "num_attention_heads":4,"num_key_value_heads":2,"vocab_size":32,"max_position_embeddings":128,"rope_scaling":
            {"rope_type":"yarn","factor":4.0,"original_max_position_embeddings":32,"beta_fast":8,"beta_slow":2}}"#,
        r#"{"model_type":"phi3","hidden_size":16,"intermediate_size":128,"num_hidden_layers":2,"sliding_window":7,
            "num_attention_heads":2,"original_max_position_embeddings":32,"partial_rotary_factor":0.5,"rope_scaling":
            {"type":"longrope","short_factor":[1.0,1.1],"long_factor":[1.0,1.1]}}"#,
        r#"{"model_type":"qwen3_moe","hidden_size":64,"intermediate_size":128,"num_hidden_layers":3,"num_experts":4,
            "num_attention_heads":4,"num_experts_per_tok":2,"decoder_sparse_step":2,"mlp_only_layers":[1],
            "layer_types":["full_attention","sliding_attention","full_attention"],"rope_theta":1e6}"#,
    ];
    const OTHERS: [&str; 14] = [
        "null",
        "0",
        "1",
        "-1",
        "3",
        "1e308",
        "1e-320",
        "4294967296",
        "18446744073709551615",
        "true",
        "[]",
        "{}",
        "\"x\"",
        "[[[0]]]",
    ];
    let seed = SEEDS[random.below(SEEDS.len())];
    if random.below(3) == 0 {
        let mut bytes = seed.as_bytes().to_vec();
        damage(&mut bytes, seed.len(), random);
        return bytes;
    }
    let mut text = seed.to_owned();
    for _ in 0..=random.below(2) {
        // Values follow colons and end before the next comma or bracket.
        let colons: Vec<usize> = text.match_indices(':').map(|(place, _)| place + 1).collect();
        let start = colons[random.below(colons.len())];
        let end = text[start..].find([',', '}', ']', ':']).map_or(text.len(), |length| start + length);
        text.replace_range(start..end, OTHERS[random.below(OTHERS.len())]);
    }
    text.into_bytes()
}

#[test]
fn damaged_files_neither_panic_nor_take_memory() {
    let seeds = gguf_seeds();
    assert!(seeds.iter().all(|seed| opens(seed.clone())), "the undamaged files are good");
    let gguf = |random: &mut Random| {
        let mut file = seeds[random.below(seeds.len())].clone();
        damage(&mut file, 1600, random);
        file
    };
    assert!(survive("GGUF", MEMORY_FACTOR, gguf, opens) > 100);

    let safe = |random: &mut Random| {
        let mut file = safetensors_seed();
        damage(&mut file, 420, random);
        file
    };
    assert!(safetensors::read(&safetensors_seed()).is_ok());
    assert!(survive("safetensors", MEMORY_FACTOR, safe, |file| safetensors::read(&file).is_ok()) > 100);

    let read = |file: Vec<u8>| {
        let decoder = parse_config(&file, "config.json").and_then(|config| read_config(&config));
        decoder.is_ok_and(|decoder| !decoder.rotaries_at(64).is_empty())
    };
    assert!(survive("config.json", MEMORY_FACTOR_JSON, damaged_config, read) > 100);
}
