//! `stubborn serve`.

use std::io::IsTerminal;
use std::pin::pin;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::args::Serve;
use super::failure::REFUSED;
use super::output;
use crate::config::{Flags, Settings};
use crate::error::{Error, Result};
use crate::server::Server;

/// Runs a server until it is asked to stop. `exit` ends the process where it can't wait for its threads.
pub async fn run(args: Serve, exit: fn(i32) -> !) -> anyhow::Result<i32> {
    log_to_stderr(&args.log)?;
    let Serve { listen, http, threads, config, data, in_memory, .. } = args;
    let settings = Settings::load(Flags { config, listen, http, threads, data, in_memory })?;
    // From here on a signal is heard, however early it comes.
    let mut signals = Signals::new()?;
    allow_open_files(settings.limits.connections_max);
    let server = settings.builder()?.start().await?;
    tracing::info!("objects are stored {}", server.storage());
    warn_of_strangers(&server, &settings);
    let rpc = server.addresses().iter().map(|address| format!("rpc={address}"));
    let http = server.http_addresses().iter().map(|address| format!("http={address}"));
    let addresses: Vec<String> = rpc.chain(http).collect();
    output::write(format!("listening {}\n", addresses.join(" "))).await?;

    let first = signals.next().await;
    tracing::info!("{first}: answering the calls under way; once more stops at once");
    let limits = &settings.limits;
    let patience = limits.drain_timeout + limits.shutdown_hook_timeout + GRACE;
    // Pinned outside the `select!`: dropping it would wait for threads that may never end.
    let mut stopped = pin!(tokio::time::timeout(patience, server.stop()));
    tokio::select! {
        stopped = &mut stopped => if stopped.is_err() {
            tracing::warn!("an object does not let go of its thread: leaving it behind");
            exit(0);
        },
        again = signals.next() => {
            tracing::warn!("{again}: stopping at once");
            exit(REFUSED);
        }
    }
    tracing::info!("stopped");
    Ok(0)
}

/// Says who may do what without being asked who they are.
fn warn_of_strangers(server: &Server, settings: &Settings) {
    for address in server.addresses().iter().filter(|address| !address.is_private()) {
        tracing::warn!(%address, "other machines may reach this address, and nobody is asked who they are");
    }
    for address in server.http_addresses() {
        match (settings.asks_for_tokens(), address.is_private()) {
            (true, _) => {}
            (false, true) => tracing::info!(
                %address,
                "gateway.api_tokens is not set: whoever reaches this address may list all namespaces and objects"
            ),
            (false, false) => tracing::info!(
                %address,
                "gateway.api_tokens is not set: nobody may list namespaces and objects at this address"
            ),
        }
    }
}

fn log_to_stderr(filter: &str) -> Result<()> {
    let wrong = |error| Error::invalid_request(format!("--log {filter}: {error}"));
    let filter = EnvFilter::try_new(filter).map_err(wrong)?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    log.with_ansi(std::io::stderr().is_terminal()).init();
    Ok(())
}

/// Asks for as many open files as the connections that may be open want; says so where there are fewer.
#[cfg(target_os = "linux")]
fn allow_open_files(connections_max: usize) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    /// For all that is no connection.
    const OTHERS: u64 = 256;
    let wanted = connections_max as u64 + OTHERS;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|current| current >= wanted) {
        return;
    }
    let granted = maximum.map_or(wanted, |maximum| maximum.min(wanted));
    let raised = setrlimit(Resource::Nofile, Rlimit { current: Some(granted), maximum });
    if raised.is_err() || granted < wanted {
        tracing::warn!(
            connections_max,
            open_files = granted,
            "fewer files may be open than connections: raise `ulimit -n`, or lower connections_max"
        );
    }
}

#[cfg(not(target_os = "linux"))]
fn allow_open_files(_connections_max: usize) {}

/// The signals that ask the process to stop.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        let terminate = signal(SignalKind::terminate())?;
        Ok(Self { terminate, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the next one, and returns its name.
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// For the threads to end, after all that has a bound of its own.
const GRACE: Duration = Duration::from_secs(1);
