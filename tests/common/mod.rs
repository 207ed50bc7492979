//! The real program, for tests: a server, and commands that speak to it.
//!
//! **Invariant:** no process outlives the value that stands for it.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};

/// A process that is killed when dropped.
pub(crate) struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // Where it has ended already there is nothing to kill.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    /// Waits for its end; returns the exit status, if it has one, and what it printed.
    pub(crate) fn end(mut self) -> (Option<i32>, String, String) {
        let (mut out, mut err) = (String::new(), String::new());
        drop(self.0.stdin.take());
        if let Some(stdout) = &mut self.0.stdout {
            stdout.read_to_string(&mut out).unwrap();
        }
        if let Some(stderr) = &mut self.0.stderr {
            stderr.read_to_string(&mut err).unwrap();
        }
        (self.0.wait().unwrap().code(), out, err)
    }

    /// Sends it a signal, as `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        let kill = Command::new("kill").args(["-s", name, &self.0.id().to_string()]).status();
        assert!(kill.unwrap().success(), "{name}");
    }

    /// Takes its standard output.
    pub(crate) fn stdout(&mut self) -> BufReader<ChildStdout> {
        BufReader::new(self.0.stdout.take().unwrap())
    }
}

/// Returns the program with these arguments, and nothing of this environment that it would read.
pub(crate) fn stubborn<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stubborn"));
    command.args(args).env_remove("STUBBORN_CONNECT").env_remove("STUBBORN_LOG");
    command.env("RUST_BACKTRACE", "0").stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Starts a command.
pub(crate) fn start(command: &mut Command) -> Process {
    Process(command.spawn().unwrap())
}

/// A server that is ready.
pub(crate) struct Server {
    pub(crate) process: Process,
    /// The first address that it listens on.
    pub(crate) address: String,
    /// The line that it printed when it was ready.
    pub(crate) ready: String,
}

impl Server {
    /// Starts one on a free port.
    pub(crate) fn start() -> Self {
        Self::with(&["--listen", "127.0.0.1:0"])
    }

    /// Starts one with these flags and waits until it is ready.
    pub(crate) fn with(flags: &[&str]) -> Self {
        let mut command = stubborn(["serve", "--threads", "2"].iter().chain(flags));
        if !flags.contains(&"--data") {
            command.arg("--in-memory");
        }
        // A pipe that nobody reads would stop it.
        command.stderr(Stdio::null());
        let mut process = start(&mut command);
        let mut ready = String::new();
        process.stdout().read_line(&mut ready).unwrap();
        let first = ready.split_whitespace().find_map(|word| word.strip_prefix("rpc="));
        let address = first.unwrap_or_else(|| panic!("no address in {ready:?}")).to_owned();
        Self { process, address, ready }
    }

    /// Returns the first address at which it serves HTTP.
    pub(crate) fn http(&self) -> &str {
        let first = self.ready.split_whitespace().find_map(|word| word.strip_prefix("http="));
        first.unwrap_or_else(|| panic!("no address of HTTP in {:?}", self.ready))
    }

    /// Prepares a command that speaks to it.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = stubborn(args);
        command.env("STUBBORN_CONNECT", &self.address);
        command
    }

    /// Runs a command that speaks to it; returns its exit status, output and errors.
    pub(crate) fn run(&self, args: &[&str]) -> (i32, String, String) {
        told(self.command(args).output().unwrap())
    }

    /// Sends a request that takes `ms`, and waits until it has reached its object.
    pub(crate) fn begin_to_sleep(&self, ms: &str) -> Process {
        let url = format!("http://do/sleep?ms={ms}");
        let fetch = start(&mut self.command(&["fetch", "PROBE", "sleeper", &url]));
        while self.good(&["objects", "PROBE"]).is_empty() {}
        fetch
    }

    /// As [`run`](Self::run), with a standard input.
    pub(crate) fn run_with(&self, args: &[&str], input: &[u8]) -> (i32, String, String) {
        let mut process = start(self.command(args).stdin(Stdio::piped()));
        process.0.stdin.take().unwrap().write_all(input).unwrap();
        let (status, out, err) = process.end();
        (status.unwrap(), out, err)
    }

    /// Asserts that a command succeeds; returns its output.
    pub(crate) fn good(&self, args: &[&str]) -> String {
        let (status, out, err) = self.run(args);
        assert_eq!((status, err.as_str()), (0, ""), "{args:?}");
        out
    }
}

/// Returns the exit status, the output and the errors of a command that has ended.
pub(crate) fn told(output: Output) -> (i32, String, String) {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// A folder that is removed when dropped.
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// Makes one for the test of that name.
    pub(crate) fn new(test: &str) -> Self {
        let name = format!("stubborn-{test}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// Returns the path of a file in it.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Returns where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
