//! Whose pages, as a browser shows them, reach objects.
//!
//! **Invariant:** where nobody needs to prove who he is because only this machine gets through, a page of another
//! site gets through neither by the browser that shows it, nor by having its own name lead here.

use http::header::{HeaderMap, HeaderValue, ORIGIN};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderName, Method, header};

use crate::rfc6455;

/// Whose pages may.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pages<'a> {
    /// Those of this machine, and of these origins.
    OfThisMachine(&'a [String]),
    /// All; WebSockets of these origins and the same one only, where there is any.
    All(&'a [String]),
}

/// Why a page may not.
pub(super) type Turned = &'static str;

impl Pages<'_> {
    /// Returns whether a request to `host` may pass, which leads to an object by its path, or by itself.
    pub(super) fn admit(self, head: &Parts, host: &Authority, routed: bool) -> Result<(), Turned> {
        let origin = head.headers.get(ORIGIN).map(HeaderValue::as_bytes);
        let listed = |origins: &[String]| {
            let is =
                |known: &String| origin.is_some_and(|o| o.eq_ignore_ascii_case(known.as_bytes()));
            origins.iter().any(is)
        };
        let opens = rfc6455::asks(&head.headers);
        match self {
            Self::All(origins) if origins.is_empty() || !opens || listed(origins) => Ok(()),
            Self::All(_) => refuse_unless(origin.is_none_or(|origin| is_of(origin, host))),
            Self::OfThisMachine(_) if !routed && !is_local(host) => Err(FOREIGN_HOST),
            Self::OfThisMachine(origins) if listed(origins) || (routed && !opens) => Ok(()),
            Self::OfThisMachine(_) => {
                let near =
                    |origin| is_of(origin, host) || authority(origin).is_some_and(|o| is_local(&o));
                refuse_unless(origin.is_none_or(near) && (opens || !is_by_another_site(head)))
            }
        }
    }
}

fn refuse_unless(good: bool) -> Result<(), Turned> {
    if good { Ok(()) } else { Err(FOREIGN_PAGE) }
}

/// Returns whether a request says that somebody passed it on.
pub(super) fn is_relayed(headers: &HeaderMap) -> bool {
    let of_proxies = |name: &HeaderName| {
        *name == header::FORWARDED
            || *name == header::VIA
            || name.as_str().starts_with("x-forwarded-")
            || name.as_str() == "x-real-ip"
    };
    headers.keys().any(of_proxies)
}

/// Returns whether a host is this machine, whoever asks.
pub(super) fn is_local(host: &Authority) -> bool {
    let host = host.host().trim_start_matches('[').trim_end_matches(']');
    let is_loopback = |address: std::net::IpAddr| address.is_loopback();
    host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(is_loopback)
}

/// Returns whether a browser says that a page of another origin asks, a near one too.
pub(super) fn is_foreign(head: &Parts) -> bool {
    let site = head.headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    site.is_some_and(|site| !matches!(site, b"same-origin" | b"none"))
}

/// Returns whether a browser says that a page of another site asks, and not that its reader follows a link.
fn is_by_another_site(head: &Parts) -> bool {
    let says = |name, value: &str| head.headers.get(name).is_some_and(|said| said == value);
    let follows = matches!(head.method, Method::GET | Method::HEAD)
        && says("sec-fetch-mode", "navigate")
        && says("sec-fetch-dest", "document");
    says("sec-fetch-site", "cross-site") && !follows
}

/// Returns whether a page of `origin` is of this host.
fn is_of(origin: &[u8], host: &Authority) -> bool {
    authority(origin).is_some_and(|origin| origin.host().eq_ignore_ascii_case(host.host()))
}

fn authority(origin: &[u8]) -> Option<Authority> {
    let (_, authority) = std::str::from_utf8(origin).ok()?.split_once("://")?;
    authority.parse().ok()
}

/// What who asks by another name is told.
pub(super) const FOREIGN_HOST: &str =
    "without tokens, only localhost and loopback addresses are served";
const FOREIGN_PAGE: &str =
    "pages of other sites are not served here, unless gateway.allowed_origins has their origin";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_local_by_name_or_address() {
        for (host, local) in [
            ("localhost", true),
            ("LOCALHOST:7480", true),
            ("127.0.0.1:7480", true),
            ("127.9.9.9", true),
            ("[::1]:7480", true),
            ("localhost.evil.example", false),
            ("evil.example", false),
            ("10.0.0.1", false),
        ] {
            assert_eq!(is_local(&host.parse().unwrap()), local, "{host}");
        }
    }

    fn admits(pages: Pages<'_>, method: &str, host: &str, headers: &[(&str, &str)]) -> bool {
        let mut request = http::Request::builder().method(method);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        pages.admit(&head, &host.parse().unwrap(), host.starts_with("routed")).is_ok()
    }

    #[test]
    fn a_page_of_another_site_reaches_nothing_of_this_machine_but_by_a_link() {
        let allowed = ["https://app.example".to_owned()];
        let pages = Pages::OfThisMachine(&allowed);
        let (upgrade, cross) = (("upgrade", "websocket"), ("sec-fetch-site", "cross-site"));
        let (evil, app) = (("origin", "http://evil.example"), ("origin", "https://app.example"));
        let near = ("origin", "http://127.0.0.1:3000");
        let (link, frame) = (("sec-fetch-dest", "document"), ("sec-fetch-dest", "iframe"));
        let navigate = ("sec-fetch-mode", "navigate");
        for (method, host, headers, good) in [
            ("POST", "localhost:7480", &[][..], true),
            ("POST", "127.0.0.1", &[near], true),
            ("POST", "localhost", &[near, ("sec-fetch-site", "same-site")], true),
            ("GET", "localhost", &[cross, navigate, link], true),
            ("GET", "localhost", &[cross, navigate, frame], false),
            ("GET", "localhost", &[cross], false),
            ("POST", "localhost", &[cross, navigate, link], false),
            ("POST", "localhost", &[evil], false),
            ("POST", "localhost", &[("origin", "null")], false),
            ("POST", "localhost", &[app, cross], true),
            ("GET", "evil.example", &[], false),
            ("GET", "localhost", &[upgrade], true),
            ("GET", "localhost", &[upgrade, near], true),
            ("GET", "localhost", &[upgrade, app], true),
            ("GET", "localhost", &[upgrade, evil], false),
            ("GET", "routed.example", &[evil], true),
            ("GET", "routed.example", &[upgrade, evil], false),
            ("GET", "routed.example", &[upgrade, ("origin", "http://routed.example:80")], true),
        ] {
            assert_eq!(admits(pages, method, host, headers), good, "{method} {host} {headers:?}");
        }
    }

    #[test]
    fn elsewhere_web_sockets_are_for_the_origins_that_are_told() {
        let app = ["https://app.example".to_owned()];
        let socket = |origin| vec![("upgrade", "websocket"), ("origin", origin)];
        for (origins, headers, good) in [
            (&[][..], socket("http://evil.example"), true),
            (&app, socket("http://evil.example"), false),
            (&app, socket("https://app.example"), true),
            (&app, socket("https://do.example"), true),
            (&app, vec![("upgrade", "websocket")], true),
            (&app, vec![("origin", "http://evil.example")], true),
        ] {
            assert_eq!(admits(Pages::All(origins), "GET", "do.example", &headers), good);
        }
    }
}
