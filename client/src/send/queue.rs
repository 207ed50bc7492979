//! The queue by which every thread reaches the one that owns the connection.
//!
//! **Invariant:** first in, first out; one lock and at most one wake-up for a batch. It is bounded by those who
//! put things in: see [`Shared`](super::shared::Shared).

use std::collections::VecDeque;
use std::future::poll_fn;
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

/// A queue with one reader.
pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
}

struct State<T> {
    items: VecDeque<T>,
    reader: Option<Waker>,
    phase: Phase,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// Nobody puts anything in any more.
    Closed,
    /// Nobody takes anything out any more.
    Ended,
}

impl<T> Queue<T> {
    pub(super) fn new() -> Self {
        let state = State { items: VecDeque::new(), reader: None, phase: Phase::Open };
        Self { state: Mutex::new(state) }
    }

    /// Appends `item`; gives it back where nobody would take it out.
    pub(super) fn post(&self, item: T) -> Result<(), T> {
        let reader = {
            let mut state = self.lock();
            if state.phase == Phase::Ended {
                return Err(item);
            }
            state.items.push_back(item);
            state.reader.take()
        };
        reader.into_iter().for_each(Waker::wake);
        Ok(())
    }

    /// Waits for items and moves all that wait into `batch`, which is empty. Leaves it so once the queue is
    /// closed and nothing is left.
    pub(super) async fn drain_into(&self, batch: &mut VecDeque<T>) {
        poll_fn(|context| {
            let mut state = self.lock();
            if state.items.is_empty() && state.phase == Phase::Open {
                state.reader = Some(context.waker().clone());
                return Poll::Pending;
            }
            mem::swap(&mut state.items, batch);
            Poll::Ready(())
        })
        .await;
    }

    /// Says that nobody puts anything in any more.
    pub(super) fn close(&self) {
        let reader = {
            let mut state = self.lock();
            if state.phase == Phase::Open {
                state.phase = Phase::Closed;
            }
            state.reader.take()
        };
        reader.into_iter().for_each(Waker::wake);
    }

    /// Says that nobody takes anything out any more, and returns what waits.
    pub(super) fn end(&self) -> VecDeque<T> {
        let mut state = self.lock();
        state.phase = Phase::Ended;
        mem::take(&mut state.items)
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use futures::executor::block_on;

    use super::*;

    #[test]
    fn what_was_put_in_before_the_close_comes_out_in_order_and_then_nothing() {
        let (queue, mut batch) = (Queue::new(), VecDeque::new());
        assert!(queue.drain_into(&mut batch).now_or_never().is_none(), "it waits while open");
        queue.post(1).unwrap();
        queue.post(2).unwrap();
        queue.close();
        block_on(queue.drain_into(&mut batch));
        assert_eq!(mem::take(&mut batch), [1, 2]);
        block_on(queue.drain_into(&mut batch));
        assert!(batch.is_empty());
    }

    #[test]
    fn a_queue_without_a_reader_gives_everything_back() {
        let queue = Queue::new();
        queue.post(1).unwrap();
        assert_eq!(queue.end(), [1]);
        queue.close();
        assert_eq!(queue.post(2), Err(2));
    }
}
