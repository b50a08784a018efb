//! An engine that is asked for more than it has room for: who gets it, and that nobody's answer is another for that.

#![allow(clippy::expect_used)] // a fixture that is not there fails the test

mod tight;

use std::cell::Cell;
use std::time::{Duration, Instant};

use engine::llm::Settings;
use engine::llm::request::{Event, Failure, FinishReason, GenerateRequest, Terms};

use tight::{answer, fixture, is_idle, load, load_with_pages, request, settings, wait_until};

#[test]
fn who_is_pushed_out_for_want_of_pages_says_the_same_later() {
    const REQUESTS: usize = 24;
    let mut recomputed = 0;
    for family in ["llama", "gemma2", "qwen3-moe"] {
        let roomy = load(family, &settings());
        let expected: Vec<_> =
            (0..REQUESTS).map(|index| answer(roomy.submit(request(index)).expect("taken"))).collect();
        assert_eq!(roomy.stats().preemptions_total, 0);
        for (threads, step_tokens_max, draft_tokens_max, pages) in
            [(1, 512, 8, 4), (2, 16, 0, 7), (2, 512, 8, 6)]
        {
            let draft_model = (pages == 6).then(|| fixture("qwen3"));
            let settings = Settings { threads, step_tokens_max, draft_tokens_max, draft_model, ..settings() };
            let tight = load_with_pages(family, &settings, pages);
            let place = format!("{family}, {pages} pages, steps of {step_tokens_max}");
            for round in 0..2 {
                let together: Vec<_> =
                    (0..REQUESTS).map(|index| tight.submit(request(index)).expect("taken")).collect();
                for (index, generation) in together.into_iter().enumerate() {
                    assert_eq!(
                        answer(generation),
                        expected[index],
                        "request {index}, round {round}: {place}"
                    );
                }
            }
            wait_until("idle", || is_idle(&tight));
            let (crowded, alone) = (tight.stats(), roomy.stats());
            assert!(crowded.preemptions_total > 0, "{place}: {crowded:?}");
            recomputed += crowded.recomputed_tokens_total;
            assert!(crowded.kv_pages_evicted_total > 0, "{place}");
            assert_eq!(crowded.generated_tokens_total, 2 * alone.generated_tokens_total, "{place}");
            let prompts = |stats: &engine::llm::Stats| stats.prompt_tokens_total + stats.cached_tokens_total;
            assert_eq!(prompts(&crowded), 2 * prompts(&alone), "{place}: each prompt token counts once");
            // It would go to and fro if each that came back pushed out another.
            assert!(crowded.preemptions_total < 10 * REQUESTS as u64, "{place}: {crowded:?}");
        }
    }
    assert!(recomputed > 0);
}

#[test]
fn places_are_given_by_what_is_needed_now_and_not_by_the_longest_answer() {
    let llm = load_with_pages("llama", &settings(), 10);
    // Each may fill four pages, and begins with one.
    let asked = |index| GenerateRequest { prompt: vec![index; 3], tokens_max: usize::MAX, ..request(0) };
    let running: Vec<_> = (0..8).map(|index| llm.submit(asked(index)).expect("taken")).collect();
    let most = Cell::new(0);
    wait_until("all have ended", || {
        most.set(most.get().max(llm.stats().running));
        is_idle(&llm)
    });
    assert!(most.get() > 10 / 4, "{} ran at once", most.get());
    drop(running);
}

