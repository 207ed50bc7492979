//! When a thread that writes begins: at once, or a moment later with more to write.
//!
//! Whoever was told that a batch is durable often sends the next one soon, but not before the next sync would have
//! begun: with many of them half wait for the other half's sync, and each sync carries half of what it could. Where
//! syncs take longer than it takes to come back, a moment's wait is paid for many times over; where they don't, nothing
//! is won, and nobody waits.
//!
//! **Invariant:** somebody who writes alone never waits for others.
//! **Invariant:** nobody waits longer than half of a sync.

use std::time::Duration;

/// What is known of the last syncs.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// How long a sync takes, on the average.
    sync: Duration,
    /// How many batches were written with the last.
    batches: usize,
    /// How many more times it is not worth to wait.
    skipped: u32,
}

/// How long to wait for more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gather {
    /// When nothing has come for so long, nothing more is expected.
    pub quiet: Duration,
    /// How many times as long until the first comes.
    pub first: u32,
    /// At most so long.
    pub most: Duration,
}

impl Pace {
    /// Notes how many batches are written at a time.
    pub fn written(&mut self, batches: usize) {
        self.batches = batches;
    }

    /// Notes that a sync took `sync`.
    pub fn synced(&mut self, sync: Duration) {
        // One that is far longer than the others (a pause of the disk) counts little.
        let sync = sync.min(SYNC_MAX);
        self.sync = if self.sync.is_zero() { sync } else { (self.sync * 7 + sync) / 8 };
    }

    /// Notes that a wait ended while more was still coming: those who come back take longer than is worth it.
    pub fn gave_up(&mut self) {
        self.skipped = SKIPPED;
    }

    /// Returns how long to wait for more, where that is worth it. `is_waiting`: whether something came during the
    /// last sync.
    pub fn gather(&mut self, is_waiting: bool) -> Option<Gather> {
        let is_alone = self.batches <= 1 && !is_waiting;
        if is_alone || self.sync < SYNC_MIN {
            return None;
        }
        if self.skipped > 0 {
            self.skipped -= 1;
            return None;
        }
        Some(Gather { quiet: self.sync / 16, first: 4, most: self.sync / 2 })
    }
}

/// A disk that syncs faster is not worth a wait: whoever comes back takes as long.
const SYNC_MIN: Duration = Duration::from_millis(2);
/// What a sync counts at most.
const SYNC_MAX: Duration = Duration::from_millis(50);
/// How many syncs follow one another at once after a wait that was not worth it.
const SKIPPED: u32 = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_writes_alone_waits_for_nobody_and_the_others_as_long_as_their_disk_is_slow() {
        let ms = Duration::from_millis;
        let mut pace = Pace::default();
        assert_eq!(pace.gather(true), None, "nothing is known");
        pace.written(1);
        pace.synced(ms(8));
        assert_eq!(pace.gather(false), None);
        let gather = Some(Gather { quiet: ms(8) / 16, first: 4, most: ms(4) });
        assert_eq!(pace.gather(true), gather);
        pace.written(2);
        assert_eq!(pace.gather(false), gather);
        pace.gave_up();
        for _ in 0..SKIPPED {
            assert_eq!(pace.gather(true), None, "the last wait was in vain");
        }
        assert_eq!(pace.gather(true), gather, "it may be otherwise by now");
        for _ in 0..64 {
            pace.synced(ms(8) / 100);
        }
        assert_eq!(pace.gather(true), None, "a fast disk");
    }
}
