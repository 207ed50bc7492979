//! Who may see what is nobody's own: the listing, and the inspector.
//!
//! **Invariant:** where no token is asked for, a page of another site that has its name lead here sees nothing.

use http::StatusCode;
use http::header::{AUTHORIZATION, HeaderValue, WWW_AUTHENTICATE};
use http::request::Parts;
use http::uri::Authority;

use super::token::Tokens;
use crate::message::Response;

/// Who may see it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Access<'a> {
    /// Who has one of these tokens.
    Bearers(&'a Tokens),
    /// Who reaches the gateway, which only this machine does.
    Local,
    /// Nobody: other machines reach the gateway, and no token is configured.
    Nobody,
}

/// Why somebody may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Denied {
    /// He has no token that is known.
    Unknown,
    /// He asked by a name that is not this machine's.
    Foreign,
    /// Nobody may.
    Everybody,
}

impl Access<'_> {
    /// Returns whether the sender of a request may.
    pub(super) fn admit(self, head: &Parts, host: &Authority) -> Result<(), Denied> {
        match self {
            Self::Local if is_local(host) => Ok(()),
            // A page of another site that has its name lead here asks by that name.
            Self::Local => Err(Denied::Foreign),
            Self::Nobody => Err(Denied::Everybody),
            Self::Bearers(tokens) => {
                let given = head.headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
                let token = given.and_then(|given| {
                    let (scheme, token) = given.split_at_checked(b"Bearer ".len())?;
                    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
                });
                match token.is_some_and(|token| tokens.has(token)) {
                    true => Ok(()),
                    false => Err(Denied::Unknown),
                }
            }
        }
    }
}

impl Denied {
    /// Returns the status that says so.
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::Unknown => StatusCode::UNAUTHORIZED,
            Self::Foreign | Self::Everybody => StatusCode::FORBIDDEN,
        }
    }

    /// Says why.
    pub(super) fn told(self) -> &'static str {
        match self {
            Self::Unknown => "Authentication error",
            Self::Foreign => "without tokens, only localhost and loopback addresses are served",
            Self::Everybody => {
                "no token is configured (gateway.api_tokens), and other machines reach this address"
            }
        }
    }

    /// Has an answer say what it takes.
    pub(super) fn mark(self, response: &mut Response) {
        if self == Self::Unknown {
            let bearer = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(WWW_AUTHENTICATE, bearer);
        }
    }
}

fn is_local(host: &Authority) -> bool {
    let host = host.host().trim_start_matches('[').trim_end_matches(']');
    let is_loopback = |address: std::net::IpAddr| address.is_loopback();
    host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(is_loopback)
}

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
}
