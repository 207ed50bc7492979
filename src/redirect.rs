//! Redirects: what to send next, as a function of what was sent and what came back.
//!
//! A followed redirect goes to the same object, whatever its url: so nothing is taken off the request on
//! the way to another origin.
//!
//! **Invariant:** a body is sent again only from memory; a streamed one that would have to be is an error.
//! **Invariant:** nothing here sends or waits.

use bytes::Bytes;
use http::{Method, StatusCode, Uri, header};

use crate::body::Body;
use crate::error::{Error, Kind, Result};
use crate::message::{self, Request, Response};

/// How many redirects of one request are followed; a further one is an error.
pub const REDIRECTS_MAX: u32 = 20;

/// What a caller wants done about redirects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Follow them.
    #[default]
    Follow,
    /// Return them, as any other response.
    Manual,
    /// Fail on them.
    Error,
}

/// What was sent, as far as it is needed to send it again. Take it before sending.
#[derive(Debug)]
pub struct Sent {
    head: http::Request<()>,
    /// None: it is streamed, and gone.
    body: Option<Bytes>,
}

impl Sent {
    /// Keeps the head of `request`, and its body if that is in memory; copies no bytes of it.
    pub fn of(request: &Request) -> Self {
        let mut head = http::Request::new(());
        *head.method_mut() = request.method().clone();
        *head.uri_mut() = request.uri().clone();
        *head.version_mut() = request.version();
        *head.headers_mut() = request.headers().clone();
        *head.extensions_mut() = request.extensions().clone();
        Self { head, body: request.body().known().cloned() }
    }
}

/// Returns what to send after `response` came back for `sent`; none: `response` is the answer.
///
/// `hops` is how many redirects were followed before. As browsers do: 301 and 302 turn `POST` into
/// `GET`, 303 turns all but `HEAD` into `GET`, both without the body and the headers that describe it;
/// 307 and 308 keep method and body. A redirect without a location is returned. Unlike them, a streamed
/// body that is not sent again is no error.
///
/// # Errors
/// Kind *failed* for a redirect in [`Mode::Error`], for one too many, and for a location that is no
/// `http` or `https` url. Kind *invalid request* where a streamed body would have to be sent again.
pub fn next(sent: &Sent, response: &Response, mode: Mode, hops: u32) -> Result<Option<Request>> {
    let status = response.status();
    if !is_redirect(status) || mode == Mode::Manual {
        return Ok(None);
    }
    if mode == Mode::Error {
        return Err(refused(Kind::Failed, format!("redirect {status} is refused by the caller")));
    }
    let mut locations = response.headers().get_all(header::LOCATION).iter();
    let Some(location) = locations.next() else { return Ok(None) };
    if locations.any(|other| other != location) {
        return Err(refused(Kind::Failed, format!("redirect {status} has several locations")));
    }
    if hops >= REDIRECTS_MAX {
        let message = format!("more than {REDIRECTS_MAX} redirects, the last to {location:?}");
        return Err(refused(Kind::Failed, message));
    }
    let url = resolve(sent.head.uri(), &String::from_utf8_lossy(location.as_bytes()))
        .map_err(|error| refused(Kind::Failed, format!("redirect {status}: {}", error.message)))?;
    follow(sent, status, url).map(Some)
}

