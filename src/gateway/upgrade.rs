//! Requests to leave HTTP on their connection.
//!
//! **Invariant:** an upgrade to anything but a WebSocket is ignored, as HTTP lets a server do: the request is
//! answered as if it had not been asked for.

use http::header::{CONNECTION, HeaderValue, UPGRADE};
use http::request::Parts;
use http::{StatusCode, Version};

use super::failure;
use crate::error::Kind;
use crate::message::Response;

/// Returns whether a request asks for a WebSocket.
pub(super) fn is_asked_for(head: &Parts) -> bool {
    let wanted = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"websocket");
    head.version == Version::HTTP_11 && head.headers.get(UPGRADE).is_some_and(wanted)
}

/// Answers a request for a WebSocket: there is none yet. What a client sends behind such a request may be
/// frames already, so the connection ends.
pub(super) fn answer() -> Response {
    let told = "WebSockets are not served here yet";
    let mut response = failure::refusal(StatusCode::NOT_IMPLEMENTED, Kind::Unimplemented, told);
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}
