//! Attacks on a server that is a process of its own: what they cost it in memory, and its other callers in
//! speed.
//!
//! The program is its own server (`serve`), so that the memory of one is never taken for that of the other.
//! Only memory and correctness are asserted; speed is printed, because this machine is shared with the
//! attacker. `STUBBORN_SOAK=1` makes every attack ten times as large. An argument chooses by name.

// So that lints know all of this for tests, helpers included.
#![cfg(test)]

#[path = "attacks/beside.rs"]
mod beside;
#[path = "attacks/cases.rs"]
mod cases;
#[path = "attacks/large.rs"]
mod large;
#[path = "attacks/process.rs"]
mod process;
#[expect(dead_code, reason = "shared with tests/it, which uses all of it")]
#[path = "it/support/mod.rs"]
mod support;

use cases::{Attack, CASES};
use process::{Process, peak_kib, resident_kib};

#[expect(clippy::disallowed_methods, reason = "a test without a harness reads its own arguments")]
fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let soak = std::env::var("STUBBORN_SOAK").is_ok();
    match arguments.first().map(String::as_str) {
        Some("serve") => process::serve(),
        Some("attack") => attack(&arguments[1..], if soak { 10 } else { 1 }),
        Some("--list") => {}
        _ => process::relaunch("attack", &arguments),
    }
}

/// Runs the attacks whose names contain one of `wanted`; all where there is none.
fn attack(wanted: &[String], scale: u32) {
    let wanted: Vec<_> = wanted.iter().filter(|one| !one.starts_with('-')).collect();
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|one| name.contains(*one));
    println!(
        "{:<36} {:>7} {:>7} {:>7} {:>6} {:>8} {:>6} {:>10} {:>7}",
        "attack (memory in MiB)",
        "before",
        "peak",
        "after",
        "bound",
        "calls/s",
        "ratio",
        "slowest ms",
        "took s"
    );
    let mut over = Vec::new();
    for case in CASES.iter().filter(|case| is_wanted(case.name)) {
        support::run(async { over.extend(run(case, scale).await) });
    }
    if is_wanted("large bodies") {
        support::run(async { over.extend(large::run().await) });
    }
    assert!(over.is_empty(), "beyond their bounds:\n{}", over.join("\n"));
}

/// Runs one attack against a server of its own; returns a complaint where memory is not bounded.
async fn run(case: &Attack, scale: u32) -> Option<String> {
    let server = Process::start();
    let mut beside = beside::Caller::start(&server.address);
    beside.rounds(4).await;
    let before_speed = beside.rounds(8).await;
    let before = resident_kib(server.id());
    server.forget_peak();
    beside.take_slowest();
    let since = beside.mark();
    let begun = tokio::time::Instant::now();
    let held = (case.run)(server.address.clone(), scale).await;
    beside.rounds(2).await;
    let during_speed = beside.speed_since(since);
    let (slowest, took) = (beside.take_slowest(), begun.elapsed().as_secs_f64());
    let peak = peak_kib(server.id());
    let count = held.connections;
    drop(held);
    beside.rounds(2).await;
    let after = resident_kib(server.id());
    beside.stop();
    let mib = |kib: u64| kib as f64 / 1024.0;
    let bound = case.mib_max;
    println!(
        "{:<36} {:>7.1} {:>7.1} {:>7.1} {bound:>6} {before_speed:>8.0} {:>6.2} {slowest:>10.1} {took:>7.1}",
        case.name,
        mib(before),
        mib(peak),
        mib(after),
        during_speed / before_speed
    );
    if count > 1000 {
        println!(
            "    {:.1} KiB for each of {count} connections",
            (peak - before) as f64 / f64::from(count)
        );
    }
    let grown = mib(peak.saturating_sub(before));
    (scale == 1 && grown > f64::from(bound))
        .then(|| format!("{}: {grown:.1} MiB, of at most {bound}", case.name))
}
