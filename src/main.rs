//! The program `stubborn`: gives the command line to the library, and ends with the status it returns.

/// A call allocates some fifty times.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[expect(clippy::disallowed_methods, reason = "the command line enters here")]
fn main() {
    exit(stubborn::cli::run(std::env::args_os(), exit));
}

#[expect(clippy::exit, reason = "the program ends here")]
fn exit(status: i32) -> ! {
    std::process::exit(status)
}
