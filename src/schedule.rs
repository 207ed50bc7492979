//! When alarms ring: which are in memory, which is next, and when a failed one is tried again.
//!
//! **Invariant:** reads no clock and starts no task; time is a parameter, in milliseconds since 1970.
//! **Invariant:** an alarm is never yielded before it is due; of those that are due, the earliest comes first.
//! **Invariant:** memory is bounded by the capacity, however many alarms there are.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::time::Duration;

/// Alarms that will ring, as far as they fit into memory: the earliest ones. The rest stays where it is stored.
#[derive(Debug)]
pub struct Window<K> {
    alarms: BTreeSet<(u64, K)>,
    due: HashMap<K, u64>,
    horizon: Horizon<K>,
    capacity: usize,
}

/// Where memory ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Horizon<K> {
    /// Nothing was loaded yet.
    Start,
    /// This alarm and all behind it are stored only.
    Before(u64, K),
    /// Every alarm is in memory.
    End,
}

impl<K: Clone + Ord + Hash> Window<K> {
    /// Makes one that holds up to `capacity` alarms.
    pub fn new(capacity: usize) -> Self {
        let (alarms, due) = Default::default();
        Self { alarms, due, horizon: Horizon::Start, capacity: capacity.max(1) }
    }

    /// Returns from where on alarms are to be loaded, where they are: nothing else is known to ring.
    pub fn to_load(&self) -> Option<Horizon<K>> {
        let known = !self.alarms.is_empty() || self.horizon == Horizon::End;
        (!known).then(|| self.horizon.clone())
    }

    /// Returns how many alarms one load may bring, one more than are kept.
    pub fn load_max(&self) -> usize {
        self.capacity + 1
    }

    /// Takes what was loaded from the horizon on, in order: all there is, or [`load_max`](Self::load_max).
    pub fn loaded(&mut self, alarms: Vec<(u64, K)>) {
        let whole = alarms.len() < self.load_max();
        self.horizon = Horizon::End;
        for (due, key) in alarms {
            self.insert(due, key);
        }
        debug_assert!(whole || self.horizon != Horizon::End, "more was loaded than is kept");
    }

    /// Notes that the alarm of `key` was set, or cleared.
    pub fn set(&mut self, key: K, due: Option<u64>) {
        if let Some(known) = self.due.remove(&key) {
            self.alarms.remove(&(known, key.clone()));
        }
        let Some(due) = due else { return };
        let inside = match &self.horizon {
            Horizon::Start => false,
            Horizon::Before(at, first) => (due, &key) < (*at, first),
            Horizon::End => true,
        };
        if inside {
            self.insert(due, key);
        }
    }

    fn insert(&mut self, due: u64, key: K) {
        if let Some(known) = self.due.insert(key.clone(), due) {
            self.alarms.remove(&(known, key.clone()));
        }
        self.alarms.insert((due, key));
        while self.alarms.len() > self.capacity
            && let Some((due, key)) = self.alarms.pop_last()
        {
            self.due.remove(&key);
            self.horizon = Horizon::Before(due, key);
        }
    }

    /// Returns when the next alarm is due, as far as is known.
    pub fn next_due(&self) -> Option<u64> {
        self.alarms.first().map(|(due, _)| *due)
    }

    /// Takes the earliest alarm that is due at `now`.
    pub fn take_due(&mut self, now: u64) -> Option<(u64, K)> {
        let (due, _) = self.alarms.first().filter(|(due, _)| *due <= now)?;
        let due = *due;
        let (_, key) = self.alarms.pop_first()?;
        self.due.remove(&key);
        Some((due, key))
    }

    /// Returns how many alarms are in memory.
    pub fn len(&self) -> usize {
        self.alarms.len()
    }

    /// Returns whether no alarm is in memory.
    pub fn is_empty(&self) -> bool {
        self.alarms.is_empty()
    }
}

/// How often an alarm was tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tries {
    /// Failures of the handler's own.
    pub counted: u32,
    /// Failures in a row that determine how long to wait.
    pub backoff: u32,
    /// Whether the last failure was ours.
    pub uncounted: bool,
}

/// Whose fault it was that an alarm's handler did not end well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The handler's: it counts.
    Counted,
    /// Ours: the alarm is tried until it is the handler's.
    Uncounted,
}

/// Counted failures after which an alarm is tried again. One more, and it is given up.
pub const RETRIES_MAX: u32 = 6;
/// How often the time to wait doubles at most.
const DOUBLINGS_MAX: u32 = 9;
const FIRST_DELAY: Duration = Duration::from_secs(2);

