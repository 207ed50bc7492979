//! `cargo bench --bench storage`: durable increments beside floors of the same run, and a store of a million objects.
//!
//! Every subject is a process of its own, this program once more, with its data in one directory below `target`.
//! Syncs take longer by as much as is asked for: `tests/faults/disk.c` is built and loaded before each of these
//! processes, floors included, whether or not there is a delay.

// It measures time, starts threads for its floors, and is told by its parent what to do.
#![expect(clippy::disallowed_methods, reason = "a benchmark measures the real machine")]

mod child;
mod class;
mod commits;
mod floors;
mod load;
mod objects;
mod report;

use std::path::PathBuf;

use stubborn::Result;

/// The allocator of the program `stubborn`, for all subjects.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures what storage costs.
#[derive(clap::Parser)]
struct Options {
    #[command(subcommand)]
    part: Option<Part>,

    /// What cargo says to every benchmark
    #[arg(long = "bench", hide = true, global = true)]
    _bench: bool,
}

#[derive(clap::Subcommand)]
enum Part {
    /// Durable increments a second, beside floors
    Commits(commits::Args),
    /// Starting, listing, opening, memory and disk, with many objects
    Objects(objects::Args),
    /// Is a subject, for the process that started it
    #[command(hide = true)]
    Serve(Serve),
}

/// What a subject is told.
#[derive(clap::Args)]
pub struct Serve {
    /// Which one
    subject: String,
    /// Where its data is; none: in memory
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Threads that run objects
    #[arg(long)]
    threads: usize,
    /// Files of a new store; none: as many as usual
    #[arg(long)]
    files: Option<u32>,
}

fn main() -> Result<()> {
    let options = <Options as clap::Parser>::parse();
    let runtime = tokio::runtime::LocalRuntime::new()?;
    match options.part {
        None => {
            let args = <commits::Args as clap::Args>::augment_args(clap::Command::new("commits"));
            let matches = args.get_matches_from(["commits"]);
            let args = <commits::Args as clap::FromArgMatches>::from_arg_matches(&matches)
                .map_err(|error| stubborn::Error::failed(error.to_string()))?;
            runtime.block_on(commits::run(&args))
        }
        Some(Part::Commits(args)) => runtime.block_on(commits::run(&args)),
        Some(Part::Objects(args)) => runtime.block_on(objects::run(&args)),
        Some(Part::Serve(serve)) if serve.subject == "floors" => floors::serve(&serve),
        Some(Part::Serve(serve)) => runtime.block_on(class::serve(&serve)),
    }
}
