//! Hands the directory of the contract's schema on to authors' build scripts, as
//! `DEP_STUBBORN_CLIENT_INCLUDE`.

#[expect(clippy::disallowed_methods, reason = "cargo speaks to build scripts by the environment")]
fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if let Ok(include) = std::env::var("DEP_STUBBORN_INCLUDE") {
        println!("cargo::metadata=include={include}");
    }
}
