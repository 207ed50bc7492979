//! The beginning of a message that comes in parts.
//!
//! **Invariant:** what all WebSockets of a thread hold of messages that are not whole is bounded, however many there
//! are.

use std::cell::Cell;

/// What has come of a message.
#[derive(Debug)]
pub(super) struct Parts {
    bytes: Vec<u8>,
    thread_bytes_max: usize,
}

impl Parts {
    /// Makes an empty one. All of a thread hold at most `thread_bytes_max`.
    pub fn new(thread_bytes_max: usize) -> Self {
        Self { bytes: Vec::new(), thread_bytes_max }
    }

    /// Returns how many bytes have come.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Takes one more part; returns false, and does not take it, where the thread would hold too much.
    #[must_use]
    pub fn add(&mut self, part: &[u8]) -> bool {
        let held = HELD_BYTES.get() + part.len();
        if held > self.thread_bytes_max {
            return false;
        }
        HELD_BYTES.set(held);
        self.bytes.extend_from_slice(part);
        true
    }

    /// Takes out what has come.
    pub fn take(&mut self) -> Vec<u8> {
        // A thread that ends counts no more.
        let _ended = HELD_BYTES.try_with(|held| held.set(held.get() - self.bytes.len()));
        std::mem::take(&mut self.bytes)
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        self.take();
    }
}

thread_local! {
    static HELD_BYTES: Cell<usize> = const { Cell::new(0) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_a_thread_hold_so_much_and_what_goes_makes_room() {
        let (mut one, mut other) = (Parts::new(100), Parts::new(100));
        assert!(one.add(&[1; 60]) && !other.add(&[2; 41]) && other.add(&[2; 40]));
        assert_eq!((one.len(), other.len()), (60, 40));
        assert!(!one.add(&[1]));
        assert_eq!(other.take(), [2; 40]);
        assert!(one.add(&[1; 40]) && !other.add(&[2]));
        drop(one);
        assert!(other.add(&[2; 100]));
        std::thread::scope(|scope| scope.spawn(|| assert!(Parts::new(1).add(&[3]))).join())
            .unwrap();
    }
}
