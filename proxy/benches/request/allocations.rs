//! Counts what threads allocate, but for those that say that they are no part of it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

use criterion::Throughput;
use criterion::measurement::{Measurement, ValueFormatter};

thread_local! {
    /// Constant and without a destructor: looking at it allocates nothing.
    static LEFT_OUT: Cell<bool> = const { Cell::new(false) };
}

static COUNT: AtomicU64 = AtomicU64::new(0);
static SIZE: AtomicU64 = AtomicU64::new(0);

/// What this thread allocates from now on is not counted.
pub fn leave_out() {
    LEFT_OUT.set(true);
}

/// The system's allocator, watched.
pub struct Counting;

fn note(size: usize) {
    if !LEFT_OUT.try_with(Cell::get).unwrap_or(true) {
        COUNT.fetch_add(1, Ordering::Relaxed);
        SIZE.fetch_add(size as u64, Ordering::Relaxed);
    }
}

// SAFETY: every call is handed to the system's allocator as it is; what is noted beside it allocates nothing and cannot unwind.
#[expect(unsafe_code, reason = "an allocator is unsafe to implement; this one only counts")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size.saturating_sub(layout.size()));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Measures how often memory is asked for.
pub struct Allocations;

/// Measures how much is asked for.
pub struct Bytes;

/// A counter as a measurement.
macro_rules! counted {
    ($name:ident, $counter:ident, $unit:literal) => {
        impl Measurement for $name {
            type Intermediate = u64;
            type Value = u64;

            fn start(&self) -> u64 {
                $counter.load(Ordering::SeqCst)
            }

            fn end(&self, start: u64) -> u64 {
                $counter.load(Ordering::SeqCst) - start
            }

            fn add(&self, one: &u64, other: &u64) -> u64 {
                one + other
            }

            fn zero(&self) -> u64 {
                0
            }

            fn to_f64(&self, value: &u64) -> f64 {
                *value as f64
            }

            fn formatter(&self) -> &dyn ValueFormatter {
                &Unit($unit)
            }
        }
    };
}

counted!(Allocations, COUNT, "allocations");
counted!(Bytes, SIZE, "bytes");

struct Unit(&'static str);

impl ValueFormatter for Unit {
    fn scale_values(&self, _: f64, _: &mut [f64]) -> &'static str {
        self.0
    }

    fn scale_throughputs(&self, _: f64, _: &Throughput, _: &mut [f64]) -> &'static str {
        self.0
    }

    fn scale_for_machines(&self, _: &mut [f64]) -> &'static str {
        self.0
    }
}
