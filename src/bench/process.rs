//! The server of a subject as a process of its own, and how much CPU processes take.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::subject::Subject;
use crate::error::{Error, Result};

/// A server in a process of its own. Dropping it kills it.
pub struct Process {
    child: Child,
    address: String,
}

impl Process {
    /// Starts the server of `subject`: this program once more, with the arguments `command` and what
    /// makes it a server.
    ///
    /// # Errors
    /// *failed* where the program can't be started or does not say where it listens.
    pub fn start(subject: &dyn Subject, command: &[&str], pin: bool) -> Result<Self> {
        let mut program = Command::new(std::env::current_exe()?);
        program.args(command).args(["--serve", subject.name()]);
        if pin {
            program.arg("--pin");
        }
        let child = program.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut process = Self { child, address: String::new() };
        if let Some(out) = process.child.stdout.take() {
            BufReader::new(out).read_line(&mut process.address)?;
        }
        process.address.truncate(process.address.trim_end().len());
        if process.address.is_empty() {
            let name = subject.name();
            return Err(Error::failed(format!("the server of {name} ended before it listened")));
        }
        Ok(process)
    }

    /// Returns where it listens.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Returns its CPU time up to now, where the machine tells.
    pub fn cpu(&self) -> Option<Duration> {
        cpu(&self.child.id().to_string())
    }

    /// Ends it in order, as far as it does so within a second.
    ///
    /// # Cancel safety
    /// Dropping the future kills it.
    pub async fn stop(mut self) {
        drop(self.child.stdin.take());
        for _ in 0..100 {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns this process's CPU time up to now, where the machine tells.
pub fn own_cpu() -> Option<Duration> {
    cpu("self")
}

/// Adds up what the scheduler says of every thread, in nanoseconds. (`stat` counts in steps of 10 ms.)
fn cpu(process: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    for thread in std::fs::read_dir(format!("/proc/{process}/task")).ok()? {
        // A thread may end while it is looked at: its time is lost then.
        let Ok(text) = std::fs::read_to_string(thread.ok()?.path().join("schedstat")) else {
            continue;
        };
        total += Duration::from_nanos(text.split(' ').next()?.parse().ok()?);
    }
    Some(total)
}

/// Returns for how long the machine's cores were busy up to now, all together, where it tells.
pub fn machine_cpu() -> Option<Duration> {
    const TICK: Duration = Duration::from_millis(10);
    let text = std::fs::read_to_string("/proc/stat").ok()?;
    let ticks = text.lines().next()?.split_whitespace().skip(1).take(8);
    let ticks: Vec<u32> = ticks.map(|one| one.parse().unwrap_or(u32::MAX)).collect();
    let [user, nice, system, _idle, _waiting, irq, softirq, steal] = *ticks else { return None };
    Some(TICK * [nice, system, irq, softirq, steal].into_iter().fold(user, u32::saturating_add))
}

/// Binds this process, whose other threads start later, to one core.
///
/// # Errors
/// *failed* where the machine has no such core, *unimplemented* where it does not bind.
#[cfg(target_os = "linux")]
pub fn pin(core: usize) -> Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    set.set(core);
    rustix::thread::sched_setaffinity(None, &set)
        .map_err(|error| Error::failed(format!("can't bind to core {core}: {error}")))
}

/// Lets this process run on the first `count` cores, whatever the process that started it is bound to.
///
/// # Errors
/// *failed* where the machine has none of them.
#[cfg(target_os = "linux")]
pub fn unpin(count: usize) -> Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    (0..count).for_each(|core| set.set(core));
    rustix::thread::sched_setaffinity(None, &set)
        .map_err(|error| Error::failed(format!("can't run on {count} cores: {error}")))
}

/// Does nothing, on other machines: nothing is bound there.
#[cfg(not(target_os = "linux"))]
pub fn unpin(_count: usize) -> Result<()> {
    Ok(())
}

/// Binds this process to one core, on other machines.
///
/// # Errors
/// *unimplemented*, always.
#[cfg(not(target_os = "linux"))]
pub fn pin(core: usize) -> Result<()> {
    Err(Error::unimplemented(format!("can't bind to core {core}: that is done on Linux only")))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_told_and_the_machines_never_goes_back() {
        // Threads of other tests end meanwhile: this process's own may.
        assert!(own_cpu().is_some());
        let machine = machine_cpu().unwrap();
        assert!(machine_cpu().unwrap() >= machine);
    }
}
