//! The library that makes a process's disk lose power, fill up, fail or hang: `tests/faults/disk.c`, compiled.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Compiles it, once, and returns where it is: what `LD_PRELOAD` is to say.
pub(crate) fn shim() -> &'static Path {
    static SHIM: OnceLock<PathBuf> = OnceLock::new();
    SHIM.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/faults/disk.c");
        let name = format!("disk-{}.so", std::process::id());
        let shim = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let mut gcc = Command::new("gcc");
        gcc.args(["-shared", "-fPIC", "-O2", "-o"]).arg(&shim).arg(source).arg("-lpthread");
        assert!(gcc.status().expect("gcc is there").success(), "the shim compiles");
        shim
    })
}
