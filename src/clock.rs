//! Where time enters.
//!
//! Two times, for two uses. *How long* is measured on the runtime's own clock, which a test pauses and
//! moves. *When* is milliseconds since 1970, which outlive the process and may jump.
//!
//! **Invariant:** nothing else reads the wall clock. The machines (gates, schedules) take times as parameters.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// Reads the time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    wall: Wall,
}

#[derive(Clone, Copy, Debug)]
enum Wall {
    System,
    Driven { start: Instant, start_unix_ms: u64 },
}

impl Clock {
    /// Makes one that reads the machine's clocks.
    pub const fn system() -> Self {
        Self { wall: Wall::System }
    }

    /// Makes one whose wall clock shows `unix_ms` and from then on follows the runtime's clock.
    ///
    /// For tests: with the runtime's time paused, moving that time moves both.
    pub fn starting_at(unix_ms: u64) -> Self {
        Self { wall: Wall::Driven { start: monotonic(), start_unix_ms: unix_ms } }
    }

    /// Returns an instant that never goes back, for measuring how long.
    pub fn now(&self) -> Instant {
        monotonic()
    }

    /// Returns the milliseconds since 1970, for saying when. May jump as the machine's clock is set.
    pub fn unix_ms(&self) -> u64 {
        match self.wall {
            Wall::System => since_1970_ms(),
            Wall::Driven { start, start_unix_ms } => {
                start_unix_ms.saturating_add(whole_ms(self.now().duration_since(start)))
            }
        }
    }
}

fn monotonic() -> Instant {
    Instant::now()
}

/// Reads the wall clock; zero on a machine that believes to be before 1970.
#[expect(clippy::disallowed_methods, reason = "time enters here")]
fn since_1970_ms() -> u64 {
    whole_ms(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn whole_ms(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_driven_clock_moves_with_the_paused_time_and_only_then() {
        let clock = Clock::starting_at(1_000);
        let start = clock.now();
        assert_eq!((clock.unix_ms(), clock.now()), (1_000, start));
        tokio::time::advance(Duration::from_millis(2_500)).await;
        assert_eq!(clock.unix_ms(), 3_500);
        assert_eq!(clock.now() - start, Duration::from_millis(2_500));
    }

    #[test]
    fn the_system_clock_tells_a_time_of_this_century_without_a_runtime() {
        let clock = Clock::system();
        let start = clock.now();
        assert!(clock.unix_ms() > 946_684_800_000);
        assert!(clock.now() >= start);
    }
}
