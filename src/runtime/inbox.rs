//! The queue by which threads reach a shard.
//!
//! **Invariant:** first in, first out; one lock for a batch, one wake-up for a batch. Calls are refused
//! where `capacity` of them wait; what ends something (a close, an answer) is bounded by what it ends and
//! always taken.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Mutex, PoisonError};
use std::task::{Poll, Waker};

/// A bounded queue with one reader.
pub struct Inbox<T> {
    capacity: usize,
    state: Mutex<State<T>>,
}

struct State<T> {
    items: VecDeque<T>,
    waker: Option<Waker>,
}

impl<T> Inbox<T> {
    /// Makes an inbox in which up to `capacity` refusable items may wait.
    pub fn new(capacity: usize) -> Self {
        Self { capacity, state: Mutex::new(State { items: VecDeque::new(), waker: None }) }
    }

    /// Appends `item`, or gives it back where too much waits.
    pub fn offer(&self, item: T) -> Result<(), T> {
        let waker = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if state.items.len() >= self.capacity {
                return Err(item);
            }
            state.items.push_back(item);
            state.waker.take()
        };
        waker.into_iter().for_each(Waker::wake);
        Ok(())
    }

    /// Appends `item`, however much waits.
    pub fn post(&self, item: T) {
        let waker = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.items.push_back(item);
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
                        inbox.offer((sender, n)).unwrap();
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
    fn a_full_inbox_refuses_offers_and_takes_posts() {
        let inbox = Inbox::new(1);
        assert_eq!(inbox.offer(1), Ok(()));
        assert_eq!(inbox.offer(2), Err(2));
        inbox.post(3);
        let mut batch = VecDeque::new();
        futures::executor::block_on(inbox.drain_into(&mut batch));
        assert_eq!(batch, [1, 3]);
    }
}
