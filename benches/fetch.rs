//! `cargo bench`: what `stubborn bench` measures, and a gRPC echo beside it.

mod grpc;

use clap::Parser as _;
use stubborn::bench;

/// The allocator of the program `stubborn`, for all subjects.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures fetches per second, beside a gRPC echo too.
#[derive(clap::Parser)]
struct Options {
    #[command(flatten)]
    bench: bench::Args,

    /// What cargo says to every benchmark
    #[arg(long = "bench", hide = true)]
    _bench: bool,
}

fn main() -> stubborn::Result<()> {
    let options = Options::parse().bench;
    let measured = bench::run(&options, &[], vec![Box::new(grpc::Grpc)]);
    tokio::runtime::LocalRuntime::new()?.block_on(measured)
}