#[test]
fn the_more_urgent_takes_the_place_of_the_less_urgent_which_goes_on_later() {
    let patient = Terms { priority: 5, ..Terms::default() };
    let long = |index: usize| GenerateRequest { tokens_max: 70, prompt_logprobs: false, ..request(index) };
    let expected: Vec<_> = {
        let llm = load("llama", &settings());
        (0..3).map(|index| answer(llm.submit(long(index)).expect("taken"))).collect()
    };
    let llm = load("llama", &Settings { sequences_max: 1, ..settings() });
    // The first may have ended before the urgent one comes.
    let pushed_out = (0..200).any(|_| {
        let mut batch = llm.submit_on(&patient, long(0)).expect("taken");
        let first = format!("{:?}", batch.blocking_next().expect("a token"));
        let behind = llm.submit_on(&patient, long(1)).expect("taken");
        let urgent = llm.submit(long(2)).expect("taken");
        assert_eq!(answer(urgent), expected[2]);
        let (rest, usage) = answer(batch);
        assert_eq!(([vec![first], rest].concat(), usage), expected[0]);
        assert_eq!(answer(behind), expected[1]);
        llm.stats().preemptions_total > 0
    });
    assert!(pushed_out, "of two hundred that came while another ran, none took its place");
}

#[test]
fn one_owner_with_many_requests_lets_another_in_between() {
    let llm = load("llama", &Settings { sequences_max: 2, ..settings() });
    let asked = || GenerateRequest { prompt: vec![9; 20], tokens_max: 100, ..request(0) };
    let terms = |owner: &str| Terms { owner: owner.into(), ..Terms::default() };
    let many: Vec<_> = (0..60).map(|_| llm.submit_on(&terms("many"), asked()).expect("taken")).collect();
    let before = llm.stats().requests_finished_total;
    answer(llm.submit_on(&terms("few"), asked()).expect("taken"));
    let between = llm.stats().requests_finished_total - before;
    assert!(between < 30, "{between} of 60 went before the one of another owner");
    drop(many);
}

#[test]
fn prompts_that_begin_alike_are_evaluated_once_though_they_come_together() {
    let asked = || GenerateRequest { prompt: (0..100).collect(), tokens_max: 4, ..request(0) };
    let first = answer(load("llama", &settings()).submit(asked()).expect("taken"));
    let llm = load("llama", &settings());
    let together: Vec<_> = (0..8).map(|_| llm.submit(asked()).expect("taken")).collect();
    let answers: Vec<_> = together.into_iter().map(answer).collect();
    assert!(answers.iter().all(|answer| *answer == first), "{answers:?}");
    let stats = llm.stats();
    // Three whole pages of it are shared; the rest each evaluates.
    assert_eq!((stats.prompt_tokens_total, stats.cached_tokens_total), (100 + 7 * 4, 7 * 96));
    assert_eq!(stats.prefix_cache_queries_total, 8 * 100);
}

#[test]
fn a_deadline_ends_an_answer_with_what_there_is_and_a_wait_with_an_error() {
    let llm = load("llama", &Settings { sequences_max: 1, ..settings() });
    let by = |time: Duration| Terms { deadline: Some(Instant::now() + time), ..Terms::default() };
    let mut late = llm.submit_on(&by(Duration::ZERO), request(0)).expect("taken");
    assert!(matches!(late.blocking_next(), Some(Event::Failed(Failure::Deadline { .. }))));
    let long = || GenerateRequest { prompt: vec![5; 4], tokens_max: 120, logprobs: None, ..request(2) };
    let started = Instant::now();
    let (whole, _) = answer(llm.submit(long()).expect("taken"));
    let third = started.elapsed() / 3;
    // Too early, and it has not begun; too late, and it has ended.
    let cut = |_| {
        let mut generation = llm.submit_on(&by(third), long()).expect("taken");
        let first = generation.blocking_next().filter(|event| matches!(event, Event::Token(_)))?;
        let (rest, usage) = answer(generation);
        let cut = rest.last()?.contains(&format!("{:?}", FinishReason::Deadline));
        cut.then(|| ([vec![format!("{first:?}")], rest].concat(), usage))
    };
    let (said, usage) = (0..50).find_map(cut).expect("of fifty answers one is cut by its deadline");
    assert!(usage.completion_tokens < 120);
    assert_eq!(said[..said.len() - 1], whole[..said.len() - 1]);
    wait_until("idle", || is_idle(&llm));
    assert!(llm.stats().requests_timed_out_total >= 2);
}
