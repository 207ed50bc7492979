//! Compiles `schema/` to Rust.
//!
//! The `capnp` tool parses the schema where it is installed. Elsewhere the parse that is checked in as
//! `schema/compiled.bin` serves, so that a build needs nothing but Rust and a C compiler. A test
//! fails when the two differ (`tests/it/contract.rs`).

use std::path::{Path, PathBuf};
use std::process::Command;

const FILES: [&str; 3] = ["byte-stream.capnp", "stubborn.capnp", "demo.capnp"];

#[expect(clippy::disallowed_methods, reason = "cargo speaks to build scripts by the environment")]
fn main() {
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let out = PathBuf::from(std::env::var("OUT_DIR").expect("cargo sets it"));
    let schema = root.join("schema");
    println!("cargo::rerun-if-changed=schema");
    println!("cargo::metadata=include={}", schema.display());

    let request = parse(&schema).unwrap_or_else(|| {
        std::fs::read(schema.join("compiled.bin")).expect("schema/compiled.bin is checked in")
    });
    capnpc::codegen::CodeGenerationCommand::new()
        .output_directory(out)
        .run(request.as_slice())
        .expect("the parsed schema generates code");
}

/// The parse of the schema as the `capnp` tool gives it; none where the tool is missing.
fn parse(schema: &Path) -> Option<Vec<u8>> {
    let output = Command::new("capnp")
        .args(["compile", "-o-", "--src-prefix=schema"])
        .args(FILES.map(|file| format!("schema/{file}")))
        .current_dir(schema.parent()?)
        .env_remove("PWD")
        .output()
        .ok()?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "capnp can't compile schema/: {complaint}");
    Some(output.stdout)
}
