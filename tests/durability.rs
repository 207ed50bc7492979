//! What was acknowledged is there after kill -9 and after a power cut, and what a failing disk did not take was
//! never seen: a server that is a process of its own, on a data directory.
//!
//! The program is its own server (`serve`). `STUBBORN_ROUNDS` says how often it is killed, `STUBBORN_OBJECTS` how
//! many objects are stored for the start after a kill. An argument chooses by name.

// So that lints know all of this for tests, helpers included.
#![cfg(test)]
#![cfg(all(target_os = "linux", feature = "server"))]

#[path = "durability/faults.rs"]
mod faults;
#[path = "durability/ledger.rs"]
mod ledger;
#[path = "durability/load.rs"]
mod load;
#[path = "durability/many.rs"]
mod many;
#[path = "durability/process.rs"]
mod process;
#[path = "disk/shim.rs"]
mod shim;
#[expect(dead_code, reason = "shared with tests/it, which uses all of it")]
#[path = "it/support/mod.rs"]
mod support;

/// What there is to show, by name.
const CASES: [(&str, fn()); 4] = [
    ("killed", || load::rounds(process::Disk::Honest)),
    ("power_cut", || load::rounds(process::Disk::LosesPower)),
    ("faults", faults::all),
    ("many_objects", many::start),
];

#[expect(clippy::disallowed_methods, reason = "a test without a harness reads its own arguments")]
fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("serve") => return process::serve(&arguments[1]),
        Some("--list") => return,
        _ => {}
    }
    let wanted: Vec<_> = arguments.iter().filter(|one| !one.starts_with('-')).collect();
    for (name, case) in CASES {
        if wanted.is_empty() || wanted.iter().any(|one| name.contains(*one)) {
            println!("{name}");
            case();
        }
    }
}

/// Returns a number that the environment may say.
#[expect(clippy::disallowed_methods, reason = "the nightly run says so this way")]
fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).ok().map_or(otherwise, |text| text.parse().expect("it is a number"))
}
