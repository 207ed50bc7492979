//! Tries again, where trying again is right.

use std::time::Duration;

use super::namespace::{Namespace, Target};
use super::reference::Stub;
use crate::entropy::Entropy;
use crate::error::{Error, Result};

/// When to try again, and after how long.
///
/// Only transient failures are tried again (`retryable` and not `overloaded`), each time with a new
/// stub, after a random part of a delay that doubles: exponential backoff with full jitter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Attempts in all, the first included.
    pub attempts_max: u32,
    /// The longest delay before the second attempt.
    pub delay_base: Duration,
    /// The longest delay before any attempt.
    pub delay_max: Duration,
    /// Whether it is harmless to run the request twice. Otherwise what may have reached the object's code
    /// (`delivered`) is not tried again.
    pub idempotent: bool,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts_max: 5,
            delay_base: Duration::from_millis(100),
            delay_max: Duration::from_secs(5),
            idempotent: false,
        }
    }
}

impl Retry {
    /// Returns whether `error`, the failure of attempt number `attempt` (from 1), deserves another.
    pub fn allows(&self, attempt: u32, error: &Error) -> bool {
        attempt < self.attempts_max
            && error.retryable
            && !error.overloaded
            && (self.idempotent || !error.delivered)
    }

    /// Returns the delay after attempt number `attempt` (from 1); `random` is uniform.
    pub fn delay(&self, attempt: u32, random: u64) -> Duration {
        let doubled = 2u32.saturating_pow(attempt.saturating_sub(1));
        let ceiling = self.delay_base.saturating_mul(doubled).min(self.delay_max);
        ceiling.mul_f64(random as f64 / u64::MAX as f64)
    }
}

impl Namespace {
    /// Runs `attempt` with a new stub of `target` until it succeeds or `policy` says to stop.
    ///
    /// The connection is the namespace's own: where that is lost, every attempt fails, and a new
    /// [`Client`](super::Client) is needed.
    ///
    /// # Errors
    /// The last attempt's error.
    ///
    /// # Cancel safety
    /// Dropping the future drops the attempt under way, and makes no further one.
    pub async fn retry<T>(
        &self,
        target: &Target,
        policy: &Retry,
        mut attempt: impl AsyncFnMut(Stub) -> Result<T>,
    ) -> Result<T> {
        let entropy = Entropy::system();
        let mut number = 1;
        loop {
            match attempt(self.stub(target)).await {
                Err(error) if policy.allows(number, &error) => {
                    tokio::time::sleep(policy.delay(number, entropy.number())).await;
                    number += 1;
                }
                outcome => return outcome,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_transient_and_surely_did_not_run_is_tried_again() {
        let policy = Retry::default();
        let lost = Error::disconnected("gone");
        assert!(policy.allows(1, &lost));
        assert!(!policy.allows(policy.attempts_max, &lost), "attempts are bounded");
        assert!(!policy.allows(1, &lost.clone().with_delivered(true)));
        assert!(Retry { idempotent: true, ..policy.clone() }.allows(1, &lost.with_delivered(true)));
        assert!(!policy.allows(1, &Error::overloaded("full").with_retryable(true)));
        assert!(!policy.allows(1, &Error::failed("the author's")));
    }

    #[test]
    fn delays_double_up_to_a_ceiling_and_are_jittered_from_zero() {
        let policy = Retry::default();
        let longest: Vec<_> =
            (1..9).map(|attempt| policy.delay(attempt, u64::MAX).as_millis()).collect();
        assert_eq!(longest, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(policy.delay(3, 0), Duration::ZERO);
        assert_eq!(policy.delay(u32::MAX, u64::MAX), policy.delay_max);
    }
}
