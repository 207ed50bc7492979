//! The page.
//!
//! **Invariant:** a browser runs the script that is in the page, and no other; it loads nothing.

use http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue};
use sha2::{Digest, Sha256};

use crate::body::Body;
use crate::message::Response;

/// Answers the page.
pub(super) fn response() -> Response {
    let page = HTML.replacen("<style></style>", &format!("<style>{STYLE}</style>"), 1).replacen(
        "<script></script>",
        &format!("<script>{SCRIPT}</script>"),
        1,
    );
    let mut response = Response::new(Body::from(page));
    let html = HeaderValue::from_static("text/html; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, html);
    let policy = format!(
        "default-src 'none'; script-src '{}'; style-src '{}'; connect-src 'self'; \
         img-src data:; form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
        source(SCRIPT),
        source(STYLE)
    );
    if let Ok(policy) = HeaderValue::try_from(policy) {
        response.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
    }
    response
}

/// Names a text as a policy does, by its hash.
fn source(text: &str) -> String {
    format!("sha256-{}", base64(&Sha256::digest(text.as_bytes())))
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
        let bits = bits << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let digit = DIGITS.get((bits >> (18 - 6 * place) & 63) as usize);
            let digit = digit.filter(|_| place <= chunk.len()).copied();
            text.push(char::from(digit.unwrap_or(b'=')));
        }
    }
    text
}

const HTML: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_whole_and_its_policy_names_its_script() {
        let response = response();
        let page = std::str::from_utf8(response.body().known().unwrap()).unwrap();
        assert!(page.contains(STYLE) && page.contains(SCRIPT));
        assert!(!STYLE.contains("</") && !SCRIPT.contains("</script") && !SCRIPT.contains("<!--"));
        for loaded in ["http://", "https://", " src=", "innerHTML", "eval("] {
            let mine = page.replace("http://www.w3.org/2000/svg", "");
            assert!(!mine.contains(loaded), "{loaded}");
        }
        let policy = response.headers()[CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.contains(&source(SCRIPT)), "{policy}");
    }

    #[test]
    fn bytes_become_base64() {
        for (bytes, text) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")]
        {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }
}
