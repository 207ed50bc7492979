//! A closed loop of increments: so many in flight, over so many objects.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use stubborn::{Error, Result, Stub};

use super::child::Subject;

/// What one measurement found.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Sample {
    /// Commits in a second.
    pub per_s: f64,
    /// The latency that half of them are below, in microseconds.
    pub p50_us: f64,
    /// The latency that 99 of 100 are below, in microseconds.
    pub p99_us: f64,
    /// The server's CPU time of one, in microseconds; none for what is no server.
    pub cpu_us: Option<f64>,
}

impl Sample {
    /// Sums up what took `elapsed`.
    pub fn of(mut latencies_ns: Vec<u32>, elapsed: Duration) -> Self {
        latencies_ns.sort_unstable();
        Self {
            per_s: latencies_ns.len() as f64 / elapsed.as_secs_f64(),
            p50_us: percentile_us(&latencies_ns, 50),
            p99_us: percentile_us(&latencies_ns, 99),
            cpu_us: None,
        }
    }
}

/// Returns the value that `percent` of the sorted `values_ns` are not above.
pub fn percentile_us(values_ns: &[u32], percent: usize) -> f64 {
    let index = (values_ns.len() * percent).div_ceil(100).saturating_sub(1);
    values_ns.get(index).map_or(f64::NAN, |ns| f64::from(*ns) / 1e3)
}

/// Increments once, and returns the sum.
pub async fn increment(stub: &Stub) -> Result<i64> {
    let mut request = http::Request::new("");
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = http::Uri::from_static("http://do/");
    let response = stub.fetch(request).await?;
    let text = response.into_body().text().await?;
    text.parse().map_err(|_| Error::failed(format!("a counter answered {text:?}")))
}

/// Measures increments of `stubs`, those of each connection, which `server` serves.
pub async fn measure(
    stubs: &Rc<Vec<Vec<Stub>>>,
    in_flight: usize,
    server: &Subject,
    warm_up: Duration,
    lasts: Duration,
) -> Result<Sample> {
    let run = Rc::new(Run::default());
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..in_flight {
        callers.spawn_local(call(stubs.clone(), caller, run.clone()));
    }
    tokio::time::sleep(warm_up).await;
    let (start, cpu) = (Instant::now(), server.cpu());
    run.state.set(State::Counting);
    tokio::time::sleep(lasts).await;
    run.state.set(State::Stopped);
    let (elapsed, cpu) = (start.elapsed(), server.cpu().saturating_sub(cpu));
    let latencies = run.latencies_ns.take();
    let cpu_us = cpu.as_secs_f64() * 1e6 / latencies.len() as f64;
    while let Some(outcome) = callers.join_next().await {
        outcome.map_err(|error| Error::failed(format!("a caller ended: {error}")))??;
    }
    Ok(Sample { cpu_us: Some(cpu_us), ..Sample::of(latencies, elapsed) })
}

#[derive(Default)]
struct Run {
    state: Cell<State>,
    next: Cell<usize>,
    latencies_ns: RefCell<Vec<u32>>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    WarmingUp,
    Counting,
    Stopped,
}

async fn call(stubs: Rc<Vec<Vec<Stub>>>, caller: usize, run: Rc<Run>) -> Result<()> {
    let stubs = stubs.get(caller % stubs.len()).map(Vec::as_slice).unwrap_or_default();
    while run.state.get() != State::Stopped {
        let next = run.next.get();
        run.next.set(next + 1);
        let stub = stubs.get(next % stubs.len()).ok_or_else(|| Error::failed("no objects"))?;
        let begun = Instant::now();
        increment(stub).await?;
        if run.state.get() == State::Counting {
            let latency = u32::try_from(begun.elapsed().as_nanos()).unwrap_or(u32::MAX);
            run.latencies_ns.borrow_mut().push(latency);
        }
    }
    Ok(())
}
