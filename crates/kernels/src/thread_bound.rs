//! Bounds the memory and the time of one thread, for work that others' code does on others' data and that has no bound of
//! its own: an interpreter of downloaded templates. The allocator notices, and lets such a thread sleep for ever.
//!
//! A thread can't be killed, and an allocation that fails ends the process; one that never returns stops the thread where
//! it is, with what it holds and no more. That costs at most the bound, so whoever sets one must not begin the same again.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Allocations between two looks at the clock.
const ALLOCATIONS_PER_LOOK: u32 = 1024;

/// A program's allocator, able to bound threads: `#[global_allocator] static A: Bounded<System> = Bounded(System);`.
/// Where a program has another, bounds are not kept.
pub struct Bounded<A>(pub A);

/// Bounds the calling thread: to `bytes` beyond what it has now, and to the time before `deadline` as far as it allocates.
/// A thread that goes beyond sets `stopped` and never runs again. It should hold no lock that others need.
pub fn bound_this_thread(bytes: usize, deadline: Instant, stopped: &'static AtomicBool) {
    BOUND.with(|bound| {
        bound.left_bytes.set(isize::try_from(bytes).unwrap_or(isize::MAX));
        bound.deadline.set(Some(deadline));
        bound.stopped.set(Some(stopped));
    });
}

/// Ends the bound of the calling thread.
pub fn unbound_this_thread() {
    BOUND.with(|bound| bound.stopped.set(None));
}

struct Bound {
    left_bytes: Cell<isize>,
    allocations: Cell<u32>,
    deadline: Cell<Option<Instant>>,
    /// `None` where there is no bound.
    stopped: Cell<Option<&'static AtomicBool>>,
}

// Constant and without a destructor, so that looking at it allocates nothing.
thread_local! {
    static BOUND: Bound = const {
        Bound {
            left_bytes: Cell::new(0),
            allocations: Cell::new(0),
            deadline: Cell::new(None),
            stopped: Cell::new(None),
        }
    };
}

impl Bound {
    fn charge(&self, bytes: isize) {
        let Some(stopped) = self.stopped.get() else { return };
        let left = self.left_bytes.get().saturating_sub(bytes);
        self.left_bytes.set(left);
        let allocations = self.allocations.get().wrapping_add(1);
        self.allocations.set(allocations);
        let looks = allocations.is_multiple_of(ALLOCATIONS_PER_LOOK);
        let is_late = looks && self.deadline.get().is_some_and(|deadline| Instant::now() > deadline);
        // One that panics writes to standard error, under a lock that others need, and ends anyway.
        if (left < 0 || is_late) && !std::thread::panicking() {
            stopped.store(true, Ordering::Release);
            loop {
                std::thread::sleep(Duration::from_secs(3600));
            }
        }
    }
}

/// Of a layout, whose size fits an `isize`.
fn size(layout: Layout) -> isize {
    layout.size() as isize
}

fn charge(bytes: isize) {
    BOUND.with(|bound| bound.charge(bytes));
}

// SAFETY: every call goes to the inner allocator as it came; what is done before it allocates nothing and doesn't unwind.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Bounded<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        charge(size(layout));
        // SAFETY: the caller's promises are the inner allocator's.
        unsafe { self.0.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        charge(size(layout));
        // SAFETY: the caller's promises are the inner allocator's.
        unsafe { self.0.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        charge(-size(layout));
        // SAFETY: the caller's promises are the inner allocator's.
        unsafe { self.0.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        charge((new_size as isize).saturating_sub(size(layout)));
        // SAFETY: the caller's promises are the inner allocator's.
        unsafe { self.0.realloc(pointer, layout, new_size) }
    }
}
