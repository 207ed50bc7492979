//! Requests and responses: the `http` crate's, with our body, and what makes them fit to be sent.
//!
//! **Invariant:** a request that passed [`validate`] has an absolute `http` or `https` url without a
//! fragment, and is within the limits; everything that is wrong with one is told before it is sent.
//! **Invariant:** a response that passed [`normalize`] has no body where HTTP knows none.

use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};

use crate::body::Body;
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::socket::{self, WebSocket};

/// A request to an object.
pub type Request = http::Request<Body>;

/// An object's answer to a [`Request`].
pub type Response = http::Response<Body>;

/// What a request can be made of: a url, which is then got, or a request with any body of ours.
///
/// ```
/// # use stubborn::message::IntoRequest;
/// let request = "http://do/counter?by=2#top".into_request()?;
/// assert_eq!(request.uri(), "http://do/counter?by=2");
/// # Ok::<(), stubborn::Error>(())
/// ```
pub trait IntoRequest {
    /// Makes the request.
    ///
    /// # Errors
    /// Kind *invalid request*, naming the url and what is wrong with it.
    fn into_request(self) -> Result<Request>;
}

impl IntoRequest for &str {
    fn into_request(self) -> Result<Request> {
        parse_url(self)?.into_request()
    }
}

impl IntoRequest for &String {
    fn into_request(self) -> Result<Request> {
        self.as_str().into_request()
    }
}

impl IntoRequest for String {
    fn into_request(self) -> Result<Request> {
        self.as_str().into_request()
    }
}

impl IntoRequest for Uri {
    fn into_request(self) -> Result<Request> {
        let mut request = Request::default();
        *request.uri_mut() = self;
        request.into_request()
    }
}

impl<B: Into<Body>> IntoRequest for http::Request<B> {
    fn into_request(self) -> Result<Request> {
        check_url(self.uri())?;
        Ok(self.map(Into::into))
    }
}

/// Parses an absolute `http` or `https` url; a fragment is dropped. It need not resolve.
///
/// # Errors
/// Kind *invalid request*, naming the url and what is wrong with it.
pub fn parse_url(text: &str) -> Result<Uri> {
    // By bytes: every request is read here, and a search for text costs more than all the rest.
    let scheme_end = text.bytes().position(|byte| matches!(byte, b':' | b'/' | b'?' | b'#'));
    let rest = scheme_end.and_then(|end| text.get(end..)?.strip_prefix("://"));
    let Some(rest) = rest else {
        return Err(bad_url(text, NOT_ABSOLUTE));
    };
    if rest.is_empty() || rest.starts_with(['/', '?', '#']) {
        return Err(bad_url(text, NO_HOST));
    }
    let url = text.parse::<Uri>().map_err(|error| bad_url(text, &error.to_string()))?;
    check_url(&url)?;
    Ok(url)
}

/// Checks that `request` can be sent: its url, its method, and the limits.
///
/// A body is legal with every method, and is sent as it is.
///
/// # Errors
/// Kind *invalid request*, naming the value and the limit.
pub fn validate(request: &Request, limits: &Limits) -> Result<()> {
    let url = request.uri();
    check_url(url)?;
    let url_bytes = url_bytes(url);
    if url_bytes > limits.url_bytes_max {
        return Err(Error::invalid_request(format!(
            "url of {url_bytes} bytes is over the limit of {} bytes",
            limits.url_bytes_max
        )));
    }
    if request.method() == Method::CONNECT {
        return Err(Error::invalid_request("method CONNECT asks for a proxy, not for an object"));
    }
    validate_headers(request.headers(), limits).map_err(Error::invalid_request)
}

/// Checks that `response` can be sent: its status, 101 or 200 to 599, and the limits of its headers.
///
/// # Errors
/// Kind *failed*, naming the value and the limit.
pub fn validate_response(response: &Response, limits: &Limits) -> Result<()> {
    check_status(response.status())?;
    validate_headers(response.headers(), limits).map_err(Error::failed)
}

/// Returns whether `request` asks for a WebSocket.
pub fn is_upgrade(request: &Request) -> bool {
    let protocols = request.headers().get_all(http::header::UPGRADE).iter();
    protocols.filter_map(|value| value.to_str().ok()).any(|value| {
        value.split(',').any(|protocol| protocol.trim().eq_ignore_ascii_case("websocket"))
    })
}

/// Has `request` ask for a WebSocket.
pub fn ask_web_socket(request: &mut Request) {
    request.headers_mut().insert(http::header::UPGRADE, HeaderValue::from_static("websocket"));
}

