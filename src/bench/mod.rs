//! Measures calls per second, latency and CPU, beside floors that are measured in the same run.
//!
//! Every subject is a server process of its own: this program once more, told to serve it. The client is
//! this process, on one thread, so that what a server costs is told apart from what its caller costs. All
//! subjects take turns within a repeat, and so noise of the machine hits them alike.
//!
//! **Invariant:** a subject answers with the bytes that it got; one that does not fails the run.
//! **Invariant:** a server ends with the process that started it.

mod args;
mod load;
mod plan;
mod process;
mod progress;
mod report;
mod run;
mod stock;
mod stubborn;
mod subject;
mod tcp;

pub use args::Args;
pub use plan::Cell;
pub use report::{Goal, Report, Row};
pub use run::run;
pub use subject::{Line, Subject, announce, check_echo, parent_gone};
