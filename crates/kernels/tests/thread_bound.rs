//! Threads that take more memory or time than they were given stand still, and others go on. A binary of its own, for its
//! allocator.

use std::alloc::System;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kernels::thread_bound::{Bounded, bound_this_thread, unbound_this_thread};

#[global_allocator]
static ALLOCATOR: Bounded<System> = Bounded(System);

const MIB: usize = 1 << 20;

/// Whether `work`, bounded, ends or is stopped.
fn check(bytes: usize, time: Duration, work: fn(), expected_to_end: bool) {
    let stopped: &'static AtomicBool = Box::leak(Box::default());
    let thread = std::thread::spawn(move || {
        bound_this_thread(bytes, Instant::now() + time, stopped);
        work();
        unbound_this_thread();
        drop(black_box(vec![1_u8; 64 * MIB]));
    });
    while !thread.is_finished() && !stopped.load(Ordering::Acquire) {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(!stopped.load(Ordering::Acquire), expected_to_end);
    // Nothing of it binds this thread.
    drop(black_box(vec![1_u8; 64 * MIB]));
}

fn hold(bytes: usize) {
    drop(black_box(vec![1_u8; bytes]));
}

fn hold_many() {
    let mut held = Vec::with_capacity(1000);
    (0..1000).for_each(|_| held.push(black_box(vec![1_u8; 4096])));
}

fn grow() {
    let mut all = Vec::new();
    (0..1 << 19).for_each(|number: u32| all.push(black_box(number)));
}

#[test]
fn a_bounded_thread_ends_or_stands_still() {
    let long = Duration::from_secs(3600);
    check(MIB, long, || hold(MIB / 2), true);
    check(MIB, long, || hold(2 * MIB), false);
    check(MIB, long, || drop(black_box(vec![0_u8; 2 * MIB])), false);
    check(MIB, long, || drop(black_box(Vec::<u8>::with_capacity(isize::MAX as usize))), false);
    check(MIB, long, hold_many, false);
    check(MIB, long, grow, false);
    // What is given back counts no more.
    check(MIB, long, || (0..1000).for_each(|_| hold(MIB / 2)), true);
    check(
        MIB,
        Duration::from_millis(20),
        || {
            loop {
                hold(100);
            }
        },
        false,
    );
}
