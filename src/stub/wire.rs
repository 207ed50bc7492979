//! Turns the contract's messages into values and back.
//!
//! **Invariant:** nothing read from a message is trusted: counts, sizes, the url, the method and the status
//! are checked here, once, whichever side reads.

use bytes::Bytes;
use capnp::struct_list;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::sockets::{self, Asking};
use super::transfer::{self, Keep};
use crate::body::Body;
use crate::error::{Error, Kind, Result};
use crate::limits::Limits;
use crate::message::{Request, Response};
use crate::stubborn_capnp::{body, error, header, outcome, request, response, web_socket};

/// Writes a request. What does not fit inline of its body is left to a `BodySource` that this vat serves.
pub fn write_request(mut to: request::Builder<'_>, request: Request, limits: &Limits) {
    let (head, body) = request.into_parts();
    if head.method != http::Method::GET {
        to.set_method(head.method.as_str());
    }
    write_url(&head.uri, |bytes| to.reborrow().init_url(bytes));
    write_headers(&head.headers, |count| to.reborrow().init_headers(count));
    if body.known().is_none_or(|known| !known.is_empty()) {
        write_body(to.init_body(), body, limits);
    }
}

/// Reads a request.
///
/// # Errors
/// *invalid request* where the url, the method or a header is not well formed, or a limit is exceeded.
pub fn read_request(from: request::Reader<'_>, limits: &Limits, keep: Keep) -> Result<Request> {
    let method = from.get_method()?.as_bytes();
    let method = http::Method::from_bytes(method).map_err(|_| {
        let shown = String::from_utf8_lossy(method);
        Error::invalid_request(format!("`{shown}` is not a request method"))
    })?;
    if method == http::Method::CONNECT {
        return Err(Error::invalid_request("method CONNECT asks for a proxy, not for an object"));
    }
    let uri = read_url(from.get_url()?.as_bytes(), limits)?;
    let headers = read_headers(from.get_headers()?, limits)?;
    let body =
        if from.has_body() { read_body(from.get_body()?, limits, keep)? } else { Body::empty() };
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    Ok(request)
}

/// Returns where the messages of a request's WebSocket are to be sent; none where it asks for none.
pub fn read_web_socket(from: request::Reader<'_>) -> Option<web_socket::Client> {
    if from.has_web_socket() { from.get_web_socket().ok() } else { None }
}

/// Writes how a fetch ended. The WebSocket that it opens sends to `peer`, where the request had one.
pub fn write_outcome(
    to: outcome::Builder<'_>,
    outcome: Result<Response>,
    peer: Option<web_socket::Client>,
    limits: &Limits,
) {
    let opened = outcome.and_then(|mut response| {
        let web_socket = sockets::open(&mut response, peer, limits)?;
        Ok((response, web_socket))
    });
    match opened {
        Ok((response, web_socket)) => {
            let mut to = to.init_response();
            web_socket.into_iter().for_each(|web_socket| to.set_web_socket(web_socket));
            write_response(to, response, limits);
        }
        Err(error) => write_error(to.init_error(), &error),
    }
}

/// Reads how a fetch ended. `asking` is what a request has that asked for a WebSocket.
///
/// # Errors
/// The error that the outcome holds, or *failed* where the message is not one of the contract.
pub fn read_outcome(
    from: outcome::Reader<'_>,
    asking: Option<Asking>,
    limits: &Limits,
    keep: Keep,
) -> Result<Response> {
    match from.which()? {
        outcome::Response(from) => {
            let from = from?;
            let mut response = read_response(from, limits, keep.clone())?;
            if let Some(asking) = asking
                && from.has_web_socket()
            {
                asking.opened(&mut response, from.get_web_socket()?, keep);
            }
            Ok(response)
        }
        outcome::Error(error) => Err(read_error(error?)?),
    }
}

fn write_response(mut to: response::Builder<'_>, response: Response, limits: &Limits) {
    let (head, body) = response.into_parts();
    to.set_status(head.status.as_u16());
    write_headers(&head.headers, |count| to.reborrow().init_headers(count));
    if body.known().is_none_or(|known| !known.is_empty()) {
        write_body(to.init_body(), body, limits);
    }
}

fn read_response(from: response::Reader<'_>, limits: &Limits, keep: Keep) -> Result<Response> {
    let status = from.get_status();
    let body =
        if from.has_body() { read_body(from.get_body()?, limits, keep)? } else { Body::empty() };
    let mut response = Response::new(body);
    *response.status_mut() = http::StatusCode::from_u16(status)
        .map_err(|_| Error::failed(format!("{status} is not a response status")))?;
    *response.headers_mut() = read_headers(from.get_headers()?, limits)?;
    Ok(response)
}

fn read_url(text: &[u8], limits: &Limits) -> Result<http::Uri> {
    if text.len() > limits.url_bytes_max {
        let (bytes, max) = (text.len(), limits.url_bytes_max);
        return Err(Error::invalid_request(format!("a url of {bytes} bytes, of at most {max}")));
    }
    let text =
        std::str::from_utf8(text).map_err(|_| Error::invalid_request("the url is not UTF-8"))?;
    crate::message::parse_url(text)
}

