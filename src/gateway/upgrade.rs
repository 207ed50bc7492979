//! Requests to leave HTTP on their connection.
//!
//! **Invariant:** an upgrade to anything but a WebSocket is ignored, as HTTP lets a server do: the request is
//! answered as if it had not been asked for.
//! **Invariant:** what comes behind a request for a WebSocket is never read as HTTP: the connection becomes the
//! WebSocket's, or ends with the answer.

use std::cell::RefCell;
use std::io::Cursor;
use std::rc::Rc;

use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_LENGTH, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS,
    SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::{Method, StatusCode, Version};
use hyper::body::Incoming;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use super::{failure, headers};
use crate::error::{Error, Kind};
use crate::limits::Limits;
use crate::message::{Response, ResponseExt};
use crate::rfc6455::{self, Budget};
use crate::socket::WebSocket;

/// Where the WebSocket of a connection waits for its upgrade to be written.
pub(super) type Upgraded = Rc<RefCell<Option<WebSocket>>>;

/// A request for a WebSocket that is granted if its object opens one.
pub(super) struct Wanted {
    accept: HeaderValue,
    upgraded: Upgraded,
}

impl Wanted {
    /// Returns what a request asks for; none where that is no WebSocket.
    ///
    /// # Errors
    /// The answer to one that can't be granted.
    pub(super) fn of(head: &Parts, upgraded: &Upgraded) -> Result<Option<Self>, Box<Response>> {
        if head.version != Version::HTTP_11 || !rfc6455::asks(&head.headers) {
            return Ok(None);
        }
        let has_body = [CONTENT_LENGTH, TRANSFER_ENCODING];
        if head.method != Method::GET || has_body.iter().any(|name| head.headers.contains_key(name))
        {
            let told = "a WebSocket is asked for by GET without a body";
            let refusal = failure::refusal(StatusCode::BAD_REQUEST, Kind::InvalidRequest, told);
            return Err(Box::new(refusal));
        }
        match rfc6455::accept_key(&head.headers) {
            Ok(accept) => Ok(Some(Self { accept, upgraded: upgraded.clone() })),
            Err(refusal) => {
                let kind = Kind::InvalidRequest;
                let mut response = failure::refusal(refusal.status, kind, refusal.message);
                if refusal.status == StatusCode::UPGRADE_REQUIRED {
                    let version = HeaderValue::from_static("13");
                    response.headers_mut().insert(SEC_WEBSOCKET_VERSION, version);
                }
                Err(Box::new(response))
            }
        }
    }

    /// Returns the answer to the request, where the object has answered with `response`: the upgrade, if it
    /// opened a WebSocket.
    pub(super) fn answer(self, mut response: Response) -> Response {
        let Some(end) = response.take_web_socket() else { return response };
        let mut answer = Response::default();
        *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        std::mem::swap(answer.headers_mut(), response.headers_mut());
        let headers = answer.headers_mut();
        headers::leave_hop(headers);
        // What is agreed on the wire is between this door and the client, and there is no body.
        for name in [SEC_WEBSOCKET_EXTENSIONS, CONTENT_LENGTH] {
            headers.remove(name);
        }
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(SEC_WEBSOCKET_ACCEPT, self.accept);
        *self.upgraded.borrow_mut() = Some(end);
        answer
    }
}

/// Returns why the answer of an object that opened a WebSocket unasked is none.
pub(super) fn not_asked_for() -> Error {
    Error::failed("the object opened a WebSocket and was not asked to").with_delivered(true)
}

/// Returns whether what comes behind a request on its connection is not HTTP, whether or not it is granted.
pub(super) fn is_last(head: &http::Request<Incoming>) -> bool {
    head.version() <= Version::HTTP_11 && rfc6455::asks(head.headers())
}

/// Has the connection end with an answer, unless that is the upgrade.
pub(super) fn close_behind<B>(response: &mut http::Response<B>) {
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
}

/// Serves the WebSocket of a connection whose upgrade was written, until it ends. `read` was read already.
///
/// # Cancel safety
/// Dropping the future is a lost link to both sides.
pub(super) async fn serve<S>(
    end: WebSocket,
    stream: S,
    read: Bytes,
    limits: &Limits,
    budget: &Budget,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    if read.is_empty() {
        return rfc6455::pump(end, stream, limits, budget).await;
    }
    let (reader, writer) = tokio::io::split(stream);
    let stream = tokio::io::join(Cursor::new(read).chain(reader), writer);
    rfc6455::pump(end, stream, limits, budget).await;
}
