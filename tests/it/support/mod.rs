//! What the tests share: objects that reflect, a server on loopback, a network that delays.

pub(crate) mod http;
pub(crate) mod keeper;
pub(crate) mod network;
pub(crate) mod noise;
pub(crate) mod objects;
pub(crate) mod raw;
pub(crate) mod server;
pub(crate) mod sockets;
pub(crate) mod target;

use std::future::Future;

/// Runs a test on a thread of its own for references, which can't change threads.
pub(crate) fn run<T>(test: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build_local(Default::default()).unwrap();
    runtime.block_on(test)
}

/// Numbers that a seed repeats.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn seeded(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}
