//! What a server checks before it opens a WebSocket.

use http::header::{
    CONNECTION, HeaderMap, HeaderValue, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderName, StatusCode};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// Why a request can't open a WebSocket, and the status to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// 400, or 426 with the header `sec-websocket-version: 13`.
    pub status: StatusCode,
    /// What is wrong, for people.
    pub message: &'static str,
}

/// Returns the value of `sec-websocket-accept` for a request of HTTP/1.1 with these headers.
///
/// # Errors
/// What to refuse the request with.
pub fn accept_key(headers: &HeaderMap) -> Result<HeaderValue, Refusal> {
    if !asks(headers) || !has_token(headers, &CONNECTION, "upgrade") {
        return Err(bad("a WebSocket is asked for by upgrade: websocket and connection: upgrade"));
    }
    let mut versions = headers.get_all(SEC_WEBSOCKET_VERSION).iter();
    if versions.next().map(HeaderValue::as_bytes) != Some(b"13") || versions.next().is_some() {
        let message = "sec-websocket-version has to be 13";
        return Err(Refusal { status: StatusCode::UPGRADE_REQUIRED, message });
    }
    let mut keys = headers.get_all(SEC_WEBSOCKET_KEY).iter();
    let Some(key) = keys.next() else { return Err(bad("there is no sec-websocket-key")) };
    if keys.next().is_some() || !is_key(key.as_bytes()) {
        return Err(bad("sec-websocket-key has to be the base64 of 16 bytes"));
    }
    let accept = derive_accept_key(key.as_bytes());
    Ok(HeaderValue::from_str(&accept).expect("base64 is a header's value"))
}

fn bad(message: &'static str) -> Refusal {
    Refusal { status: StatusCode::BAD_REQUEST, message }
}

/// Returns whether a request of HTTP/1.1 with these headers asks for a WebSocket, well or badly.
pub fn asks(headers: &HeaderMap) -> bool {
    has_token(headers, &UPGRADE, "websocket")
}

/// Returns whether a header's value is a list with this token.
pub fn is_token_of(value: &[u8], token: &str) -> bool {
    let mut tokens = value.split(|byte| *byte == b',');
    tokens.any(|one| one.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers.get_all(name).iter().any(|value| is_token_of(value.as_bytes(), token))
}

/// Returns whether it is the base64 of 16 bytes: 22 digits and two signs of padding.
fn is_key(key: &[u8]) -> bool {
    let digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    let digits = key.strip_suffix(b"==");
    digits.is_some_and(|digits| digits.len() == 22 && digits.iter().all(digit))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: [(&str, &str); 4] = [
        ("upgrade", "h2c, WebSocket"),
        ("connection", "keep-alive, Upgrade"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];

    fn headers(changed: (&'static str, Option<&'static str>)) -> HeaderMap {
        let good = GOOD.iter().filter(|(name, _)| *name != changed.0).copied();
        let all = good.chain(changed.1.map(|value| (changed.0, value)));
        all.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn the_key_of_the_rfc_has_the_accept_value_of_the_rfc() {
        let accept = accept_key(&headers(("x", None))).unwrap();
        assert_eq!(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn a_request_that_is_no_upgrade_is_refused_and_told_why() {
        for (changed, status, message) in [
            (("upgrade", None), 400, "upgrade: websocket"),
            (("upgrade", Some("h2c")), 400, "upgrade: websocket"),
            (("connection", Some("close")), 400, "connection: upgrade"),
            (("sec-websocket-version", None), 426, "13"),
            (("sec-websocket-version", Some("8")), 426, "13"),
            (("sec-websocket-key", None), 400, "no sec-websocket-key"),
            (("sec-websocket-key", Some("short==")), 400, "16 bytes"),
            (("sec-websocket-key", Some("dGhlIHNhbXBsZSBub25jZQ")), 400, "16 bytes"),
            (("sec-websocket-key", Some("dGhlIHNhbXBsZSBub25j ZQ==")), 400, "16 bytes"),
        ] {
            let refusal = accept_key(&headers(changed)).unwrap_err();
            assert_eq!(refusal.status, status, "{changed:?}");
            assert!(refusal.message.contains(message), "{changed:?}: {}", refusal.message);
        }
        let mut twice = headers(("x", None));
        twice.append(SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ==".parse().unwrap());
        assert_eq!(accept_key(&twice).unwrap_err().status, 400);
    }
}
