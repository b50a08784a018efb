//! A name for all that decides an answer's bits: the model's content, the settings and the instruction set.

use std::fmt::Write;

use formats::model::{Facts, ModelFiles};
use formats::tokenizer::TokenizerSource;
use kernels::compute::Compute;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::settings::Settings;

/// Bytes that a thread hashes at a time.
const CHUNK_BYTES: usize = 4 << 20;
/// Chunks that are hashed before what was read is given back.
const CHUNKS_AT_ONCE: usize = 8;

/// `tureen-VERSION/NAME/QUANTISATION/ISA/kv-ELEMENT/CONTENT`: the same fingerprint means the same bits. CONTENT is
/// an XXH3 hash of the weights, the model's description, its tokeniser and its chat template, so that a model
/// republished under its name is told from what it was; `described` is [`described`] and `weights` is [`hash`] of the
/// files. It guards against mistakes and not against forgers.
pub(super) fn fingerprint(facts: &Facts, mut described: Xxh3, weights: u64, settings: &Settings) -> String {
    described.update(&weights.to_le_bytes());
    let (version, content) = (env!("CARGO_PKG_VERSION"), described.digest());
    let mut name = String::new();
    for part in [&facts.name, &facts.quantisation] {
        let plain = |c: char| if c.is_ascii_alphanumeric() || "._:-".contains(c) { c } else { '-' };
        name.extend(part.chars().map(plain).chain(['/']));
    }
    let (isa, kv) = (settings.isa, settings.kv().name());
    // Writing to a string does not fail.
    let _ = write!(name, "{isa}/kv-{kv}/{content:016x}");
    format!("tureen-{version}/{name}").to_lowercase()
}

/// The hash of what files say beside their weights, which are to follow.
pub(super) fn described(files: &ModelFiles, context_tokens: usize) -> Xxh3 {
    let mut whole = Xxh3::new();
    // Rotary frequencies may depend on the context.
    whole.update(format!("{:?} {context_tokens}", files.decoder()).as_bytes());
    // Of a folder these stand beside the weights.
    if let TokenizerSource::TokenizerJson { json, config } = files.tokenizer() {
        whole.update(json);
        whole.update(format!("{config:?}").as_bytes());
    }
    whole.update(format!("{:?} {:?}", files.chat_template(), files.end_tokens()).as_bytes());
    whole
}

/// An XXH3 hash of bytes in several parts, worked out by all threads. `between` is called each time some megabytes were
/// read, so that these can be given back.
pub(super) fn hash<'a>(
    compute: &Compute,
    parts: impl Iterator<Item = &'a [u8]>,
    between: &mut dyn FnMut(),
) -> u64 {
    let mut whole = Xxh3::new();
    for part in parts {
        let chunks: Vec<&[u8]> = part.chunks(CHUNK_BYTES).collect();
        for chunks in chunks.chunks(CHUNKS_AT_ONCE) {
            let mut hashes = vec![0u64; chunks.len()];
            compute.pool().for_each_row(&mut hashes, 1, |index, hash| hash[0] = xxh3_64(chunks[index]));
            hashes.iter().for_each(|hash| whole.update(&hash.to_le_bytes()));
            between();
        }
    }
    whole.digest()
}