/// Writes a url that was checked: its parts, as they are, without formatting them first.
fn write_url<'a>(url: &http::Uri, init: impl FnOnce(u32) -> capnp::text::Builder<'a>) {
    let (scheme, colon) = url.scheme_str().map_or(("", ""), |scheme| (scheme, "://"));
    let authority = url.authority().map_or("", http::uri::Authority::as_str);
    let (mark, query) = url.query().map_or(("", ""), |query| ("?", query));
    let parts = [scheme, colon, authority, url.path(), mark, query];
    let bytes = parts.iter().map(|part| part.len()).sum::<usize>();
    let mut text = init(u32::try_from(bytes).unwrap_or(u32::MAX));
    parts.iter().for_each(|part| text.push_str(part));
}

fn write_headers<'a>(
    headers: &HeaderMap,
    init: impl FnOnce(u32) -> struct_list::Builder<'a, header::Owned>,
) {
    if headers.is_empty() {
        return;
    }
    let mut list = init(u32::try_from(headers.len()).unwrap_or(u32::MAX));
    for (index, (name, value)) in (0u32..).zip(headers) {
        let mut header = list.reborrow().get(index);
        header.set_name(name.as_str());
        header.set_value(value.as_bytes());
    }
}

fn read_headers(
    list: struct_list::Reader<'_, header::Owned>,
    limits: &Limits,
) -> Result<HeaderMap> {
    let count = list.len() as usize;
    if count > limits.headers_max {
        let max = limits.headers_max;
        return Err(Error::invalid_request(format!("{count} headers, of at most {max}")));
    }
    let mut headers = HeaderMap::with_capacity(count);
    let mut total = 0;
    for header in list {
        let (name, value) = (header.get_name()?.as_bytes(), header.get_value()?);
        total += name.len() + value.len();
        if total > limits.header_bytes_max {
            let max = limits.header_bytes_max;
            return Err(Error::invalid_request(format!("more than {max} bytes of headers")));
        }
        let shown = || String::from_utf8_lossy(name).into_owned();
        let key = HeaderName::from_bytes(name)
            .map_err(|_| Error::invalid_request(format!("`{}` is not a header name", shown())))?;
        let value = HeaderValue::from_bytes(value).map_err(|_| {
            Error::invalid_request(format!("header `{}` has a value with control bytes", shown()))
        })?;
        headers.append(key, value);
    }
    Ok(headers)
}

/// Writes a body: what is at hand as the prefix, the rest as a source that this vat serves.
fn write_body(mut to: body::Builder<'_>, body: Body, limits: &Limits) {
    let length = body.length();
    let known = body.known().filter(|known| known.len() <= limits.inline_body_bytes_max);
    let rest = if let Some(known) = known {
        to.set_prefix(known);
        None
    } else {
        let (prefix, rest) = transfer::split(body, limits.inline_body_bytes_max);
        to.set_prefix(&prefix);
        rest
    };
    if let Some(rest) = rest {
        to.set_rest(transfer::source(rest, limits.stream_window_bytes / 4));
    }
    if let Some(bytes) = length {
        to.init_length().set_bytes(bytes);
    }
}

fn read_body(from: body::Reader<'_>, limits: &Limits, keep: Keep) -> Result<Body> {
    let prefix = Bytes::copy_from_slice(from.get_prefix()?);
    let length = match from.get_length().which()? {
        body::length::Unknown(()) => None,
        body::length::Bytes(bytes) => Some(bytes),
    };
    if !from.has_rest() {
        return Ok(Body::prefixed(prefix, Body::empty(), length));
    }
    let rest = transfer::pull(from.get_rest(), limits.stream_window_bytes, keep);
    Ok(Body::prefixed(prefix, rest, length))
}

/// Writes an error with all its flags.
pub fn write_error(mut to: error::Builder<'_>, error: &Error) {
    to.set_kind(kind_to_wire(error.kind));
    to.set_message(shortened(&error.message));
    to.set_remote(error.remote);
    to.set_retryable(error.retryable);
    to.set_overloaded(error.overloaded);
    to.set_reset(error.reset);
    to.set_delivered(error.delivered);
}

/// Returns as much of a message as people read: an error must not grow past what a message may be.
fn shortened(text: &str) -> &str {
    const SHOWN_BYTES_MAX: usize = 16 << 10;
    text.get(..text.floor_char_boundary(SHOWN_BYTES_MAX)).unwrap_or_default()
}

/// Reads an error. A kind that is newer than this program reads as *failed*.
///
/// # Errors
/// *failed* where the message is not well formed.
pub fn read_error(from: error::Reader<'_>) -> Result<Error> {
    let kind = from.get_kind().map_or(Kind::Failed, kind_from_wire);
    Ok(Error {
        remote: from.get_remote(),
        retryable: from.get_retryable(),
        overloaded: from.get_overloaded(),
        reset: from.get_reset(),
        delivered: from.get_delivered(),
        ..Error::new(kind, String::from_utf8_lossy(from.get_message()?.as_bytes()))
    })
}

/// One row for each kind, read in both directions.
macro_rules! kinds {
    ($($ours:ident = $wire:ident),* $(,)?) => {
        fn kind_to_wire(kind: Kind) -> error::Kind {
            match kind { $(Kind::$ours => error::Kind::$wire),* }
        }
        fn kind_from_wire(kind: error::Kind) -> Kind {
            match kind { $(error::Kind::$wire => Kind::$ours),* }
        }
    };
}

kinds!(
    Failed = Failed,
    Disconnected = Disconnected,
    Overloaded = Overloaded,
    Unimplemented = Unimplemented,
    InvalidId = InvalidId,
    WrongNamespace = WrongNamespace,
    NoSuchNamespace = NoSuchNamespace,
    NoSuchObject = NoSuchObject,
    InvalidRequest = InvalidRequest,
    Truncated = Truncated,
    Timeout = Timeout,
);