/// Takes the WebSocket that `response` opens.
///
/// # Errors
/// *failed*, naming the status, where it opens none.
pub fn opened(mut response: Response) -> Result<(Response, WebSocket)> {
    match response.take_web_socket() {
        Some(end) => Ok((response, end)),
        None => Err(Error::failed(format!(
            "the object answered with status {}, and no WebSocket",
            response.status()
        ))
        .with_delivered(true)),
    }
}

/// What a response has beyond what [`http::Response`] holds.
pub trait ResponseExt {
    /// Takes the end of the WebSocket that a response of status 101 opens, for its receiver; none where it
    /// opens none, or it was taken.
    fn take_web_socket(&mut self) -> Option<WebSocket>;
}

impl ResponseExt for Response {
    fn take_web_socket(&mut self) -> Option<WebSocket> {
        socket::detach(self.extensions_mut())
    }
}

/// Returns `response`, to a request of `method`, without the body that HTTP does not let it have.
///
/// Answers to `HEAD`, and those of status 101, 204, 205 and 304, have none: it is dropped, which stops
/// its producer. The headers stay as they are.
#[must_use = "the answer that may be sent is the returned one"]
pub fn normalize(mut response: Response, method: &Method) -> Response {
    let bodiless = matches!(
        response.status(),
        StatusCode::SWITCHING_PROTOCOLS
            | StatusCode::NO_CONTENT
            | StatusCode::RESET_CONTENT
            | StatusCode::NOT_MODIFIED
    );
    if bodiless || method == Method::HEAD {
        *response.body_mut() = Body::empty();
    }
    response
}

/// Responses in one line.
pub mod response {
    use http::{HeaderValue, StatusCode, header};

    use super::{Response, check_status};
    use crate::body::Body;
    use crate::error::{Error, Result};
    use crate::socket::{self, WebSocket};

    /// Makes a response of status 200 and plain text.
    pub fn text(text: impl Into<String>) -> Response {
        with_type("text/plain;charset=UTF-8", text.into().into())
    }

    /// Makes a response of status 200 and the JSON of `value`.
    ///
    /// # Errors
    /// Kind *failed* where `value` has no JSON, for example a map whose keys are not text.
    #[cfg(feature = "server")]
    pub fn json<T: serde::Serialize + ?Sized>(value: &T) -> Result<Response> {
        Ok(with_type("application/json", serde_json::to_vec(value)?.into()))
    }

    /// Makes a response of `status` and plain text.
    ///
    /// ```
    /// # use stubborn::message::response;
    /// assert_eq!(response::status(404, "no such key")?.status(), 404);
    /// # Ok::<(), stubborn::Error>(())
    /// ```
    ///
    /// # Errors
    /// Kind *failed* where `status` is neither 101 nor between 200 and 599.
    pub fn status(status: u16, text: impl Into<String>) -> Result<Response> {
        let status = StatusCode::from_u16(status)
            .map_err(|_| Error::failed(format!("status {status} is not a status of HTTP")))?;
        check_status(status)?;
        let mut response = self::text(text);
        *response.status_mut() = status;
        Ok(response)
    }

    /// Makes the response of status 101 that gives its receiver `end` of a WebSocket.
    pub fn upgrade(end: WebSocket) -> Response {
        let mut response = Response::default();
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        socket::attach(response.extensions_mut(), end);
        response
    }

    fn with_type(content_type: &'static str, body: Body) -> Response {
        let mut response = Response::new(body);
        let content_type = HeaderValue::from_static(content_type);
        response.headers_mut().insert(header::CONTENT_TYPE, content_type);
        response
    }
}

fn check_url(url: &Uri) -> Result<()> {
    let (Some(scheme), Some(authority)) = (url.scheme_str(), url.authority()) else {
        return Err(bad_url(&url.to_string(), NOT_ABSOLUTE));
    };
    let wrong = if scheme != "http" && scheme != "https" {
        format!("its scheme is {scheme}, not http or https")
    } else if !authority.as_str().bytes().any(|byte| matches!(byte, b':' | b'@' | b'[')) {
        // Most are a host and nothing else, and none is empty.
        return Ok(());
    } else if authority.host().is_empty() {
        NO_HOST.to_owned()
    } else if !has_good_port(authority) {
        "its port is not a number up to 65535".to_owned()
    } else {
        return Ok(());
    };
    Err(bad_url(&url.to_string(), &wrong))
}

fn has_good_port(authority: &http::uri::Authority) -> bool {
    // After the `]` of an IPv6 address, or else in the whole of it, less the user.
    let host = authority.as_str().rsplit(['@', ']']).next().unwrap_or_default();
    match host.rsplit_once(':') {
        Some((_, port)) => port.is_empty() || authority.port_u16().is_some(),
        None => true,
    }
}

