//! Tiny models with few pages for keys and values, and requests that need more of them as they are answered.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use engine::llm::request::{Event, GenerateRequest, Sampling, Usage};
use engine::llm::{Generation, Llm, Settings};

pub fn fixture(family: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/decoders").join(family)
}

pub fn settings() -> Settings {
    Settings { threads: 1, sequences_max: 8, memory_max_bytes: Some(1 << 28), ..Settings::default() }
}

pub fn load(family: &str, settings: &Settings) -> Llm {
    Llm::load(&fixture(family), settings, &mut |_, _| {}).expect("loaded")
}

/// A model with so many pages, of 32 tokens each, and no more: four hold one context.
pub fn load_with_pages(family: &str, settings: &Settings, pages: u64) -> Llm {
    let (mut low, mut high) = (0, 1 << 28);
    while low < high {
        let bytes = (low + high) / 2;
        let settings = Settings { memory_max_bytes: Some(bytes), ..settings.clone() };
        let loaded = Llm::load(&fixture(family), &settings, &mut |_, _| {});
        match loaded.map(|llm| (llm.stats().kv_pages_total, llm)) {
            Ok((total, llm)) if total == pages => return llm,
            Ok((total, _)) if total > pages => high = bytes,
            _ => low = bytes + 1,
        }
    }
    panic!("no memory gives {family} {pages} pages")
}

/// Request `index` of a lot whose answers need more pages as they grow; some begin alike, some are sampled, some report.
pub fn request(index: usize) -> GenerateRequest {
    let shared = if index.is_multiple_of(3) { 40 } else { 0 };
    let own = 3 + 5 * index % 23;
    let prompt =
        (0..shared).map(|i| 3 + i as u32).chain((0..own).map(|i| ((index * 31 + i * 7) % 250) as u32));
    let plain = Sampling { temperature: 0.0, ..Sampling::default() };
    let sampling = match index % 3 {
        0 => plain,
        1 => Sampling {
            seed: Some(index as u64),
            repetition_penalty: 1.2,
            presence_penalty: 0.4,
            ..Sampling::default()
        },
        _ => Sampling { seed: Some(index as u64), top_p: 0.9, ..Sampling::default() },
    };
    GenerateRequest {
        prompt: prompt.collect(),
        tokens_max: 20 + index * 7 % 41,
        sampling,
        stop: vec!["never said".to_owned()],
        logprobs: Some(1),
        prompt_logprobs: index % 4 == 3,
        ignore_end: true,
    }
}

/// All that a request reported, and its usage but for how much was found in the cache.
pub fn answer(mut generation: Generation) -> (Vec<String>, Usage) {
    let mut said = Vec::new();
    while let Some(event) = generation.blocking_next() {
        match event {
            Event::Done { text, reason, usage } => {
                said.push(format!("{text:?} {reason:?}"));
                return (said, Usage { cached_tokens: 0, ..usage });
            }
            Event::Failed(reason) => panic!("{reason}"),
            // Debug output of floats is exact, and knows NaN.
            event => said.push(format!("{event:?}")),
        }
    }
    panic!("no end after {said:?}")
}

pub fn is_idle(llm: &Llm) -> bool {
    let stats = llm.stats();
    (stats.running, stats.waiting, stats.kv_pages_used) == (0, 0, 0)
}

pub fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let give_up = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < give_up, "{what}: not in a minute");
        std::thread::sleep(Duration::from_millis(1));
    }
}
