//! The HTTP door: serves objects to browsers, curl and the platform's own API clients, over HTTP/1.1 and HTTP/2.
//!
//! **Invariant:** a request is put in line for its object inside the service's `call`, before anything is
//! awaited: requests of one connection reach an object in the order in which they came.
//! **Invariant:** a namespace that was not exposed looks like one that does not exist.
//! **Invariant:** a body cut short ends its stream or connection with an error, never with a clean end.
//! **Invariant:** nothing here knows Cap'n Proto.

mod access;
mod connection;
mod door;
mod failure;
mod forwarded;
mod framing;
mod headers;
mod inspector;
mod origin;
mod params;
mod path;
mod reply;
mod rest;
mod routes;
mod service;
mod settings;
mod stall;
mod stream;
mod token;
mod upgrade;
mod watch;

pub use door::{GatewayDoor, Reach};
pub use settings::{GatewaySettings, HostRoute, TrustedProxy};
