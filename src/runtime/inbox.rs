//! The queue by which threads reach a shard.
//!
//! **Invariant:** first in, first out; one lock for a batch, one wake-up for a batch. Who sends
//! calls asks first whether it is full; what ends something (a close, an answer) is bounded by what it ends
//! and always taken.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::{Poll, Waker};

/// A bounded queue with one reader.
pub struct Inbox<T> {
    capacity: usize,
    /// How many items wait, for who wants to know without waiting for the lock.
    waiting: AtomicUsize,
    state: Mutex<State<T>>,
}

struct State<T> {
    items: VecDeque<T>,
    waker: Option<Waker>,
}

impl<T> Inbox<T> {
    /// Makes an inbox that is full when `capacity` items wait.
    pub fn new(capacity: usize) -> Self {
        let waiting = AtomicUsize::new(0);
        Self { capacity, waiting, state: Mutex::new(State { items: VecDeque::new(), waker: None }) }
    }

    /// Returns whether as many items wait as may, where `more` are on their way.
    pub fn is_full(&self, more: usize) -> bool {
        self.waiting.load(Ordering::Relaxed) + more >= self.capacity
    }

    /// Appends `item`, however much waits.
    pub fn post(&self, item: T) {
        self.append(|items| items.push_back(item));
    }

    /// Appends all of `batch`, and leaves it empty.
    pub fn post_all(&self, batch: &mut VecDeque<T>) {
        self.append(|items| items.append(batch));
    }

    fn append(&self, append: impl FnOnce(&mut VecDeque<T>)) {
        let waker = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            append(&mut state.items);
            self.waiting.store(state.items.len(), Ordering::Relaxed);
            state.waker.take()
        };
        waker.into_iter().for_each(Waker::wake);
    }

    /// Waits for items and moves all that wait into `batch`, which is empty.
    pub async fn drain_into(&self, batch: &mut VecDeque<T>) {
        poll_fn(|context| {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if state.items.is_empty() {
                state.waker = Some(context.waker().clone());
                return Poll::Pending;
            }
            std::mem::swap(&mut state.items, batch);
            self.waiting.store(0, Ordering::Relaxed);
            Poll::Ready(())
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "senders are other threads")]
    fn items_of_each_sender_arrive_in_order_and_none_is_lost() {
        let inbox = Arc::new(Inbox::new(usize::MAX));
        let senders: Vec<_> = (0..4u32)
            .map(|sender| {
                let inbox = inbox.clone();
                std::thread::spawn(move || {
                    for n in 0..5000u32 {
                        inbox.post((sender, n));
                    }
                })
            })
            .collect();
        let mut next = [0u32; 4];
        let mut batch = VecDeque::new();
        while next.iter().sum::<u32>() < 20_000 {
            futures::executor::block_on(inbox.drain_into(&mut batch));
            for (sender, n) in batch.drain(..) {
                assert_eq!(next[sender as usize], n);
                next[sender as usize] += 1;
            }
        }
        senders.into_iter().for_each(|sender| sender.join().unwrap());
    }

    #[test]
    fn a_batch_keeps_its_order_and_a_full_inbox_says_so() {
        let inbox = Inbox::new(3);
        inbox.post(1);
        let mut sent = VecDeque::from([2, 3]);
        assert!(!inbox.is_full(1) && inbox.is_full(2));
        inbox.post_all(&mut sent);
        assert!(sent.is_empty() && inbox.is_full(0));
        let mut batch = VecDeque::new();
        futures::executor::block_on(inbox.drain_into(&mut batch));
        assert_eq!(batch, [1, 2, 3]);
        assert!(!inbox.is_full(0));
    }
}
