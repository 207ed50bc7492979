//! The options of a benchmark, as its command line has them.

use std::path::PathBuf;
use std::time::Duration;

use super::load::Timing;
use super::plan::Effort;

/// The options of a benchmark.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Args {
    /// Measure a few cells, briefly: 20 seconds
    #[arg(long, conflicts_with = "full")]
    pub quick: bool,

    /// Measure every cell: many minutes
    #[arg(long)]
    pub full: bool,

    /// Write the report as JSON to FILE, too
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Bind a server of one thread to core 0, the client to core 1
    #[arg(long)]
    pub pin: bool,

    /// Measure only these subjects (same-shard, other-shard, stock, tcp)
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub subjects: Vec<String>,

    /// Measure with these numbers of connections
    #[arg(long, value_name = "N", value_delimiter = ',')]
    pub connections: Vec<usize>,

    /// Measure with these numbers of calls in flight on each connection
    #[arg(long, value_name = "N", value_delimiter = ',')]
    pub in_flight: Vec<usize>,

    /// Measure with bodies of these sizes
    #[arg(long, value_name = "BYTES", value_delimiter = ',')]
    pub body_bytes: Vec<usize>,

    /// How often every cell is measured; the median counts
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub repeats: u32,

    /// How long every subject is measured in a cell of a repeat
    #[arg(long, value_name = "SECONDS")]
    pub seconds: Option<f64>,

    /// Measure again, up to N times, while something else takes the machine's CPU
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub retries: u32,

    /// Be the server of this subject, until standard input closes
    #[arg(long, value_name = "NAME", hide = true)]
    pub serve: Option<String>,
}

impl Args {
    pub(super) fn effort(&self) -> Effort {
        match (self.quick, self.full) {
            (true, _) => Effort::Quick,
            (_, true) => Effort::Full,
            _ => Effort::Usual,
        }
    }

    pub(super) fn timing(&self) -> Timing {
        let (warm_up_ms, measured_ms) = match self.effort() {
            Effort::Quick => (100, 250),
            Effort::Usual | Effort::Full => (200, 700),
        };
        let asked = self.seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        Timing {
            warm_up: Duration::from_millis(warm_up_ms),
            measured: asked.unwrap_or(Duration::from_millis(measured_ms)),
        }
    }
}
