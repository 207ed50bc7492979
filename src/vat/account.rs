//! The bytes of unanswered calls and of unread answers that all connections of a server share.
//!
//! **Invariant:** nothing is reserved beyond the maximum, on any number of threads. Answers are added however
//! much there is: they were asked for already.

use std::sync::atomic::{AtomicUsize, Ordering};

/// A server-wide account of queued call bytes, which connections on several threads share.
#[derive(Debug)]
pub struct Account {
    reserved: AtomicUsize,
    bytes_max: usize,
}

impl Account {
    /// Makes an empty account that holds up to `bytes_max`.
    pub fn new(bytes_max: usize) -> Self {
        Self { reserved: AtomicUsize::new(0), bytes_max }
    }

    /// Reserves `bytes` and returns whether there was room for them.
    pub fn try_reserve(&self, bytes: usize) -> bool {
        let sum = |reserved: usize| {
            reserved.checked_add(bytes).filter(|reserved| *reserved <= self.bytes_max)
        };
        self.reserved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, sum).is_ok()
    }

    /// Adds `bytes` that are there already.
    pub fn add(&self, bytes: usize) {
        self.reserved.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Gives back `bytes` that were reserved or added before.
    pub fn release(&self, bytes: usize) {
        let before = self.reserved.fetch_sub(bytes, Ordering::Relaxed);
        debug_assert!(before >= bytes, "released {bytes} of {before} reserved bytes");
    }

    /// Returns how many bytes are reserved at this moment.
    pub fn reserved(&self) -> usize {
        self.reserved.load(Ordering::Relaxed)
    }

    /// Returns how many bytes may be reserved at a time.
    pub fn bytes_max(&self) -> usize {
        self.bytes_max
    }
}
