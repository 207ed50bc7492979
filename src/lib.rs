//! Self-hosted durable objects as capabilities.
//!
//! The order of the modules below is the order of the layers: a module names only what stands above it.

mod contract;
pub mod error;
pub mod id;
pub mod limits;
pub mod clock;
pub mod entropy;
pub mod socket;
pub mod body;
pub mod message;
pub mod redirect;

pub mod gate;
#[cfg(feature = "server")]
pub mod schedule;
#[cfg(feature = "server")]
pub mod storage;
#[cfg(feature = "server")]
mod rfc6455;

pub mod vat;
pub mod stub;

#[cfg(feature = "server")]
pub mod object;
#[cfg(feature = "server")]
pub mod runtime;
#[cfg(feature = "server")]
pub mod listen;
#[cfg(feature = "server")]
pub mod rpc;
#[cfg(feature = "server")]
pub mod gateway;
#[cfg(feature = "server")]
mod server;
#[cfg(feature = "server")]
pub mod demo;
#[cfg(feature = "server")]
pub mod config;
#[cfg(feature = "server")]
pub mod bench;
#[cfg(feature = "server")]
pub mod cli;

pub use body::{Body, BodyWriter};
#[doc(hidden)]
pub use contract::{REVISION, byte_stream_capnp, demo_capnp, stubborn_capnp};
pub use error::{Error, Kind, Result};
pub use id::ObjectId;
pub use limits::Limits;
pub use message::{IntoRequest, Request, Response, ResponseExt, response as respond};
pub use socket::{Closed, Message, WebSocket};
pub use stub::{Address, Client, Namespace, Retry, Stub, Target, capability};

#[cfg(feature = "server")]
pub use object::{
    AlarmInfo, Bookmark, Class, DurableObject, Env, List, RequestExt, Signal, Socket, Sql, State,
    Storage,
};
#[cfg(feature = "server")]
pub use server::{Server, ServerBuilder, stop_requested};
