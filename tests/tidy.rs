//! The house rules that a machine can keep, as a test: the sources are read as text.
//!
//! Each complaint names the file and the line, and says what to do. STYLE.md says why. What a rule lets
//! through by name stands in the constants at the end of this file.

// So that lints know all of this for tests, helpers included.
#![cfg(test)]

#[path = "tidy/rules.rs"]
mod rules;
#[path = "tidy/scan.rs"]
mod scan;

use std::path::Path;

use rules::Complaint;
use scan::Source;

#[test]
fn a_module_names_only_the_layers_above_its_own() {
    let sources = sources(&["src"]);
    let lib =
        sources.iter().find(|source| source.path == "src/lib.rs").expect("there is a library");
    let layers = rules::Layers::of(lib);
    report(sources.iter().flat_map(|source| rules::layer_order(&layers, source)));
}

#[test]
fn a_source_file_begins_by_saying_what_it_is() {
    report(sources(ALL).iter().flat_map(rules::begins_with_doc));
}

#[test]
fn a_file_and_a_function_fit_their_length() {
    report(sources(PRODUCT).iter().flat_map(|source| {
        let mut complaints = rules::function_length(source, FUNCTION_LINES_MAX);
        complaints.extend(rules::file_length(source, FILE_LINES_MAX));
        complaints
    }));
}

#[test]
fn a_mod_file_holds_only_docs_and_modules() {
    report(sources(PRODUCT).iter().flat_map(rules::mod_file));
}

#[test]
fn lints_are_expected_and_not_allowed() {
    let mut sources = sources(ALL);
    sources.retain(|source| !MAY_ALLOW_LINTS.contains(&source.path.as_str()));
    report(sources.iter().flat_map(rules::no_allow));
}

#[test]
fn no_unfinished_work_is_merged() {
    report(sources(ALL).iter().flat_map(rules::unfinished));
}

#[test]
fn no_test_is_skipped_or_hopes_for_a_panic() {
    report(sources(ALL).iter().flat_map(rules::skipped_tests));
}

#[test]
fn no_channel_is_unbounded() {
    report(sources(PRODUCT).iter().flat_map(rules::unbounded_channels));
}

#[test]
fn only_the_modules_that_speak_capnp_name_it() {
    let mut sources = sources(&["src"]);
    sources.retain(|source| !MAY_NAME_CAPNP.iter().any(|module| source.is_of(module)));
    report(sources.iter().flat_map(rules::no_capnp));
}

#[test]
fn a_test_does_not_sleep() {
    let mut sources = sources(&["tests"]);
    sources.retain(|source| !MAY_SLEEP.contains(&source.path.as_str()));
    report(sources.iter().flat_map(rules::no_sleep));
}

#[test]
fn no_two_integration_tests_have_one_name() {
    report(rules::distinct_tests(&sources(&["tests"])));
}

#[test]
fn every_dependency_says_why_it_is_there() {
    report(["Cargo.toml", "client/Cargo.toml", "vfs/Cargo.toml"].into_iter().flat_map(|path| {
        let text = std::fs::read_to_string(root().join(path)).expect("the manifest is there");
        rules::dependency_reasons(path, &text)
    }));
}

#[test]
fn what_the_rules_let_through_exists() {
    let sources = sources(ALL);
    let exists =
        |name: &str| sources.iter().any(|source| source.path == name || source.is_of(name));
    let exceptions = [MAY_ALLOW_LINTS, MAY_SLEEP].concat();
    report(exceptions.into_iter().filter(|name| !exists(name)).map(|name| Complaint {
        path: "tests/tidy.rs".to_owned(),
        line: 1,
        advice: format!("{name} is let through but isn't there: take it off the list"),
    }));
}

/// Fails with all complaints, one a line.
fn report(complaints: impl IntoIterator<Item = Complaint>) {
    let lines: Vec<String> = complaints.into_iter().map(|one| one.to_string()).collect();
    assert!(lines.is_empty(), "{} against the house rules:\n{}\n", lines.len(), lines.join("\n"));
}

/// Reads every Rust file of `folders`, in the order of their paths.
fn sources(folders: &[&str]) -> Vec<Source> {
    let mut waiting: Vec<_> = folders.iter().map(|folder| root().join(folder)).collect();
    let mut sources = Vec::new();
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            let entries = std::fs::read_dir(&path).expect("a folder of ours can be read");
            waiting.extend(entries.map(|entry| entry.expect("so can its entries").path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).expect("a source file is text");
            let name = path.strip_prefix(root()).expect("it is below the root");
            sources.push(Source::new(&name.to_string_lossy(), &text));
        }
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    sources
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What is shipped.
const PRODUCT: &[&str] = &["src", "client/src", "vfs/src"];
/// Everything we wrote in Rust. What isn't there yet is read as nothing.
const ALL: &[&str] = &[
    "build.rs",
    "src",
    "client/build.rs",
    "client/src",
    "client/tests",
    "vfs/src",
    "vfs/tests",
    "tests",
    "examples",
    "benches",
];

/// Lines of code, without comments, blank lines and tests.
const FILE_LINES_MAX: usize = 600;
/// All lines of a function, from its `fn` to its closing brace.
const FUNCTION_LINES_MAX: usize = 70;

/// The modules that may name `capnp` and `capnp_rpc`: invariant 1 of ARCHITECTURE.md. A module stands
/// for its file and for all that is below it.
const MAY_NAME_CAPNP: &[&str] = &[
    "contract",
    "error", // an exception becomes an error there
    "vat",
    "stub",
    "client",
    "object::interface", // an author's own typed interfaces
    "rpc",
    "bench",
    "demo", // an author's own code, as an example
];
/// Generated code carries the lints of others.
const MAY_ALLOW_LINTS: &[&str] = &["src/contract.rs"];
/// Tests that wait for what no event tells, in real time: a real process. Give the reason beside each.
const MAY_SLEEP: &[&str] = &[
    // A network that delays, and objects that take time: what is slow here is what is tested.
    "tests/it/support/network.rs",
    "tests/it/support/objects.rs",
];
