//! A whole engine from outside: the same request has the same answer whatever else runs, and every request ends.

#![allow(clippy::expect_used)] // a fixture that is not there fails the test

use std::path::{Path, PathBuf};

use engine::llm::request::{Event, Failure, FinishReason, GenerateRequest, Sampling, SubmitError, Usage};
use engine::llm::{Generation, Llm, Settings};
use kernels::attention::KvElement;
use kernels::compute::Isa;

fn fixture(family: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/decoders").join(family)
}

fn load(family: &str, settings: Settings) -> Llm {
    let path = fixture(family);
    Llm::load(&path, &settings, &mut |_, _| {}).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn settings() -> Settings {
    Settings { threads: 1, sequences_max: 8, memory_max_bytes: Some(1 << 28), ..Settings::default() }
}

/// Request `index` of a mixed lot: prompts of many lengths of which some begin alike, each way of sampling.
fn request(index: usize) -> GenerateRequest {
    let shared = if index.is_multiple_of(3) { 40 } else { 0 };
    let own = 1 + 7 * index % 45;
    let prompt =
        (0..shared).map(|i| 3 + i as u32).chain((0..own).map(|i| ((index * 31 + i * 7) % 250) as u32));
    let seed = Some(index as u64);
    let sampling = match index % 4 {
        0 => Sampling { temperature: 0.0, ..Sampling::default() },
        1 => Sampling { seed, ..Sampling::default() },
        2 => Sampling { seed, temperature: 0.7, top_p: 0.9, top_k: 40, ..Sampling::default() },
        _ => Sampling {
            seed,
            repetition_penalty: 1.2,
            frequency_penalty: 0.3,
            min_p: 0.02,
            ..Sampling::default()
        },
    };
    GenerateRequest {
        prompt: prompt.collect(),
        tokens_max: 5 + index * 3 % 24,
        sampling,
        stop: Vec::new(),
        logprobs: Some(2),
        prompt_logprobs: index % 5 == 4,
        ignore_end: true,
    }
}

/// All that a request reported, log-probabilities as bits; but for how much was found in the cache.
fn answer(mut generation: Generation) -> Vec<String> {
    let mut said = Vec::new();
    while let Some(event) = generation.blocking_next() {
        said.push(match event {
            Event::Token(token) => {
                let logprob = token.logprob.expect("asked for");
                let top: Vec<(u32, u32)> = logprob.top.iter().map(|(id, _, p)| (*id, p.to_bits())).collect();
                format!("{} {:?} {:x} {top:?}", token.id, token.text, logprob.logprob.to_bits())
            }
            Event::Prompt(entries) => {
                let bits: Vec<u32> = entries.iter().map(|entry| entry.logprob.to_bits()).collect();
                format!("{bits:?}")
            }
            Event::Done { text, reason, usage: Usage { prompt_tokens, completion_tokens, .. } } => {
                format!("{text:?} {reason:?} {prompt_tokens} {completion_tokens}")
            }
            Event::Failed(reason) => panic!("{reason}"),
        });
    }
    said
}

fn submit(llm: &Llm, request: GenerateRequest) -> Generation {
    llm.submit(request).expect("taken")
}

#[test]
fn an_answer_has_the_same_bits_alone_and_in_a_crowd() {
    const REQUESTS: usize = 24;
    for family in ["llama", "gemma2", "qwen3-moe"] {
        for isa in Isa::available() {
            let alone = load(family, Settings { isa, ..settings() });
            let expected: Vec<_> = (0..REQUESTS).map(|i| answer(submit(&alone, request(i)))).collect();
            for (threads, step_tokens_max, sequences_max) in [(1, 512, 8), (2, 16, 24), (3, 512, 24)] {
                let draft_tokens_max = if threads == 2 { 0 } else { 8 };
                let draft_model = (threads == 3).then(|| fixture("qwen3"));
                let limits = Settings { step_tokens_max, sequences_max, draft_tokens_max, ..settings() };
                let crowd = load(family, Settings { isa, threads, draft_model, ..limits });
                for cache in ["cold", "warm"] {
                    let together: Vec<_> = (0..REQUESTS).map(|i| submit(&crowd, request(i))).collect();
                    for (index, generation) in together.into_iter().enumerate() {
                        let place = format!(
                            "{family}, {isa}, {threads} threads, steps of {step_tokens_max}, {cache}"
                        );
                        assert_eq!(answer(generation), expected[index], "request {index}: {place}");
                    }
                }
                assert!(crowd.stats().cached_tokens_total > 0, "a warm cache is used");
                assert_eq!(crowd.facts().fingerprint, alone.facts().fingerprint);
            }
        }
    }
}

#[test]
fn fingerprints_differ_where_bits_may() {
    let base = load("llama", settings()).facts().fingerprint.clone();
    let retold = damaged("llama", "tokenizer.json", |text| {
        let places: Vec<usize> = (5..text.len()).filter(|end| &text[end - 5..*end] == b"<pad>").collect();
        places.into_iter().for_each(|end| text[end - 4] = b'b');
    });
    let others = [
        load("llama-linear", settings()),
        load("llama", Settings { context_tokens: Some(64), ..settings() }),
        load("llama", Settings { kv_element: Some(KvElement::I8), ..settings() }),
        Llm::load(retold.path(), &settings(), &mut |_, _| {}).expect("loaded"),
    ];
    for other in &others {
        assert_ne!(other.facts().fingerprint, base);
    }
    if Isa::detect() != Isa::Portable {
        let portable = load("llama", Settings { isa: Isa::Portable, ..settings() });
        assert_ne!(portable.facts().fingerprint, base);
    }
}

/// A copy of the folder of `family` of which `change` has changed one file; of weights, what follows their header.
fn damaged(family: &str, file: &str, change: impl Fn(&mut [u8])) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for entry in std::fs::read_dir(fixture(family)).expect("fixtures") {
        let entry = entry.expect("entry");
        let mut bytes = std::fs::read(entry.path()).expect("file");
        if entry.file_name() == file {
            let weights = file.ends_with(".safetensors");
            let header = || 8 + u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) as usize;
            let start = if weights { header() } else { 0 };
            change(&mut bytes[start..]);
        }
        std::fs::write(folder.path().join(entry.file_name()), bytes).expect("written");
    }
    folder
}

