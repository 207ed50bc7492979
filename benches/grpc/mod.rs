//! What a Rust user would pick instead: a unary call of tonic, bytes in and bytes out.
//!
//! No protobuf is involved: the message is its own encoding. Server and client have one thread each, and
//! tonic's defaults otherwise.

mod codec;
mod subject;

pub(crate) use subject::Grpc;
