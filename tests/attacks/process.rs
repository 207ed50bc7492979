//! The server as a process of its own, and what the system says of its memory.

use std::io::{BufRead, BufReader, Read};
use std::num::NonZeroUsize;
use std::process::{Child, Command, Stdio};

use stubborn::demo_capnp::probe;
use stubborn::{Class, Server};

use crate::support;
use crate::support::target::{Aim, TARGET};

/// The namespace of the same objects with a typed interface.
pub(crate) const TYPED_TARGET: &str = "TYPED_TARGET";
/// The threads of the server.
pub(crate) const THREADS: usize = 2;

/// A server in a process of its own, which ends with this.
pub(crate) struct Process {
    child: Child,
    pub(crate) address: String,
}

impl Process {
    pub(crate) fn start() -> Self {
        let program = std::env::current_exe().unwrap();
        let mut command = Command::new(program);
        command.arg("serve").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut address = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut address).unwrap();
        Self { child, address: address.trim().to_owned() }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Has the peak of its memory counted from now on.
    pub(crate) fn forget_peak(&self) {
        forget_peak(self.id());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Has the peak of a process's memory counted from now on.
pub(crate) fn forget_peak(process: u32) {
    std::fs::write(format!("/proc/{process}/clear_refs"), "5").unwrap();
}

/// Returns how much memory a process has at this moment.
pub(crate) fn resident_kib(process: u32) -> u64 {
    status(process, "VmRSS:")
}

/// Returns how much it had at most since the peak was forgotten.
pub(crate) fn peak_kib(process: u32) -> u64 {
    status(process, "VmHWM:")
}

fn status(process: u32, key: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))
        .expect("the server lives, whatever was done to it");
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    line.and_then(|line| line.split_whitespace().next()).and_then(|kib| kib.parse().ok()).unwrap()
}

/// Serves until standard input ends.
pub(crate) fn serve() {
    support::run(async {
        let server = Server::builder()
            .namespace::<Aim>(TARGET)
            .class(TYPED_TARGET, Class::typed::<Aim, probe::Client>(), TYPED_TARGET)
            .threads(NonZeroUsize::new(THREADS).unwrap())
            .listen("127.0.0.1:0")
            .unwrap();
        let server = server.start().await.unwrap();
        println!("{}", server.addresses()[0]);
        let over = tokio::task::spawn_blocking(|| std::io::stdin().read(&mut [0]));
        drop(over.await);
    });
}

/// Runs this program again in `role`, with as many file descriptors as the system lets it have.
pub(crate) fn relaunch(role: &str, arguments: &[String]) {
    let script = "ulimit -n $(ulimit -Hn); exec \"$0\" \"$@\"";
    let mut command = Command::new("sh");
    command.arg("-c").arg(script).arg(std::env::current_exe().unwrap()).arg(role).args(arguments);
    let status = command.status().unwrap();
    assert!(status.success(), "{status}");
}
