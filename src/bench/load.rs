//! A closed loop: so many calls in flight, each followed by the next.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::plan;
use super::process::{Process, machine_cpu, own_cpu};
use super::subject::{Line, Subject};
use crate::clock::Clock;
use crate::error::{Error, Result};

/// How long a subject is measured.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// How long it is called before.
    pub warm_up: Duration,
    /// How long it is measured then.
    pub measured: Duration,
}

/// What one measurement found. What the machine does not tell is *not a number*.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Calls answered in a second.
    pub calls_per_s: f64,
    /// The latency that half of the calls are below, in microseconds.
    pub p50_us: f64,
    /// The latency that 99 of 100 calls are below, in microseconds.
    pub p99_us: f64,
    /// The server's CPU time of one call, in microseconds.
    pub server_us: f64,
    /// The client's CPU time of one call, in microseconds.
    pub client_us: f64,
    /// How many cores were busy with something else.
    pub foreign_cores: f64,
}

/// Measures `subject`, served by `server`, in `cell`.
///
/// # Errors
/// The first error of any call.
///
/// # Cancel safety
/// Dropping the future ends the calls.
pub async fn measure(
    subject: &dyn Subject,
    server: &Process,
    cell: plan::Cell,
    timing: Timing,
) -> Result<Sample> {
    let payload = Bytes::from(vec![0x5a; cell.body_bytes]);
    let tally = Rc::new(Tally::default());
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..cell.connections {
        let line = subject.connect(server.address()).await?;
        // The next connection is made when this one is in use: they arrive in order.
        line.call(&payload).await?;
        for _ in 0..cell.in_flight {
            callers.spawn_local(call_on(line.clone(), payload.clone(), tally.clone()));
        }
    }
    tokio::time::sleep(timing.warm_up).await;
    tally.state.set(State::Counting);
    let before = Reading::take(server, &tally);
    tokio::time::sleep(timing.measured).await;
    let after = Reading::take(server, &tally);
    tally.state.set(State::Stopped);
    while let Some(outcome) = callers.join_next().await {
        outcome.map_err(|error| Error::failed(format!("a caller ended: {error}")))??;
    }
    Ok(sample(&before, &after, &mut tally.latencies_ns.borrow_mut()))
}

/// What the callers of one measurement share.
#[derive(Default)]
struct Tally {
    state: Cell<State>,
    calls: Cell<u64>,
    latencies_ns: RefCell<Vec<u32>>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    WarmingUp,
    Counting,
    Stopped,
}

async fn call_on(line: Rc<dyn Line>, payload: Bytes, tally: Rc<Tally>) -> Result<()> {
    let clock = Clock::system();
    let mut begun = clock.now();
    while tally.state.get() != State::Stopped {
        line.call(&payload).await?;
        let ended = clock.now();
        if tally.state.get() == State::Counting {
            tally.calls.set(tally.calls.get() + 1);
            // Four seconds and more are all the same.
            let latency = u32::try_from((ended - begun).as_nanos()).unwrap_or(u32::MAX);
            tally.latencies_ns.borrow_mut().push(latency);
        }
        begun = ended;
    }
    Ok(())
}

/// All meters at one moment.
struct Reading {
    at: Instant,
    calls: u64,
    server: Option<Duration>,
    client: Option<Duration>,
    machine: Option<Duration>,
}

impl Reading {
    fn take(server: &Process, tally: &Tally) -> Self {
        Self {
            at: Clock::system().now(),
            calls: tally.calls.get(),
            server: server.cpu(),
            client: own_cpu(),
            machine: machine_cpu(),
        }
    }
}

fn sample(before: &Reading, after: &Reading, latencies_ns: &mut [u32]) -> Sample {
    let passed = |meter: fn(&Reading) -> Option<Duration>| match (meter(before), meter(after)) {
        (Some(before), Some(after)) => after.saturating_sub(before).as_secs_f64(),
        _ => f64::NAN,
    };
    let (server, client) = (passed(|one| one.server), passed(|one| one.client));
    let machine = passed(|one| one.machine);
    let elapsed = (after.at - before.at).as_secs_f64();
    let calls = (after.calls - before.calls) as f64;
    latencies_ns.sort_unstable();
    Sample {
        calls_per_s: calls / elapsed,
        p50_us: percentile_us(latencies_ns, 50),
        p99_us: percentile_us(latencies_ns, 99),
        server_us: server * 1e6 / calls,
        client_us: client * 1e6 / calls,
        foreign_cores: (machine - server - client) / elapsed,
    }
}

/// Returns the value that `percent` of the sorted `values_ns` are below.
fn percentile_us(values_ns: &[u32], percent: usize) -> f64 {
    let index = (values_ns.len() * percent).div_ceil(100).saturating_sub(1);
    values_ns.get(index).map_or(f64::NAN, |ns| f64::from(*ns) / 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_the_value_that_so_many_are_not_above() {
        let values: Vec<u32> = (1..=200).map(|n| n * 1000).collect();
        for (percent, us) in [(0, 1.0), (50, 100.0), (99, 198.0), (100, 200.0)] {
            assert_eq!(percentile_us(&values, percent), us, "{percent}");
        }
        assert_eq!(percentile_us(&[7_000], 50), 7.0);
        assert!(percentile_us(&[], 50).is_nan());
    }
}