/// Resolves `reference` against `base`, as RFC 3986 does (section 5.2), less the fragment.
///
/// What a url may not hold is percent-encoded, as browsers do.
///
/// # Errors
/// Kind *invalid request* where the outcome is not an absolute `http` or `https` url.
pub fn resolve(base: &Uri, reference: &str) -> Result<Uri> {
    let reference = encode(reference.split_once('#').map_or(reference, |(url, _)| url).trim());
    let reference = reference.as_str();
    let scheme = base.scheme_str().unwrap_or_default();
    let authority = base.authority().map_or("", |authority| authority.as_str());
    if has_scheme(reference) {
        let (scheme, rest) = reference.split_once("://").unwrap_or((reference, ""));
        if rest.is_empty() {
            return message::parse_url(reference);
        }
        return absolute(scheme, rest);
    }
    if let Some(rest) = reference.strip_prefix("//") {
        return absolute(scheme, rest);
    }
    let (path, query) = split_query(reference);
    let (path, query) = if path.is_empty() {
        (base.path().to_owned(), query.or(base.query()))
    } else if path.starts_with('/') {
        (remove_dot_segments(path), query)
    } else {
        let folder = base.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        (remove_dot_segments(&format!("{folder}/{path}")), query)
    };
    compose(scheme, authority, &path, query)
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

fn follow(sent: &Sent, status: StatusCode, url: Uri) -> Result<Request> {
    let was = sent.head.method();
    let (method, keeps_body) = match status.as_u16() {
        301 | 302 if was == Method::POST => (Method::GET, false),
        303 if was == Method::HEAD => (Method::HEAD, false),
        303 => (Method::GET, false),
        _ => (was.clone(), true),
    };
    let body = match (keeps_body, &sent.body) {
        (false, _) => Body::empty(),
        (true, Some(body)) => Body::from_bytes(body.clone()),
        (true, None) => {
            let message = format!("redirect {status} to {url} needs a streamed body a second time");
            return Err(refused(Kind::InvalidRequest, message));
        }
    };
    let mut request = sent.head.clone().map(|()| body);
    *request.method_mut() = method;
    *request.uri_mut() = url;
    if !keeps_body {
        for name in BODY_HEADERS {
            request.headers_mut().remove(name);
        }
    }
    Ok(request)
}

/// The object has answered: whatever is wrong with the answer, the event was delivered.
fn refused(kind: Kind, message: String) -> Error {
    Error::new(kind, message).with_delivered(true)
}

/// Returns whether `reference` begins with a scheme and a colon.
fn has_scheme(reference: &str) -> bool {
    let Some((scheme, _)) = reference.split_once(':') else { return false };
    scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
}

/// Makes a url of what follows its `://`.
fn absolute(scheme: &str, rest: &str) -> Result<Uri> {
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(end);
    let (path, query) = split_query(rest);
    compose(scheme, authority, &remove_dot_segments(path), query)
}

fn compose(scheme: &str, authority: &str, path: &str, query: Option<&str>) -> Result<Uri> {
    let mut url = format!("{scheme}://{authority}{path}");
    if let Some(query) = query {
        url.push('?');
        url.push_str(query);
    }
    message::parse_url(&url)
}

fn split_query(url: &str) -> (&str, Option<&str>) {
    url.split_once('?').map_or((url, None), |(path, query)| (path, Some(query)))
}

/// Takes the `.` and `..` out of an absolute path. Where it ends in one, it ends in a slash.
fn remove_dot_segments(path: &str) -> String {
    let Some(path) = path.strip_prefix('/') else { return path.to_owned() };
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').peekable();
    while let Some(segment) = segments.next() {
        let is_dots = matches!(segment, "." | "..");
        if segment == ".." {
            kept.pop();
        }
        if !is_dots {
            kept.push(segment);
        } else if segments.peek().is_none() {
            kept.push("");
        }
    }
    format!("/{}", kept.join("/"))
}

/// Percent-encodes what a url may not hold.
fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            0..=b' ' | b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' | 0x7f.. => {
                encoded.push_str(&format!("%{byte:02X}"));
            }
            _ => encoded.push(char::from(byte)),
        }
    }
    encoded
}

