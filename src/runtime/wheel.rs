//! Remembers what to look at when: one timer for all objects of a shard.
//!
//! **Invariant:** reads no clock; time is a parameter.

use std::collections::BTreeMap;

use tokio::time::Instant;

/// Items by the instant at which they are due.
pub struct Wheel<T> {
    due: BTreeMap<Instant, Vec<T>>,
}

impl<T> Default for Wheel<T> {
    fn default() -> Self {
        Self { due: BTreeMap::new() }
    }
}

impl<T> Wheel<T> {
    /// Adds `item`, to be taken at `at`.
    pub fn add(&mut self, at: Instant, item: T) {
        self.due.entry(at).or_default().push(item);
    }

    /// Takes the items that are due at `now`, the earliest first.
    pub fn take_due(&mut self, now: Instant) -> Vec<T> {
        let later = self.due.split_off(&(now + std::time::Duration::from_nanos(1)));
        std::mem::replace(&mut self.due, later).into_values().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn items_come_when_due_and_never_early() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut wheel = Wheel::default();
        for ms in [30, 10, 20, 10] {
            wheel.add(at(ms), ms);
        }
        assert!(wheel.take_due(at(9)).is_empty());
        assert_eq!(wheel.take_due(at(20)), [10, 10, 20]);
        assert_eq!(wheel.take_due(at(40)), [30]);
        assert!(wheel.take_due(at(1000)).is_empty());
    }
}
