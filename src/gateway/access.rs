//! Who may see what is nobody's own: the listing, and the inspector.
//!
//! **Invariant:** where no token is asked for, a page of another site that has its name lead here sees nothing.
//! **Invariant:** a page of another site gets no data, even where the browser that shows it may have it.

use http::StatusCode;
use http::header::{
    AUTHORIZATION, CACHE_CONTROL, HeaderName, HeaderValue, REFERRER_POLICY, WWW_AUTHENTICATE,
    X_CONTENT_TYPE_OPTIONS,
};
use http::request::Parts;
use http::uri::Authority;

use super::origin::{self, is_foreign, is_local};
use super::token::Tokens;
use crate::message::Response;

/// Who may see it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Access<'a> {
    /// Who has one of these tokens.
    Bearers(&'a Tokens),
    /// Who reaches the gateway, which only this machine does.
    Local,
    /// Nobody: others reach the gateway, themselves or by a proxy, and no token is configured.
    Nobody,
}

/// Why somebody may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Denied {
    /// He has no token that is known.
    Unknown,
    /// He asked by a name that is not this machine's.
    Foreign,
    /// A page of another site asks.
    Page,
    /// Nobody may.
    Everybody,
}

impl Access<'_> {
    /// Returns whether the sender of a request may.
    pub(super) fn admit(self, head: &Parts, host: &Authority) -> Result<(), Denied> {
        match self {
            // A page of another site that has its name lead here asks by that name.
            Self::Local if !is_local(host) => Err(Denied::Foreign),
            Self::Nobody => Err(Denied::Everybody),
            Self::Bearers(tokens) if !tokens.has(bearer(head)) => Err(Denied::Unknown),
            Self::Local | Self::Bearers(_) if is_foreign(head) => Err(Denied::Page),
            Self::Local | Self::Bearers(_) => Ok(()),
        }
    }
}

/// Returns the token that a request has; an empty one is nobody's.
fn bearer(head: &Parts) -> &[u8] {
    let given = head.headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
    let token = given.and_then(|given| {
        let (scheme, token) = given.split_at_checked(b"Bearer ".len())?;
        scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
    });
    token.unwrap_or_default()
}

/// Keeps an answer out of caches, of pages of other sites, and of being taken for something else.
pub(super) fn guarded(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    for name in ["cross-origin-resource-policy", "cross-origin-opener-policy"] {
        let same = HeaderValue::from_static("same-origin");
        headers.insert(HeaderName::from_static(name), same);
    }
    response
}

impl Denied {
    /// Returns the status that says so.
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::Unknown => StatusCode::UNAUTHORIZED,
            Self::Foreign | Self::Page | Self::Everybody => StatusCode::FORBIDDEN,
        }
    }

    /// Says why.
    pub(super) fn told(self) -> &'static str {
        match self {
            Self::Unknown => "Authentication error",
            Self::Foreign => origin::FOREIGN_HOST,
            Self::Page => "pages of other sites get nothing here",
            Self::Everybody => {
                "no token is configured (gateway.api_tokens), and others reach this address, themselves or by a proxy"
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
