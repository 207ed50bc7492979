//! The promises of the system, a module each.

// So that lints know all of this for tests, helpers included.
#![cfg(test)]

mod breakage;
mod cancel;
mod contract;
mod fetch;
mod latency;
mod order;
mod support;
