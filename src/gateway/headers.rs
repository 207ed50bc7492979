//! Headers that belong to one hop, and those that say how long a body is.
//!
//! **Invariant:** what a `Connection` header names, and every header of the hop, passes in neither direction.
//! **Invariant:** a length that is sent is the body's own.

use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, HeaderMap, HeaderName, HeaderValue,
    PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{Method, StatusCode};

use crate::body::Body;
use crate::message::Response;

/// What belongs to one hop, whether or not `Connection` names it.
static OF_THE_HOP: [HeaderName; 9] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Removes what belongs to one hop.
pub(super) fn leave_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
            .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
            .collect();
        for name in named {
            headers.remove(name);
        }
    }
    for name in &OF_THE_HOP {
        headers.remove(name);
    }
}

/// Removes of a request what only this door acts on.
pub(super) fn enter(headers: &mut HeaderMap) {
    leave_hop(headers);
    // hyper has answered it where the body is asked for.
    headers.remove(EXPECT);
    join_cookies(headers);
}

/// HTTP/2 may send a cookie header in pieces; it is one header everywhere else.
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(COOKIE).iter().nth(1).is_none() {
        return;
    }
    let pieces: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&pieces.join(&b"; "[..])) {
        headers.insert(COOKIE, joined);
    }
}

/// Prepares an object's answer to a request of `method` for the wire.
pub(super) fn exit(mut response: Response, method: &Method) -> Response {
    leave_hop(response.headers_mut());
    let declared = declared_length(response.headers());
    if method == Method::HEAD && declared.is_some() {
        // It is the length that GET would answer.
        return response;
    }
    if response.headers_mut().remove(CONTENT_LENGTH).is_none()
        || response.status() == StatusCode::NOT_MODIFIED
        || method == Method::HEAD
        || response.body().length().is_some()
    {
        return response;
    }
    // A stream that turns out shorter or longer ends in an error.
    response.map(|body| Body::prefixed(Bytes::new(), body, declared))
}

/// Returns the one length that headers declare.
fn declared_length(headers: &HeaderMap) -> Option<u64> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    match (lengths.next(), lengths.next()) {
        (Some(length), None) => {
            let digits =
                length.to_str().ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
            digits?.parse().ok()
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        let parse = |(name, value): &(&str, &str)| {
            (HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap())
        };
        lines.iter().map(parse).collect()
    }

    #[test]
    fn what_belongs_to_the_hop_stays_there() {
        let mut all = headers(&[
            ("connection", "close, X-Private"),
            ("connection", "x-other"),
            ("x-private", "1"),
            ("x-other", "2"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "x"),
            ("proxy-authorization", "x"),
            ("proxy-authenticate", "x"),
            ("te", "trailers"),
            ("trailer", "x-t"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("expect", "100-continue"),
            ("cookie", "a=1"),
            ("cookie", "b=2"),
            ("x-kept", "1"),
            ("x-kept", "2"),
        ]);
        enter(&mut all);
        assert_eq!(all, headers(&[("cookie", "a=1; b=2"), ("x-kept", "1"), ("x-kept", "2")]));
    }

    #[test]
    fn a_length_that_is_sent_is_the_bodys_own() {
        let (_writer, streamed) = Body::pipe(8);
        for (method, body, declared, header, length) in [
            (Method::GET, Body::from("abc"), "5", None, Some(3)),
            (Method::GET, streamed, "5", None, Some(5)),
            (Method::HEAD, Body::empty(), "5", Some("5"), Some(0)),
            (Method::HEAD, Body::empty(), "x", None, Some(0)),
        ] {
            let mut response = Response::new(body);
            response.headers_mut().insert(CONTENT_LENGTH, declared.parse().unwrap());
            let response = exit(response, &method);
            let kept = response.headers().get(CONTENT_LENGTH).map(|value| value.to_str().unwrap());
            assert_eq!((kept, response.body().length()), (header, length), "{method} {declared}");
        }
    }
}
