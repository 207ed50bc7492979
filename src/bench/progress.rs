//! Tells how far a benchmark is: a bar on a terminal, a line for each repeat elsewhere.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};

/// Tells how far a benchmark is, on standard error.
pub struct Progress {
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Begins to tell of `steps` measurements.
    pub fn new(steps: usize) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {eta:>4} {msg}");
            let bar = ProgressBar::new(steps as u64);
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar
        });
        Self { bar }
    }

    /// Tells that a repeat begins.
    pub fn repeat(&self, number: u32, repeats: u32) {
        if self.bar.is_none() {
            eprintln!("repeat {number} of {repeats}");
        }
    }

    /// Tells what is measured next.
    pub fn next(&self, what: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(what.to_owned());
        }
    }

    /// Tells that it was measured.
    pub fn done(&self) {
        if let Some(bar) = &self.bar {
            bar.inc(1);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
