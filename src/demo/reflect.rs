//! `PROBE`: answers that show what arrived, and whom it reached.

use http::header::{HeaderName, HeaderValue};
use serde::Serialize;

use super::query::{Complaint, Query};
use crate::error::Result;
use crate::message::{Request, Response, response as respond};
use crate::object::State;

#[derive(Serialize)]
struct Echo {
    method: String,
    url: String,
    headers: Vec<(String, String)>,
    body: String,
    body_encoding: &'static str,
}

/// Answers the request as JSON. A body that is not text is told in hex digits.
///
/// # Errors
/// Where the body was cut short, or is too long to be told.
pub async fn echo(request: Request) -> Result<Response> {
    let (head, body) = request.into_parts();
    let bytes = body.bytes_limited(ECHO_BYTES_MAX).await?;
    let (body, body_encoding) = match std::str::from_utf8(&bytes) {
        Ok(text) => (text.to_owned(), "text"),
        Err(_) => (hex(&bytes), "hex"),
    };
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers = head.headers.iter();
    respond::json(&Echo {
        method: head.method.to_string(),
        url: head.uri.to_string(),
        headers: headers.map(|(name, value)| (name.to_string(), text(value))).collect(),
        body,
        body_encoding,
    })
}

#[derive(Serialize)]
struct Whoami {
    id: String,
    name: Option<String>,
    namespace: String,
    activation: u64,
}

/// Answers what the object is called, as JSON.
///
/// # Errors
/// None: these have a JSON.
pub fn whoami(state: &State) -> Result<Response> {
    respond::json(&Whoami {
        id: state.id().to_string(),
        name: state.name().map(|name| name.to_string()),
        namespace: state.namespace().to_string(),
        activation: state.activation(),
    })
}

/// Answers the status that the query asks for.
pub fn status(query: &Query) -> Result<Response, Complaint> {
    let code = query.number("code")?.unwrap_or(200);
    respond::status(code, format!("status {code}")).map_err(|error| error.to_string())
}

/// Answers the headers that the query asks for, in order.
pub fn headers(query: &Query) -> Result<Response, Complaint> {
    let mut response = respond::text("see the headers");
    for header in query.all("set") {
        let parsed = header.split_once(':').and_then(|(name, value)| {
            let name = HeaderName::from_bytes(name.trim().as_bytes()).ok()?;
            Some((name, HeaderValue::from_str(value.trim()).ok()?))
        });
        let Some((name, value)) = parsed else {
            return Err(format!("set={header:?} is not NAME:VALUE"));
        };
        response.headers_mut().append(name, value);
    }
    Ok(response)
}

/// Returns the hex digits of `bytes`.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The longest body that is told whole.
const ECHO_BYTES_MAX: usize = 4 << 20;
