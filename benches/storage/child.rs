//! A subject as a process of its own, on a disk whose syncs may take longer.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use stubborn::{Error, Result};

/// Where everything is kept: on the disk of the build.
pub fn scratch(name: &str) -> Result<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench-storage").join(name);
    if path.exists() {
        std::fs::remove_dir_all(&path)?;
    }
    std::fs::create_dir_all(&path)?;
    Ok(path)
}

/// Builds what makes syncs take longer.
pub fn shim() -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = root.join("target/bench-storage");
    std::fs::create_dir_all(&folder)?;
    let library = folder.join("disk.so");
    let built = Command::new("gcc")
        .args(["-shared", "-fPIC", "-O2", "-o"])
        .args([library.as_path(), &root.join("tests/faults/disk.c")])
        .arg("-lpthread")
        .status()?;
    if built.success() { Ok(library) } else { Err(Error::failed("gcc can't build the slow disk")) }
}

/// How a subject is started.
pub struct Start<'a> {
    /// Which.
    pub subject: &'a str,
    /// Where its data is; none: in memory.
    pub dir: Option<&'a Path>,
    /// Threads that run objects.
    pub threads: usize,
    /// Files of a new store.
    pub files: Option<u32>,
    /// What makes syncs take longer, and by how many microseconds.
    pub slow: Option<(&'a Path, u32)>,
}

/// A subject that runs. Dropping it kills it.
pub struct Subject {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Subject {
    /// Starts one.
    pub fn start(start: &Start<'_>) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["serve", start.subject]);
        command.args(["--threads", &start.threads.to_string()]);
        if let Some(dir) = start.dir {
            command.arg("--dir").arg(dir);
            if let Some((library, us)) = start.slow {
                command.env("LD_PRELOAD", library).env("STUBBORN_DISK_DIR", dir);
                command.env("STUBBORN_DISK_SYNC_US", us.to_string());
            }
        }
        if let Some(files) = start.files {
            command.args(["--files", &files.to_string()]);
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let gone = || Error::failed("a subject has no pipe");
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().ok_or_else(gone)?);
        Ok(Self { child, input, output })
    }

    /// Reads the next line that it says.
    pub fn hear(&mut self) -> Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        if line.is_empty() {
            return Err(Error::failed("a subject ended"));
        }
        Ok(line.trim_end().to_owned())
    }

    /// Tells it something, and reads what it says to that.
    pub fn ask(&mut self, what: &str) -> Result<String> {
        if let Some(input) = &mut self.input {
            writeln!(input, "{what}")?;
        }
        self.hear()
    }

    /// Returns its CPU time up to now.
    pub fn cpu(&self) -> Duration {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.child.id()));
        let of = |thread: std::io::Result<std::fs::DirEntry>| {
            let text = std::fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
            Some(Duration::from_nanos(text.split(' ').next()?.parse().ok()?))
        };
        threads.into_iter().flatten().filter_map(of).sum()
    }

    /// Returns the bytes of memory that are its own.
    pub fn memory(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        kib.unwrap_or_default() << 10
    }

    /// Kills it, as `kill -9` does.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Ends it in order.
    pub fn stop(mut self) -> Result<()> {
        drop(self.input.take());
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        // Both fail only where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