fn bad_url(url: &str, wrong: &str) -> Error {
    let (shown, dots) = match url.char_indices().nth(URL_CHARS_SHOWN_MAX) {
        Some((end, _)) => (url.get(..end).unwrap_or_default(), "…"),
        None => (url, ""),
    };
    Error::invalid_request(format!("url \"{shown}{dots}\": {wrong}"))
}

/// The length of `url` as it is sent.
fn url_bytes(url: &Uri) -> usize {
    let scheme = url.scheme_str().map_or(0, |scheme| scheme.len() + "://".len());
    let authority = url.authority().map_or(0, |authority| authority.as_str().len());
    let query = url.query().map_or(0, |query| query.len() + "?".len());
    scheme + authority + url.path().len() + query
}

fn check_status(status: StatusCode) -> Result<()> {
    match status.as_u16() {
        101 | 200..=599 => Ok(()),
        status => Err(Error::failed(format!("status {status} is not 101 or within 200 to 599"))),
    }
}

fn validate_headers(headers: &HeaderMap, limits: &Limits) -> Result<(), String> {
    let count = headers.len();
    if count > limits.headers_max {
        return Err(format!("{count} headers are over the limit of {}", limits.headers_max));
    }
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if bytes > limits.header_bytes_max {
        let limit = limits.header_bytes_max;
        return Err(format!("headers of {bytes} bytes are over the limit of {limit} bytes"));
    }
    Ok(())
}

const NOT_ABSOLUTE: &str = "it is not absolute: it needs a scheme and a host, as in http://do/x";

const NO_HOST: &str = "it has no host";

