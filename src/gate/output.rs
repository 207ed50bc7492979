//! The output gate: what an object says waits for what it wrote before.
//!
//! **Invariant:** what is sent leaves in the order in which it was sent.
//! **Invariant:** nothing leaves before every write that it waits for is durable, and nothing at all leaves a
//! broken gate. A broken gate never recovers.

use std::collections::VecDeque;

use crate::error::Error;

/// Holds what an object sends until the writes before it are durable. Writes are numbered from 1.
#[derive(Debug)]
pub struct OutputGate<T> {
    /// Every write up to this one is durable.
    durable: u64,
    /// What is sent waits for this write.
    locked_until: u64,
    held: VecDeque<(u64, T)>,
    broken: Option<Error>,
}

/// What became of something that was sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Sent<T> {
    /// It leaves now.
    Leaves(T),
    /// It is held until the writes before it are durable.
    Held,
    /// It never leaves, for this reason.
    Refused(T, Error),
}

impl<T> Default for OutputGate<T> {
    fn default() -> Self {
        Self { durable: 0, locked_until: 0, held: VecDeque::new(), broken: None }
    }
}

impl<T> OutputGate<T> {
    /// Has everything that is sent from now on wait for write `number`.
    pub fn lock(&mut self, number: u64) {
        self.locked_until = self.locked_until.max(number);
    }

    /// Returns whether what is sent now leaves at once.
    pub fn is_open(&self) -> bool {
        self.broken.is_none() && self.held.is_empty() && self.locked_until <= self.durable
    }

    /// Returns how much is held.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Sends something.
    pub fn send(&mut self, item: T) -> Sent<T> {
        if let Some(error) = &self.broken {
            return Sent::Refused(item, error.clone());
        }
        if self.is_open() {
            return Sent::Leaves(item);
        }
        self.held.push_back((self.locked_until, item));
        Sent::Held
    }

    /// Notes that every write up to `number` is durable.
    pub fn durable(&mut self, number: u64) {
        self.durable = self.durable.max(number);
    }

    /// Takes what may leave now, in order, one at a time.
    pub fn take_leaving(&mut self) -> Option<T> {
        let (until, _) = self.held.front()?;
        if *until > self.durable {
            return None;
        }
        self.held.pop_front().map(|(_, item)| item)
    }

    /// Breaks the gate for good, and returns what was held. The first reason counts.
    pub fn break_with(&mut self, error: &Error) -> Vec<T> {
        self.broken.get_or_insert_with(|| error.clone());
        std::mem::take(&mut self.held).into_iter().map(|(_, item)| item).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaving(gate: &mut OutputGate<u32>) -> Vec<u32> {
        std::iter::from_fn(|| gate.take_leaving()).collect()
    }

    #[test]
    fn an_open_gate_lets_everything_out_at_once() {
        let mut gate = OutputGate::default();
        assert!(gate.is_open());
        assert_eq!(gate.send(1), Sent::Leaves(1));
    }

    #[test]
    fn what_is_sent_waits_for_all_writes_before_it_and_not_for_those_behind() {
        let mut gate = OutputGate::default();
        gate.lock(1);
        assert_eq!(gate.send(1), Sent::Held);
        gate.lock(2);
        assert_eq!(gate.send(2), Sent::Held);
        assert!(leaving(&mut gate).is_empty());
        gate.durable(1);
        assert_eq!(leaving(&mut gate), [1]);
        gate.durable(2);
        assert_eq!(leaving(&mut gate), [2]);
        assert!(gate.is_open());
    }

    #[test]
    fn what_is_sent_behind_something_held_leaves_behind_it() {
        let mut gate = OutputGate::default();
        gate.lock(1);
        assert_eq!(gate.send(1), Sent::Held);
        gate.durable(1);
        // The gate has nothing to wait for, but 1 has not been taken yet.
        assert_eq!(gate.send(2), Sent::Held);
        assert_eq!(leaving(&mut gate), [1, 2]);
        assert_eq!(gate.send(3), Sent::Leaves(3));
    }

    #[test]
    fn one_durable_write_says_so_of_all_before_it() {
        let mut gate = OutputGate::default();
        for number in 1..=3 {
            gate.lock(number);
            assert_eq!(gate.send(number as u32), Sent::Held);
        }
        gate.durable(3);
        gate.durable(2);
        assert_eq!(leaving(&mut gate), [1, 2, 3]);
        assert!(gate.is_open());
    }

    #[test]
    fn a_lock_on_what_is_durable_already_holds_nothing() {
        let mut gate = OutputGate::default();
        gate.durable(5);
        gate.lock(4);
        assert_eq!(gate.send(1), Sent::Leaves(1));
    }

    #[test]
    fn a_broken_gate_gives_back_what_it_held_and_stays_broken_with_the_first_reason() {
        let mut gate = OutputGate::default();
        gate.lock(1);
        assert_eq!(gate.send(1), Sent::Held);
        assert_eq!(gate.break_with(&Error::failed("first")), [1]);
        assert!(gate.break_with(&Error::failed("second")).is_empty());
        gate.durable(1);
        assert!(leaving(&mut gate).is_empty());
        assert!(!gate.is_open());
        assert_eq!(gate.send(2), Sent::Refused(2, Error::failed("first")));
    }
}
