//! A store on disk, in a real process, on disks that lose power, fill up or fail: `tests/faults/disk.c`.
//!
//! Each test runs this program again, as the process that owns the store, and looks at what a disk would hold.

#![cfg(test)]
#![cfg(all(target_os = "linux", feature = "server"))]

#[path = "disk/child.rs"]
mod child;
#[path = "disk/shim.rs"]
mod shim;

use std::io::{BufRead as _, BufReader, Lines};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use child::{rows_of, written};
use shim::shim;
use stubborn::storage::sqlite::verify;

/// Acknowledged batches that a process gets through before its disk loses power.
const BATCHES: u64 = 300;

#[test]
fn what_was_told_to_be_durable_survives_a_power_cut() {
    for (seed, tear) in [(1, 0), (2, 50), (3, 97), (4, 20)] {
        let run = Run::start(
            "honest",
            &[("STUBBORN_DISK_SEED", &seed.to_string()), ("STUBBORN_DISK_TEAR", &tear.to_string())],
        );
        let (told, kept) = run.cut_power(BATCHES);
        assert!(kept >= told, "seed {seed}, tear {tear}: {told} were told of, {kept} are there");
    }
}

/// The control: if this failed, the test above would prove nothing.
#[test]
fn a_process_that_tells_before_it_syncs_is_found_out() {
    let run = Run::start("hasty", &[("STUBBORN_DISK_SYNC_US", "20000")]);
    let (told, kept) = run.cut_power(BATCHES);
    assert!(kept < told, "{told} were told of too early, and {kept} are there");
}

#[test]
fn a_full_or_failing_disk_fails_batches_in_words_and_works_again_after_it() {
    for (fault, words) in [("enospc", "the disk is full"), ("eio", "I/O error on")] {
        let mut run = Run::start("honest", &[]);
        run.read_until(|line| line == "durable 20");
        std::fs::write(&run.fault, fault).unwrap();
        let failed = run.read_until(|line| line.starts_with("failed"));
        assert!(failed.contains(words) && failed.contains("store-01.db"), "{fault}: {failed}");
        std::fs::write(&run.fault, "").unwrap();
        // The child goes on with a new session, from what the store has.
        run.read_until(|line| line.starts_with("again"));
        let (told, kept) = run.cut_power(50);
        assert!(kept >= told, "{fault}: {told} were told of, {kept} are there");
    }
}

/// A commit whose sync failed lay in the log as a whole, and the next start would have counted it.
#[test]
fn a_batch_that_was_told_to_have_failed_is_not_there_after_a_crash() {
    let mut run = Run::start("honest", &[]);
    run.read_until(|line| line == "durable 20");
    std::fs::write(&run.fault, "eio").unwrap();
    run.read_until(|line| line.starts_with("failed"));
    run.kill();
    assert_eq!(written(&run.scratch.join("data")), run.told);
    std::fs::remove_dir_all(&run.scratch).unwrap();
}

/// A kernel says once that pages did not reach the disk; who syncs again hears nothing, and the log was begun anew.
#[test]
fn what_was_told_to_be_durable_survives_a_sync_of_its_file_that_failed() {
    // Nothing is torn: what a sync did not bring to the disk is not there.
    let mut run = Run::start("honest", &[("STUBBORN_DISK_TEAR", "0")]);
    run.read_until(|line| line == "durable 20");
    std::fs::write(&run.fault, "db-eio").unwrap();
    // Several logs long: somebody who goes on brings the log into the file again and again.
    let said = run.read_until(|line| line.starts_with("failed") || line == "durable 6000");
    let (told, kept) = run.cut_power(0);
    assert!(kept >= told, "{told} were told of, {kept} are there");
    assert!(said.contains("restart the server") && said.contains("store-01.db"), "{said}");
}

#[test]
fn a_log_stays_bounded_and_what_was_durable_survives_a_power_cut_after_it_began_anew() {
    let mut run = Run::start("honest", &[("STUBBORN_DISK_TEAR", "0")]);
    run.read_until(|line| line == "durable 4000");
    let log = run.scratch.join("data/store-01.db-wal").metadata().unwrap().len();
    let rows = run.scratch.join("data/store-01.db").metadata().unwrap().len();
    assert!(log < 64 << 20, "a log of {log} bytes beside a file of {rows}");
    assert!(rows > 16 << 20, "a file of {rows} bytes beside a log of {log}");
    let (told, kept) = run.cut_power(10);
    assert!(kept >= told, "{told} were told of, {kept} are there");
}

#[test]
fn a_sync_that_hangs_holds_back_the_answer_and_nothing_else() {
    let mut run = Run::start("honest", &[]);
    run.read_until(|line| line == "durable 20");
    std::fs::write(&run.fault, "hang").unwrap();
    run.read_until(|line| line.starts_with("still reads"));
    std::fs::write(&run.fault, "").unwrap();
    let (told, kept) = run.cut_power(50);
    assert!(kept >= told, "{told} were told of, {kept} are there");
}

/// A process with a store on a disk that can lose power.
struct Run {
    scratch: PathBuf,
    fault: PathBuf,
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    told: u64,
}

impl Run {
    fn start(mode: &str, env: &[(&str, &str)]) -> Self {
        let name = format!("disk-{}-{mode}-{}", std::process::id(), unique());
        let scratch = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        drop(std::fs::remove_dir_all(&scratch));
        std::fs::create_dir_all(&scratch).unwrap();
        let (data, fault) = (scratch.join("data"), scratch.join("fault"));
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child::owns_the_store", "--nocapture"])
            .env(child::MODE, mode)
            .env(child::DATA, &data)
            .env("LD_PRELOAD", shim())
            .env("STUBBORN_DISK_DIR", &data)
            .env("STUBBORN_DISK_MIRROR", scratch.join("mirror"))
            .env("STUBBORN_DISK_FAULT", &fault)
            .envs(env.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { scratch, fault, child, lines, told: 0 }
    }

    /// Reads what the child says until `wanted`, and returns that line.
    fn read_until(&mut self, wanted: impl Fn(&str) -> bool) -> String {
        loop {
            let line = self.lines.next().expect("the child goes on").unwrap();
            if let Some(told) = line.strip_prefix("durable ") {
                self.told = told.parse().unwrap();
            }
            if wanted(&line) {
                return line;
            }
        }
    }

    /// Kills the process, and hears what it has said.
    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        for line in self.lines.by_ref().map_while(Result::ok) {
            if let Some(told) = line.strip_prefix("durable ") {
                self.told = told.parse().unwrap_or(self.told);
            }
        }
    }

    /// Cuts the power after `more` batches, and returns how many were told to be durable and how many are.
    fn cut_power(mut self, more: u64) -> (u64, u64) {
        let last = self.told + more;
        if more > 0 {
            self.read_until(|line| {
                let told = line.strip_prefix("durable ").map(|told| told.parse::<u64>().unwrap());
                told.is_some_and(|told| told >= last)
            });
        }
        self.kill();
        let mirror = self.scratch.join("mirror");
        std::fs::remove_dir_all(mirror.join(".inodes")).unwrap();
        let kept = written(&mirror);
        assert_eq!(
            rows_of(&mirror),
            kept,
            "all batches before the last are there, each as a whole"
        );
        assert_eq!(verify(&mirror), Ok(Vec::new()));
        std::fs::remove_dir_all(&self.scratch).unwrap();
        (self.told, kept)
    }
}

fn unique() -> u64 {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}
