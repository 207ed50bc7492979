//! The promises of the system, a module each.

// So that lints know all of this for tests, helpers included.
#![cfg(test)]

mod alarms;
mod bodies;
mod bounds;
mod breakage;
mod cancel;
mod capabilities;
mod contract;
mod control;
mod fetch;
mod gates;
mod hostile;
mod http;
mod http_hostile;
mod http_origin;
mod http_sockets;
mod inspector;
mod latency;
mod order;
mod patience;
mod sockets;
mod support;