/// How much of a bad url an error tells.
const URL_CHARS_SHOWN_MAX: usize = 200;

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures::executor::block_on;

    use super::*;
    use crate::error::Kind;

    fn sized_request(url: &str, headers: usize, value: &str) -> Request {
        let mut request = url.into_request().unwrap();
        for _ in 0..headers {
            request.headers_mut().append("x-h", value.parse().unwrap());
        }
        request
    }

    #[test]
    fn a_good_url_arrives_as_given_less_its_fragment() {
        for (url, sent) in [
            ("http://do/x", "http://do/x"),
            ("http://do", "http://do/"),
            ("http://do?q", "http://do/?q"),
            ("http://do#f", "http://do/"),
            ("http://do/#f", "http://do/"),
            ("https://do:8443/a/b?c=d&e#f", "https://do:8443/a/b?c=d&e"),
            ("http://do:/x", "http://do:/x"),
            ("HTTP://Do/X", "http://Do/X"),
            ("http://[::1]:80/x", "http://[::1]:80/x"),
            ("http://[::1]/x", "http://[::1]/x"),
            ("http://user:secret@do/x", "http://user:secret@do/x"),
            ("http://does.not.resolve.invalid/%20?%20", "http://does.not.resolve.invalid/%20?%20"),
        ] {
            let request = url.into_request().unwrap_or_else(|error| panic!("{url}: {error}"));
            assert_eq!(request.uri().to_string(), sent, "{url}");
            assert_eq!(url_bytes(request.uri()), sent.len(), "{url}");
            assert_eq!(request.method(), Method::GET);
            assert!(request.body().is_end_stream());
        }
    }

    #[test]
    fn a_bad_url_is_refused_and_named() {
        for (url, wrong) in [
            ("", "not absolute"),
            ("/x", "not absolute"),
            ("do/x", "not absolute"),
            ("do", "not absolute"),
            ("mailto:a@b", "not absolute"),
            ("//do/x", "not absolute"),
            ("ftp://do/x", "scheme is ftp"),
            ("/x?to=http://do/x", "not absolute"),
            ("/x?to=http://", "not absolute"),
            ("do/x?to=http://do/x", "not absolute"),
            ("http://", "no host"),
            ("http://?q", "no host"),
            ("http:///x", "no host"),
            ("http://:80/x", "no host"),
            ("http://do:99999/x", "port"),
            ("http://do:http/x", "port"),
            ("http://[::1]:x/", "port"),
            ("http://do/a b", "invalid"),
            ("http://do/\n", "invalid"),
            ("http://a b/", "invalid"),
        ] {
            let error = url.into_request().map(drop).expect_err(url);
            assert_eq!(error.kind, Kind::InvalidRequest, "{url}");
            assert!(!error.delivered);
            assert!(error.message.contains(&format!("\"{url}\"")), "{error}");
            assert!(error.message.contains(wrong), "{url}: {error}");
        }
    }

    #[test]
    fn a_long_bad_url_is_named_in_part() {
        let error = "é".repeat(5000).into_request().map(drop).unwrap_err();
        assert!(error.message.len() < 600 && error.message.contains('…'), "{error}");
    }

    #[test]
    fn everything_a_request_can_be_made_of_makes_the_same_one() {
        let url = "http://do/x";
        let post = || http::Request::post(url);
        for request in [
            post().body(Body::from("hi")).unwrap().into_request(),
            post().body(Bytes::from("hi")).unwrap().into_request(),
            post().body(String::from("hi")).unwrap().into_request(),
            post().body("hi").unwrap().into_request(),
            post().body(b"hi".to_vec()).unwrap().into_request(),
        ] {
            let request = request.unwrap();
            assert_eq!((request.method(), request.uri().to_string()), (&Method::POST, url.into()));
            assert_eq!(request.body().known().unwrap(), "hi");
        }
        let text = url.to_owned();
        for request in [
            url.into_request(),
            (&text).into_request(),
            text.clone().into_request(),
            Uri::from_static(url).into_request(),
            http::Request::get(url).body(()).unwrap().into_request(),
        ] {
            assert_eq!(request.unwrap().uri(), url);
        }
        let relative = http::Request::get("/x").body(()).unwrap();
        assert_eq!(relative.into_request().unwrap_err().kind, Kind::InvalidRequest);
    }

    #[test]
    fn a_request_is_refused_exactly_past_its_limits() {
        let limits =
            Limits { headers_max: 2, header_bytes_max: 10, url_bytes_max: 12, ..Limits::default() };
        let ok = ("http://do/12", 2, "22");
        for ((url, headers, value), wrong) in [
            (ok, None),
            (("http://do/123", 0, ""), Some("url of 13 bytes is over the limit of 12 bytes")),
            (("http://do/1?3", 0, ""), Some("url of 13 bytes")),
            (("http://do/", 3, ""), Some("3 headers are over the limit of 2")),
            (("http://do/", 2, "333"), Some("headers of 12 bytes are over the limit of 10 bytes")),
        ] {
            let result = validate(&sized_request(url, headers, value), &limits);
            assert_eq!(result.is_ok(), wrong.is_none(), "{url}");
            if let (Err(error), Some(wrong)) = (result, wrong) {
                assert_eq!(error.kind, Kind::InvalidRequest);
                assert!(error.message.contains(wrong), "{error}");
            }
        }
        let relative = http::Request::get("/x").body(Body::empty()).unwrap();
        assert!(validate(&relative, &limits).is_err());
        let mut connect = sized_request("http://do/", 0, "");
        *connect.method_mut() = Method::CONNECT;
        assert!(validate(&connect, &limits).unwrap_err().message.contains("CONNECT"));
    }

    #[test]
    fn a_response_has_a_final_status_or_101() {
        let limits = Limits { headers_max: 1, ..Limits::default() };
        for (status, good) in [
            (100, false),
            (101, true),
            (102, false),
            (199, false),
            (200, true),
            (599, true),
            (600, false),
            (999, false),
        ] {
            let mut response = response::text("x");
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            assert_eq!(validate_response(&response, &limits).is_ok(), good, "{status}");
            assert_eq!(response::status(status, "x").is_ok(), good, "{status}");
        }
        assert!(response::status(1000, "x").is_err());
        let mut response = response::text("x");
        response.headers_mut().insert("x-h", "1".parse().unwrap());
        assert!(validate_response(&response, &limits).is_err());
    }

    #[test]
    fn a_body_is_dropped_exactly_where_http_knows_none() {
        for (method, status, kept) in [
            (Method::GET, 200, true),
            (Method::HEAD, 200, false),
            (Method::HEAD, 404, false),
            (Method::GET, 101, false),
            (Method::POST, 204, false),
            (Method::GET, 205, false),
            (Method::GET, 206, true),
            (Method::GET, 304, false),
            (Method::POST, 303, true),
        ] {
            let (writer, body) = Body::pipe(8);
            let mut response = Response::new(body);
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            let response = normalize(response, &method);
            assert_eq!(!writer.is_closed(), kept, "{method} {status}");
            assert_eq!(response.body().known().is_none(), kept);
        }
    }

    #[test]
    fn responses_in_one_line_say_their_type() {
        let text = response::text("hi");
        assert_eq!(text.headers()["content-type"], "text/plain;charset=UTF-8");
        assert_eq!(block_on(text.into_body().text()).unwrap(), "hi");
        #[cfg(feature = "server")]
        {
            let json = response::json(&["a", "b"]).unwrap();
            assert_eq!(json.headers()["content-type"], "application/json");
            assert_eq!(block_on(json.into_body().text()).unwrap(), r#"["a","b"]"#);
        }
    }
}