impl Tries {
    /// Returns how often it was tried after one more failure, and how long to wait until the next try; none
    /// where it is given up. `random` decides on the jitter.
    pub fn after(self, failure: Failure, random: u64) -> Option<(Self, Duration)> {
        let counted = self.counted + u32::from(failure == Failure::Counted);
        if counted > RETRIES_MAX {
            return None;
        }
        let fresh = failure == Failure::Counted && self.uncounted;
        let doublings = if fresh { 0 } else { self.backoff };
        let delay = FIRST_DELAY * (1 << doublings.min(DOUBLINGS_MAX));
        // Up to a quarter more, so that what failed together is not tried together.
        let jitter = delay.mul_f64((random >> 11) as f64 / (1_u64 << 53) as f64 / 4.0);
        let uncounted = failure == Failure::Uncounted;
        Some((Self { counted, backoff: doublings + 1, uncounted }, delay + jitter))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::Entropy;

    /// Plays a store of alarms and a window on it: what rings, when time passes in steps.
    struct Played {
        stored: BTreeSet<(u64, u32)>,
        window: Window<u32>,
    }

    impl Played {
        fn new(capacity: usize) -> Self {
            Self { stored: BTreeSet::new(), window: Window::new(capacity) }
        }

        fn set(&mut self, key: u32, due: Option<u64>) {
            self.stored.retain(|(_, known)| *known != key);
            self.stored.extend(due.map(|due| (due, key)));
            self.window.set(key, due);
        }

        fn load(&mut self) {
            while let Some(horizon) = self.window.to_load() {
                let from = match horizon {
                    Horizon::Start => (0, 0),
                    Horizon::Before(due, key) => (due, key),
                    Horizon::End => unreachable!("it is all in memory"),
                };
                let rows = self.stored.range(from..).take(self.window.load_max());
                self.window.loaded(rows.copied().collect());
                if self.window.is_empty() {
                    break;
                }
            }
        }

        fn ring(&mut self, now: u64) -> Vec<(u64, u32)> {
            let mut rang = Vec::new();
            loop {
                self.load();
                let Some(one) = self.window.take_due(now) else { return rang };
                self.stored.remove(&one);
                rang.push(one);
            }
        }
    }

    #[test]
    fn alarms_ring_in_order_never_early_and_each_once() {
        let mut played = Played::new(100);
        for (key, due) in [(1, 30), (2, 10), (3, 20), (4, 10)] {
            played.set(key, Some(due));
        }
        assert!(played.ring(9).is_empty());
        assert_eq!(played.ring(10), [(10, 2), (10, 4)]);
        assert_eq!(played.window.next_due(), Some(20));
        assert_eq!(played.ring(1000), [(20, 3), (30, 1)]);
        assert!(played.ring(2000).is_empty());
    }

    #[test]
    fn a_later_setting_replaces_an_earlier_one_and_clearing_ends_it() {
        let mut played = Played::new(2);
        played.set(1, Some(10));
        played.load();
        played.set(1, Some(50));
        assert!(played.ring(49).is_empty());
        played.set(2, Some(49));
        played.set(1, None);
        assert_eq!(played.ring(100), [(49, 2)]);
    }

    #[test]
    fn any_number_of_alarms_rings_completely_and_in_order_within_the_capacity() {
        for seed in 0..50 {
            let random = Entropy::seeded(seed);
            let below = |bound: u64| random.number() % bound;
            let mut played = Played::new(1 + below(20) as usize);
            let mut now = 0;
            for _ in 0..400 {
                let key = below(100) as u32;
                played.set(key, (below(4) > 0).then(|| now + below(1000)));
                if below(4) == 0 {
                    now += below(200);
                    let due: Vec<_> =
                        played.stored.iter().copied().filter(|(due, _)| *due <= now).collect();
                    assert_eq!(played.ring(now), due, "seed {seed}");
                }
                assert!(played.window.len() <= played.window.capacity);
            }
            let rest: Vec<_> = played.stored.iter().copied().collect();
            assert_eq!(played.ring(u64::MAX), rest, "seed {seed}");
        }
    }

    fn delays(failures: &[Failure], random: u64) -> Vec<f64> {
        let mut tries = Tries::default();
        let mut delays = Vec::new();
        for failure in failures {
            let Some((next, delay)) = tries.after(*failure, random) else { break };
            tries = next;
            delays.push(delay.as_secs_f64());
        }
        delays
    }

    #[test]
    fn a_failed_alarm_is_tried_six_times_again_at_doubling_delays() {
        let failures = [Failure::Counted; 10];
        assert_eq!(delays(&failures, 0), [2.0, 4.0, 8.0, 16.0, 32.0, 64.0]);
        let longest = delays(&failures, u64::MAX);
        assert_eq!(longest.len(), 6);
        for (delay, least) in longest.iter().zip([2.0, 4.0, 8.0, 16.0, 32.0, 64.0]) {
            assert!(*delay > least * 1.249 && *delay <= least * 1.25, "{delay}");
        }
    }

    #[test]
    fn failures_that_are_ours_do_not_count_and_the_handlers_first_one_starts_anew() {
        use Failure::{Counted, Uncounted};
        let ours = [Uncounted; 12];
        let capped = [2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 1024.0, 1024.0];
        assert_eq!(delays(&ours, 0), capped);
        let mixed = [Counted, Uncounted, Uncounted, Counted, Counted];
        assert_eq!(delays(&mixed, 0), [2.0, 4.0, 8.0, 2.0, 4.0]);
        let all: Vec<_> = [Uncounted; 3].into_iter().chain([Counted; 9]).collect();
        assert_eq!(delays(&all, 0)[3..], [2.0, 4.0, 8.0, 16.0, 32.0, 64.0]);
    }
}
