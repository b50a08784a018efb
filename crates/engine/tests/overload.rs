//! Far more clients than places, in a process of its own, whose memory is watched.

#![allow(clippy::expect_used)] // a fixture that is not there fails the test

mod tight;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use engine::llm::Settings;
use engine::llm::request::{SubmitError, Terms};

use tight::{answer, is_idle, load, load_with_pages, request, settings, wait_until};

/// Resident memory of this process.
fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).expect("pages") * 4096
}

/// Ten clients a place, each at it again and again for `TUREEN_OVERLOAD_SECONDS`, or for two.
#[test]
fn overload_fails_no_request_that_was_taken_and_takes_no_more_memory() {
    let seconds =
        std::env::var("TUREEN_OVERLOAD_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(2);
    let roomy = load("llama", &settings());
    let expected: Vec<_> =
        (0..24).map(|index| answer(roomy.submit(request(index)).expect("taken"))).collect();
    let llm = load_with_pages("llama", &Settings { queue_max: 16, ..settings() }, 9);
    let (taken, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let serve = |time: Duration| {
        let until = Instant::now() + time;
        std::thread::scope(|scope| {
            for client in 0..80 {
                let (llm, taken, refused, expected) = (&llm, &taken, &refused, &expected);
                scope.spawn(move || {
                    let terms = Terms {
                        owner: format!("{}", client % 5).into(),
                        priority: client % 3,
                        deadline: None,
                    };
                    for turn in (0..).take_while(|_| Instant::now() < until) {
                        let index = (client as usize * 7 + turn) % 24;
                        match llm.submit_on(&terms, request(index)) {
                            // Some hang up midway.
                            Ok(mut generation) if turn % 5 == 4 => drop(generation.blocking_next()),
                            Ok(generation) => {
                                assert_eq!(answer(generation), expected[index]);
                                taken.fetch_add(1, Ordering::Relaxed);
                            }
                            Err(SubmitError::QueueFull { .. }) => {
                                refused.fetch_add(1, Ordering::Relaxed);
                                std::thread::sleep(Duration::from_millis(2));
                            }
                            Err(error) => panic!("{error}"),
                        }
                    }
                });
            }
        });
        wait_until("idle after overload", || is_idle(&llm));
    };
    serve(Duration::from_secs(1));
    let before = resident_bytes();
    serve(Duration::from_secs(seconds));
    let grown = resident_bytes().saturating_sub(before);
    let (taken, refused) = (taken.into_inner(), refused.into_inner());
    println!(
        "{taken} taken, {refused} refused, {} pushed out, {grown} bytes more",
        llm.stats().preemptions_total
    );
    assert!(taken > 100 && refused > 100, "{taken} taken and {refused} refused");
    assert!(llm.stats().preemptions_total > 0);
    assert!(grown < 8 << 20, "{grown} bytes more than before");
    assert_eq!(answer(llm.submit(request(3)).expect("taken")), expected[3]);
}