#[test]
fn logits_that_are_no_numbers_fail_the_request_and_not_the_engine() {
    for bits in [f32::NAN.to_bits(), f32::INFINITY.to_bits()] {
        let folder = damaged("llama", "model.safetensors", |weights| {
            weights.as_chunks_mut::<4>().0.iter_mut().step_by(97).for_each(|w| *w = bits.to_le_bytes());
        });
        let llm = Llm::load(folder.path(), &settings(), &mut |_, _| {}).expect("loaded");
        for prompt_logprobs in [false, true] {
            let logprobs = Some(2);
            let mut generation = submit(&llm, GenerateRequest { prompt_logprobs, logprobs, ..request(1) });
            match generation.blocking_next() {
                Some(Event::Failed(reason)) => assert_eq!(reason, Failure::NotFinite),
                other => panic!("{other:?}"),
            }
            assert!(generation.blocking_next().is_none());
        }
        assert!(llm.is_alive());
    }
}

#[test]
fn files_that_are_cut_while_their_model_is_served_change_nothing() {
    // The one ties its embedding to the output, the other doesn't.
    let file = "model.safetensors";
    for family in ["llama", "llama-llama3"] {
        let folder = damaged(family, file, |_| {});
        let llm = Llm::load(folder.path(), &settings(), &mut |_, _| {}).expect("loaded");
        let before = answer(submit(&llm, request(3)));
        let cut = std::fs::File::options().write(true).open(folder.path().join(file)).expect("opened");
        cut.set_len(0).expect("cut");
        assert_eq!(answer(submit(&llm, request(3))), before, "{family}");
    }
}

#[test]
fn a_caller_that_leaves_frees_its_place_and_its_pages() {
    let llm = load("llama", Settings { sequences_max: 1, ..settings() });
    let long = GenerateRequest { prompt: vec![5; 20], tokens_max: 100, ..request(0) };
    let mut left = submit(&llm, long);
    let waiting = submit(&llm, request(2));
    assert!(matches!(left.blocking_next(), Some(Event::Token(_))));
    drop(left);
    answer(waiting);
    while llm.stats().running > 0 {
        std::thread::yield_now();
    }
    let stats = llm.stats();
    assert_eq!((stats.waiting, stats.kv_pages_used), (0, 0));
}

