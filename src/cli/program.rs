//! From the arguments to the exit status.

use std::ffi::OsString;

use clap::{CommandFactory, Parser};
use tokio::runtime::LocalRuntime;

use super::args::{Command, CommandLine};
use super::{failure, fetch, id, listing, output, serve, storage, store};

/// Runs a command and returns the exit status. `exit` ends the process at once.
pub fn run(args: impl IntoIterator<Item = OsString>, exit: fn(i32) -> !) -> i32 {
    let line = match CommandLine::try_parse_from(args) {
        Ok(line) => line,
        Err(told) => {
            // Help is asked for with `2>&1 | head`, too.
            let _ = told.print();
            return told.exit_code();
        }
    };
    let runtime = match LocalRuntime::new() {
        Ok(runtime) => runtime,
        Err(error) => return failure::report(&error.into()),
    };
    let outcome = runtime.block_on(async {
        match line.command {
            Command::Serve(args) => serve::run(args, exit).await,
            Command::Fetch(args) => fetch::run(args).await,
            Command::Id(args) => id::run(args).await,
            Command::Namespaces(args) => listing::namespaces(args).await,
            Command::Objects(args) => listing::objects(args).await,
            Command::Storage(args) => storage::run(args).await,
            Command::Backup(args) => store::backup(args).await,
            Command::Restore(args) => store::restore(args).await,
            Command::Verify(args) => store::verify(args).await,
            Command::Bench(args) => {
                crate::bench::run(&args, &["bench"], Vec::new()).await?;
                Ok(0)
            }
            Command::Completions { shell } => completions(shell).await,
        }
    });
    // A thread may still read a standard input that nobody wants any more.
    runtime.shutdown_background();
    match outcome {
        Ok(status) => status,
        Err(error) => failure::report(&error),
    }
}

async fn completions(shell: clap_complete::Shell) -> anyhow::Result<i32> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut CommandLine::command(), "stubborn", &mut script);
    output::write(script).await?;
    Ok(0)
}