/// The headers that describe a body, which go with it.
const BODY_HEADERS: [header::HeaderName; 6] = [
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::CONTENT_LENGTH,
    header::CONTENT_LOCATION,
    header::CONTENT_TYPE,
    header::TRANSFER_ENCODING,
];

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::message::{IntoRequest as _, response};

    fn sent(method: &Method, body: Body) -> Sent {
        let request = http::Request::builder()
            .method(method)
            .uri("http://do/a/b?c")
            .header("x-kept", "1")
            .header("content-type", "text/plain")
            .header("content-length", "2")
            .header("authorization", "me");
        Sent::of(&request.body(body).unwrap())
    }

    fn redirect(status: u16, location: &[u8]) -> Response {
        let mut response = response::status(status, "").unwrap();
        let location = HeaderValue::from_bytes(location).unwrap();
        response.headers_mut().insert(header::LOCATION, location);
        response
    }

    #[test]
    fn method_and_body_change_as_the_fetch_standard_says() {
        use Method as M;
        for (status, method, then, keeps_body) in [
            (301, M::GET, M::GET, true),
            (301, M::HEAD, M::HEAD, true),
            (301, M::POST, M::GET, false),
            (301, M::PUT, M::PUT, true),
            (302, M::POST, M::GET, false),
            (302, M::DELETE, M::DELETE, true),
            (303, M::GET, M::GET, false),
            (303, M::HEAD, M::HEAD, false),
            (303, M::POST, M::GET, false),
            (303, M::PUT, M::GET, false),
            (307, M::POST, M::POST, true),
            (307, M::PUT, M::PUT, true),
            (308, M::POST, M::POST, true),
            (308, M::GET, M::GET, true),
        ] {
            let what = format!("{status} {method}");
            let came = redirect(status, b"http://other/x");
            let request =
                next(&sent(&method, Body::from("hi")), &came, Mode::Follow, 0).unwrap().unwrap();
            assert_eq!(request.method(), then, "{what}");
            assert_eq!(request.uri(), "http://other/x");
            let body = if keeps_body { "hi" } else { "" };
            assert_eq!(request.body().known().unwrap(), body, "{what}");
            assert_eq!(request.headers().contains_key("content-type"), keeps_body, "{what}");
            assert_eq!(request.headers().contains_key("content-length"), keeps_body, "{what}");
            assert!(request.headers().contains_key("x-kept"));
            assert!(request.headers().contains_key("authorization"), "the object is the same");
            // A streamed body is an error exactly where it would have to be sent again.
            let (_writer, body) = Body::pipe(8);
            match next(&sent(&method, body), &came, Mode::Follow, 0) {
                Ok(request) => assert!(!keeps_body && request.is_some(), "{what}"),
                Err(error) => {
                    assert!(keeps_body, "{what}: {error}");
                    assert_eq!(error.kind, Kind::InvalidRequest);
                    assert!(error.delivered && error.message.contains("http://other/x"));
                }
            }
        }
    }

    #[test]
    fn what_is_no_redirect_or_not_to_be_followed_is_returned() {
        for (status, mode, returned) in [
            (200, Mode::Follow, true),
            (200, Mode::Error, true),
            (201, Mode::Follow, true),
            (300, Mode::Follow, true),
            (304, Mode::Error, true),
            (305, Mode::Follow, true),
            (302, Mode::Manual, true),
            (302, Mode::Follow, false),
            (302, Mode::Error, false),
        ] {
            let step = next(&sent(&Method::GET, Body::empty()), &redirect(status, b"/x"), mode, 0);
            assert_eq!(matches!(step, Ok(None)), returned, "{status} {mode:?}");
            assert_eq!(step.is_err(), status == 302 && mode == Mode::Error);
        }
    }

    #[test]
    fn a_redirect_without_a_location_is_returned_and_a_doubtful_one_refused() {
        let get = sent(&Method::GET, Body::empty());
        let bare = response::status(302, "").unwrap();
        assert!(matches!(next(&get, &bare, Mode::Follow, 0), Ok(None)));
        let mut double = redirect(302, b"/x");
        double.headers_mut().append(header::LOCATION, "/y".parse().unwrap());
        assert_eq!(next(&get, &double, Mode::Follow, 0).unwrap_err().kind, Kind::Failed);
        for location in ["ftp://do/x", "mailto:a@b", "http://", "http:x", "//", "http://do:x/"] {
            let error = next(&get, &redirect(302, location.as_bytes()), Mode::Follow, 0)
                .map(drop)
                .expect_err(location);
            assert!(error.kind == Kind::Failed && error.delivered && !error.remote, "{error}");
        }
    }

    #[test]
    fn the_twentieth_redirect_is_followed_and_the_next_is_an_error() {
        let mut request = "http://do/".into_request().unwrap();
        for hops in 0..REDIRECTS_MAX {
            let sent = Sent::of(&request);
            request = next(&sent, &redirect(302, b"x"), Mode::Follow, hops).unwrap().unwrap();
        }
        let error = next(&Sent::of(&request), &redirect(302, b"x"), Mode::Follow, REDIRECTS_MAX)
            .unwrap_err();
        assert!(error.message.contains("more than 20 redirects"), "{error}");
    }

    #[test]
    fn extensions_go_along() {
        let mut request = "http://do/".into_request().unwrap();
        request.extensions_mut().insert(7_u8);
        let request =
            next(&Sent::of(&request), &redirect(302, b"x"), Mode::Follow, 0).unwrap().unwrap();
        assert_eq!(request.extensions().get::<u8>(), Some(&7));
    }

    /// The examples of RFC 3986, section 5.4, and what else occurs in a location.
    #[test]
    fn a_location_is_resolved_as_rfc_3986_does() {
        let base = Uri::from_static("http://a/b/c/d;p?q");
        for (reference, resolved) in [
            ("g", "http://a/b/c/g"),
            ("./g", "http://a/b/c/g"),
            ("g/", "http://a/b/c/g/"),
            ("/g", "http://a/g"),
            ("//g", "http://g/"),
            ("?y", "http://a/b/c/d;p?y"),
            ("g?y", "http://a/b/c/g?y"),
            ("#s", "http://a/b/c/d;p?q"),
            ("g#s", "http://a/b/c/g"),
            ("g?y#s", "http://a/b/c/g?y"),
            (";x", "http://a/b/c/;x"),
            ("g;x", "http://a/b/c/g;x"),
            ("", "http://a/b/c/d;p?q"),
            (".", "http://a/b/c/"),
            ("./", "http://a/b/c/"),
            ("..", "http://a/b/"),
            ("../", "http://a/b/"),
            ("../g", "http://a/b/g"),
            ("../..", "http://a/"),
            ("../../", "http://a/"),
            ("../../g", "http://a/g"),
            ("../../../g", "http://a/g"),
            ("../../../../g", "http://a/g"),
            ("/./g", "http://a/g"),
            ("/../g", "http://a/g"),
            ("g.", "http://a/b/c/g."),
            (".g", "http://a/b/c/.g"),
            ("g..", "http://a/b/c/g.."),
            ("..g", "http://a/b/c/..g"),
            ("./../g", "http://a/b/g"),
            ("./g/.", "http://a/b/c/g/"),
            ("g/./h", "http://a/b/c/g/h"),
            ("g/../h", "http://a/b/c/h"),
            ("g;x=1/./y", "http://a/b/c/g;x=1/y"),
            ("g;x=1/../y", "http://a/b/c/y"),
            ("g?y/./x", "http://a/b/c/g?y/./x"),
            ("g?y/../x", "http://a/b/c/g?y/../x"),
            ("g#s/../x", "http://a/b/c/g"),
            ("https://h/x/../y?z#f", "https://h/y?z"),
            ("HTTP://h?z", "http://h/?z"),
            ("//h/x/./y", "http://h/x/y"),
            ("/x//y/", "http://a/x//y/"),
            ("?to=http://b/", "http://a/b/c/d;p?to=http://b/"),
            ("/x?to=http://b/", "http://a/x?to=http://b/"),
            (" /a b/é ", "http://a/a%20b/%C3%A9"),
            ("/x%20y", "http://a/x%20y"),
        ] {
            let url = resolve(&base, reference).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(url.to_string(), resolved, "{reference}");
        }
        let bare = Uri::from_static("http://a");
        assert_eq!(resolve(&bare, "g").unwrap(), "http://a/g");
        assert_eq!(resolve(&bare, "?y").unwrap(), "http://a/?y");
    }
}