#[test]
fn what_the_context_leaves_bounds_an_answer() {
    let llm = load("llama", settings());
    let check = |prompt: usize, tokens_max: usize, expected: Result<(usize, FinishReason), SubmitError>| {
        let asked = GenerateRequest { prompt: vec![7; prompt], tokens_max, ..request(1) };
        let ended = llm.submit(asked).map(|mut generation| {
            loop {
                match generation.blocking_next() {
                    Some(Event::Done { reason, usage, .. }) => return (usage.completion_tokens, reason),
                    Some(Event::Failed(reason)) => panic!("{reason}"),
                    Some(_) => {}
                    None => panic!("no end"),
                }
            }
        });
        assert_eq!(ended, expected, "{prompt} and {tokens_max}");
    };
    check(100, 500, Ok((28, FinishReason::Length)));
    check(127, 5, Ok((1, FinishReason::Length)));
    check(128, 0, Ok((0, FinishReason::Length)));
    let too_long = |prompt| SubmitError::PromptTooLong { prompt, context: 128, extensible: false };
    check(128, 1, Err(too_long(128)));
    check(129, 0, Err(too_long(129)));
    check(0, 1, Err(SubmitError::EmptyPrompt));
}

#[test]
fn guessing_ahead_changes_no_answer() {
    for family in ["llama", "gemma2", "qwen3-moe"] {
        // Greedy answers of tiny models go in circles, which is what guesses need.
        let asked = |index: usize| GenerateRequest {
            tokens_max: 20 + 5 * index,
            stop: vec!["z".to_owned()],
            ..request(index)
        };
        let plain = load(family, Settings { draft_tokens_max: 0, ..settings() });
        let expected: Vec<_> = (0..12).map(|index| answer(submit(&plain, asked(index)))).collect();
        let (mut drafted, mut right) = (0, 0);
        for draft_tokens_max in [1, 8, 100] {
            let guessing = load(family, Settings { draft_tokens_max, ..settings() });
            for (index, expected) in expected.iter().enumerate() {
                assert_eq!(&answer(submit(&guessing, asked(index))), expected, "{family} {index}");
            }
            let stats = guessing.stats();
            (drafted, right) = (drafted + stats.drafted_tokens_total, right + stats.accepted_drafts_total);
            assert!(stats.steps_total < plain.stats().steps_total, "{stats:?}");
        }
        assert!(right > 0 && right < drafted, "{family}: {right} of {drafted}");
        assert_eq!(plain.stats().drafted_tokens_total, 0);
    }
}

#[test]
fn guesses_of_a_draft_model_change_no_answer() {
    const REQUESTS: usize = 10;
    // One that says the same, one that says something else, and one that says it for a mixture of experts.
    for (family, draft) in [("llama", "llama"), ("gemma2", "mistral"), ("qwen3-moe", "qwen3")] {
        let asked = |index: usize| GenerateRequest { tokens_max: 20 + 5 * index, ..request(index) };
        let plain = load(family, Settings { draft_tokens_max: 0, ..settings() });
        let expected: Vec<_> = (0..REQUESTS).map(|index| answer(submit(&plain, asked(index)))).collect();
        let draft_model = Some(fixture(draft));
        let drafting = load(family, Settings { draft_model, draft_tokens_max: 5, ..settings() });
        // Alone, then two together, which is as many as it guesses for, with their beginnings in the cache.
        for together in [1, 2] {
            for first in (0..REQUESTS).step_by(together) {
                let generations: Vec<_> =
                    (first..first + together).map(|index| submit(&drafting, asked(index))).collect();
                for (generation, index) in generations.into_iter().zip(first..) {
                    assert_eq!(answer(generation), expected[index], "{family} by {draft}: {index}");
                }
            }
        }
        let stats = drafting.stats();
        assert!(stats.model_drafted_tokens_total > 0, "{family} by {draft}: {stats:?}");
        assert!(stats.model_accepted_drafts_total > 0 || draft != family, "{stats:?}");
        assert_eq!(drafting.facts().fingerprint, plain.facts().fingerprint);
        let (with, without) = (drafting.facts().memory, plain.facts().memory);
        assert!(with.weights_bytes > without.weights_bytes && with.kv_bytes > without.kv_bytes);
    }
}

#[test]
fn a_draft_model_of_another_tokeniser_is_refused() {
    let other = damaged("llama", "tokenizer.json", |text| {
        let places: Vec<usize> = (5..text.len()).filter(|end| &text[end - 5..*end] == b"<pad>").collect();
        places.into_iter().for_each(|end| text[end - 4] = b'b');
    });
    let refused = |path: &Path| {
        let settings = Settings { draft_model: Some(path.to_owned()), ..settings() };
        Llm::load(&fixture("llama"), &settings, &mut |_, _| {}).err().expect("refused").to_string()
    };
    let error = refused(other.path());
    assert!(error.contains("\"<pad>\" in the served model and \"<bad>\" in the draft model"), "{error}");
    assert!(error.contains("choose another --draft-model"), "{error}");
    let error = refused(Path::new("/no/such/draft.gguf"));
    assert!(error.starts_with("the draft model: ") && error.contains("/no/such/draft.gguf"), "{error}");
}
