//! The server as a process of its own, on a disk that may fail it.

use std::io::{BufRead, BufReader, Read};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use stubborn::demo_capnp::probe;
use stubborn::{Class, Client, Server};
use tokio::time::Instant;

use crate::ledger::{LEDGER, Ledger};
use crate::shim::shim;
use crate::support;
use crate::support::keeper::{KEEPER, Keeper};

/// What the disk does when the server is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Disk {
    /// It keeps what the system took.
    Honest,
    /// It keeps what was synced, and some sectors of what was not.
    LosesPower,
}

/// A server in a process of its own, which ends with this.
pub(crate) struct Process {
    child: Child,
    pub(crate) address: String,
    /// How long it took from the start until it listened.
    pub(crate) took: Duration,
}

impl Process {
    pub(crate) fn start(folder: &Folder, disk: Disk, seed: u64) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg("serve").arg(folder.data()).stdin(Stdio::piped()).stdout(Stdio::piped());
        command.env("LD_PRELOAD", shim()).env("STUBBORN_DISK_DIR", folder.data());
        command.env("STUBBORN_DISK_FAULT", folder.fault());
        if disk == Disk::LosesPower {
            let tear = [0, 20, 50, 97][(seed % 4) as usize].to_string();
            command.env("STUBBORN_DISK_MIRROR", folder.mirror()).env("STUBBORN_DISK_TEAR", tear);
            command.env("STUBBORN_DISK_SEED", (seed + 1).to_string());
        }
        let begun = Instant::now();
        let mut child = command.spawn().unwrap();
        let mut address = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut address).unwrap();
        let took = begun.elapsed();
        Self { child, address: address.trim().to_owned(), took }
    }

    pub(crate) async fn connect(&self) -> Client {
        Client::connect(&self.address).await.expect("it listens")
    }

    /// Ends it as `kill -9` does.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Where a server stores, and what its disk would hold; removed when dropped.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        let name = format!("durability-{name}-{}", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        drop(std::fs::remove_dir_all(&path));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn data(&self) -> PathBuf {
        self.0.join("data")
    }

    fn mirror(&self) -> PathBuf {
        self.0.join("mirror")
    }

    fn fault(&self) -> PathBuf {
        self.0.join("fault")
    }

    /// Has the disk do this from now on; nothing where it is empty.
    pub(crate) fn disk_does(&self, what: &str) {
        std::fs::write(self.fault(), what).unwrap();
    }

    /// Makes what the disk held at the power cut the data of the next start.
    pub(crate) fn lose_power(&self) {
        std::fs::remove_dir_all(self.mirror().join(".inodes")).unwrap();
        std::fs::remove_dir_all(self.data()).unwrap();
        std::fs::rename(self.mirror(), self.data()).unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

/// Serves until standard input ends.
pub(crate) fn serve(data: &str) {
    support::run(async {
        let server = Server::builder()
            .namespace::<Ledger>(LEDGER)
            .class(KEEPER, Class::typed::<Keeper, probe::Client>(), KEEPER)
            .threads(NonZeroUsize::new(2).unwrap())
            .data(data)
            .listen("127.0.0.1:0")
            .unwrap();
        let server = server.start().await.unwrap();
        println!("{}", server.addresses()[0]);
        let over = tokio::task::spawn_blocking(|| std::io::stdin().read(&mut [0]));
        drop(over.await);
    });
}
