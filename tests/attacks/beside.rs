//! A caller who means well: it calls while others attack, checks every answer, and tells how fast it was.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use stubborn::Client;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::support;
use crate::support::target::TARGET;

/// Calls of one round, and how many of them are in flight at a time.
const ROUND: u32 = 256;
const IN_FLIGHT: usize = 16;

/// Calls in a thread of its own.
pub(crate) struct Caller {
    rounds: watch::Receiver<u32>,
    stop: Arc<AtomicBool>,
    /// The longest that a call took since it was last asked for, in microseconds.
    slowest: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

/// A moment, and how many rounds were done by then.
#[derive(Clone, Copy)]
pub(crate) struct Mark {
    at: Instant,
    rounds: u32,
}

impl Caller {
    #[expect(
        clippy::disallowed_methods,
        reason = "the caller must not share the attacker's thread"
    )]
    pub(crate) fn start(address: &str) -> Self {
        let (sender, rounds) = watch::channel(0);
        let stop = Arc::new(AtomicBool::new(false));
        let slowest = Arc::new(AtomicU64::new(0));
        let (address, stopping, times) = (address.to_owned(), stop.clone(), slowest.clone());
        let thread =
            std::thread::spawn(move || support::run(call(&address, &sender, &stopping, &times)));
        Self { rounds, stop, slowest, thread: Some(thread) }
    }

    /// Waits for `count` rounds more, and returns how many calls a second they made.
    pub(crate) async fn rounds(&mut self, count: u32) -> f64 {
        let mark = self.mark();
        // A caller that failed says so in `stop`.
        let _ = self.rounds.wait_for(|rounds| *rounds >= mark.rounds + count).await;
        self.speed_since(mark)
    }

    pub(crate) fn mark(&self) -> Mark {
        Mark { at: Instant::now(), rounds: *self.rounds.borrow() }
    }

    /// Returns how many calls a second were made since `mark`.
    pub(crate) fn speed_since(&self, mark: Mark) -> f64 {
        let calls = (*self.rounds.borrow() - mark.rounds) * ROUND;
        f64::from(calls) / mark.at.elapsed().as_secs_f64()
    }

    /// Returns how many milliseconds the slowest call took since this was last asked.
    pub(crate) fn take_slowest(&self) -> f64 {
        self.slowest.swap(0, Ordering::Relaxed) as f64 / 1000.0
    }

    /// Ends the calls, and fails where one of them did.
    pub(crate) fn stop(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("it is stopped once");
        thread.join().expect("every call of a caller who means well is answered in full");
    }
}

async fn call(address: &str, rounds: &watch::Sender<u32>, stop: &AtomicBool, slowest: &AtomicU64) {
    let client = Client::connect(address).await.unwrap();
    let stubs = ["a", "b", "c"].map(|name| client.namespace(TARGET).get_by_name(name));
    let body = vec![7; 100];
    while !stop.load(Ordering::Relaxed) {
        let mut waiting = std::collections::VecDeque::new();
        for (_, stub) in (0..ROUND).zip(stubs.iter().cycle()) {
            let request = http::Request::post("http://do/echo").body(body.clone()).unwrap();
            waiting.push_back((Instant::now(), stub.fetch(request)));
            if waiting.len() == IN_FLIGHT {
                check(waiting.pop_front(), slowest).await;
            }
        }
        while !waiting.is_empty() {
            check(waiting.pop_front(), slowest).await;
        }
        rounds.send_modify(|rounds| *rounds += 1);
    }
}

async fn check(call: Option<(Instant, stubborn::stub::Fetch)>, slowest: &AtomicU64) {
    let (begun, call) = call.expect("it was pushed");
    let response = call.await.unwrap();
    slowest.fetch_max(begun.elapsed().as_micros() as u64, Ordering::Relaxed);
    assert_eq!(response.into_body().bytes().await.unwrap(), vec![7; 100]);
}
