//! How far a long transfer has come, on standard error where that is a terminal.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::Once;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::Instant;

use crate::clock::Clock;

/// How far one transfer has come. Shown once it takes over a second; gone when dropped.
#[derive(Clone)]
pub struct Progress {
    bar: ProgressBar,
    clock: Clock,
    start: Instant,
    shown: Arc<Once>,
}

impl Progress {
    /// Begins a transfer of `length` bytes, where that is known.
    pub fn new(what: &'static str, length: Option<u64>) -> Self {
        let bar = ProgressBar::with_draw_target(length, ProgressDrawTarget::hidden());
        let style = match length {
            Some(_) => "{msg} {bytes}/{total_bytes} {wide_bar} {bytes_per_sec} {eta}",
            None => "{msg} {bytes} {bytes_per_sec}",
        };
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style);
        }
        bar.set_message(what);
        let clock = Clock::system();
        Self { bar, clock, start: clock.now(), shown: Arc::new(Once::new()) }
    }

    /// Says that `bytes` more were moved.
    pub fn advance(&self, bytes: usize) {
        if std::io::stderr().is_terminal() && self.clock.now() - self.start > SHOWN_AFTER {
            self.shown.call_once(|| self.bar.set_draw_target(ProgressDrawTarget::stderr()));
        }
        self.bar.inc(bytes as u64);
    }

    /// Takes the display away.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// What is done sooner needs no display.
const SHOWN_AFTER: Duration = Duration::from_secs(1);
