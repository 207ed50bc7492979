//! Errors as HTTP tells them: a status, and the error as JSON.
//!
//! **Invariant:** the message of an object's error leaves only where that is configured; our own always does.

use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response as HttpResponse, StatusCode};
use serde::Serialize;

use crate::body::Body;
use crate::error::{Error, Kind};
use crate::message::Response;

/// Whether messages of errors that come from objects are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Messages {
    Shown,
    Hidden,
}

#[derive(Serialize)]
struct Answer<'a> {
    error: Told<'a>,
}

#[derive(Serialize)]
struct Told<'a> {
    kind: &'static str,
    remote: bool,
    retryable: bool,
    overloaded: bool,
    reset: bool,
    delivered: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
}

/// Answers that a call failed.
pub(super) fn of_call(error: &Error, messages: Messages) -> Response {
    let shown = !error.remote || messages == Messages::Shown;
    let message = Some(error.message.as_str()).filter(|_| shown);
    let mut response = answer(status(error), error, message);
    if response.status() == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// Answers that this door refuses a request.
pub(super) fn refusal(status: StatusCode, kind: Kind, message: impl Into<String>) -> Response {
    let error = Error::new(kind, message);
    answer(status, &error, Some(&error.message))
}

/// Answers that there is nothing, in the same words whatever there is beside it.
pub(super) fn nothing_here() -> Response {
    const TOLD: &str = "nothing is served here; objects are at /NAMESPACE/NAME/ where exposed";
    refusal(StatusCode::NOT_FOUND, Kind::NoSuchNamespace, TOLD)
}

/// Makes an answer of JSON.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Response {
    let body = serde_json::to_vec(value).unwrap_or_default();
    let mut response = HttpResponse::new(Body::from(body));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

fn answer(status: StatusCode, error: &Error, message: Option<&str>) -> Response {
    let told = Told {
        kind: error.kind.as_str(),
        remote: error.remote,
        retryable: error.retryable,
        overloaded: error.overloaded,
        reset: error.reset,
        delivered: error.delivered,
        message,
    };
    json(status, &Answer { error: told })
}

/// Returns whose fault it is. What an object's own code complains of is never its client's.
fn status(error: &Error) -> StatusCode {
    if error.overloaded || error.kind == Kind::Overloaded {
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    match (error.kind, error.remote) {
        (Kind::Disconnected, _) => StatusCode::BAD_GATEWAY,
        (Kind::Timeout, _) => StatusCode::GATEWAY_TIMEOUT,
        (Kind::InvalidRequest | Kind::InvalidId | Kind::Truncated, false) => {
            StatusCode::BAD_REQUEST
        }
        (Kind::WrongNamespace | Kind::NoSuchNamespace | Kind::NoSuchObject, false) => {
            StatusCode::NOT_FOUND
        }
        (Kind::Unimplemented, false) => StatusCode::NOT_IMPLEMENTED,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_a_status_and_an_objects_complaint_is_no_clients_fault() {
        for (kind, ours, theirs) in [
            (Kind::Failed, 500, 500),
            (Kind::Disconnected, 502, 502),
            (Kind::Overloaded, 503, 503),
            (Kind::Unimplemented, 501, 500),
            (Kind::InvalidId, 400, 500),
            (Kind::WrongNamespace, 404, 500),
            (Kind::NoSuchNamespace, 404, 500),
            (Kind::NoSuchObject, 404, 500),
            (Kind::InvalidRequest, 400, 500),
            (Kind::Truncated, 400, 500),
            (Kind::Timeout, 504, 504),
        ] {
            let error = Error::new(kind, "why");
            assert_eq!(status(&error).as_u16(), ours, "{kind}");
            assert_eq!(status(&error.with_remote(true)).as_u16(), theirs, "{kind}");
        }
    }

    #[test]
    fn an_error_is_told_as_data_and_its_message_only_where_configured() {
        let error = Error::overloaded("secret").with_remote(true).with_delivered(true);
        let flags = r#""kind":"overloaded","remote":true,"retryable":false,"overloaded":true,"reset":false,"delivered":true"#;
        let ours = of_call(&Error::overloaded("too much waits"), Messages::Hidden);
        let told = String::from_utf8_lossy(ours.body().known().unwrap());
        assert!(told.contains("too much waits"), "{told}");
        for (messages, told) in [
            (Messages::Hidden, format!("{{\"error\":{{{flags}}}}}")),
            (Messages::Shown, format!("{{\"error\":{{{flags},\"message\":\"secret\"}}}}")),
        ] {
            let response = of_call(&error, messages);
            assert_eq!(response.headers()[RETRY_AFTER], "1");
            assert_eq!(response.headers()[CONTENT_TYPE], "application/json");
            assert_eq!(response.body().known().unwrap(), told.as_bytes());
        }
    }
}
