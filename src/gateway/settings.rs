//! What the gateway is told: whom it trusts, what it shows, where hosts lead.
//!
//! **Invariant:** a token is never printed.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use super::token::Tokens;
use crate::error::{Error, Result};

/// What the gateway of a server does.
///
/// ```
/// use stubborn::gateway::GatewaySettings;
///
/// let settings = GatewaySettings::default()
///     .trust("10.0.0.0/8".parse()?)
///     .route("*.chat.example".parse::<stubborn::gateway::HostRoute>()?.to("ROOM"))
///     .api_token("a long random text");
/// assert!(format!("{settings:?}").contains("chat.example"));
/// # Ok::<(), stubborn::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "settings do nothing until a server gets them"]
pub struct GatewaySettings {
    /// Whose `X-Forwarded-*` headers count.
    pub(crate) trusted: Vec<TrustedProxy>,
    /// Whether errors of objects are answered with their messages; none: on loopback only.
    pub(crate) error_messages: Option<bool>,
    /// Who may list namespaces and objects; none: who reaches a loopback address.
    pub(crate) tokens: Tokens,
    /// Whether there is an inspector; none: there is.
    pub(crate) inspector: Option<bool>,
    /// Whether the inspector's statements may change what is stored.
    pub(crate) inspector_writes: bool,
    /// The origins of pages that reach objects beside those of the gateway itself.
    pub(crate) allowed_origins: Vec<String>,
    /// Hosts that lead to a namespace or an object.
    pub(crate) routes: Vec<HostRoute>,
}

impl GatewaySettings {
    /// Believes a proxy's `X-Forwarded-*` headers.
    pub fn trust(mut self, proxy: TrustedProxy) -> Self {
        self.trusted.push(proxy);
        self
    }

    /// Answers errors of objects with their messages, or without, wherever the gateway listens.
    pub fn error_messages(mut self, shown: bool) -> Self {
        self.error_messages = Some(shown);
        self
    }

    /// Lets who has `token` list namespaces and objects, and nobody without one. A server with an empty one does not
    /// start.
    pub fn api_token(mut self, token: &str) -> Self {
        self.tokens.add(token);
        self
    }

    /// Serves the inspector at `/_stubborn/`, or not. It is served where nothing is said, to those who may list.
    pub fn inspector(mut self, served: bool) -> Self {
        self.inspector = Some(served);
        self
    }

    /// Lets the inspector's statements change what objects store, where it is served. They only read where nothing
    /// is said.
    pub fn inspector_writes(mut self, allowed: bool) -> Self {
        self.inspector_writes = allowed;
        self
    }

    /// Lets pages of an origin, as `https://app.example`, reach objects: on an address that only this machine
    /// reaches, whose own pages alone do so else; and by WebSocket elsewhere, where any page may unless one is told.
    pub fn allow_origin(mut self, origin: &str) -> Self {
        self.allowed_origins.push(origin.trim_end_matches('/').to_owned());
        self
    }

    /// Serves a host from a namespace, exposed or not.
    pub fn route(mut self, route: HostRoute) -> Self {
        self.routes.push(route);
        self
    }

    /// Returns whether anybody needs a token to list.
    pub(crate) fn asks_for_tokens(&self) -> bool {
        !self.tokens.is_empty()
    }
}

/// A peer whose `X-Forwarded-*` headers count: an address, a network as `10.0.0.0/8`, or `unix` for whoever
/// reaches the gateway by a Unix socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedProxy(Trusted);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Trusted {
    Network { address: u128, bits: u32 },
    Unix,
}

impl TrustedProxy {
    /// Returns whether the peer is this one; none stands for a peer on a Unix socket.
    pub(crate) fn is(&self, peer: Option<IpAddr>) -> bool {
        match (&self.0, peer) {
            (Trusted::Unix, None) => true,
            (Trusted::Network { address, bits }, Some(peer)) => {
                masked(as_v6(peer), *bits) == *address
            }
            _ => false,
        }
    }
}

impl FromStr for TrustedProxy {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text == "unix" {
            return Ok(Self(Trusted::Unix));
        }
        let wrong = || {
            Error::invalid_request(format!(
                "`{text}` is not an address, a network as 10.0.0.0/8, or unix"
            ))
        };
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(prefix) => prefix.parse().map_err(|_| wrong())?,
            None => width,
        };
        if prefix > width {
            return Err(wrong());
        }
        let bits = 128 - width + prefix;
        Ok(Self(Trusted::Network { address: masked(as_v6(address), bits), bits }))
    }
}

/// Returns the address as one of version 6: one of version 4 is mapped.
fn as_v6(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_ipv6_mapped()),
        IpAddr::V6(address) => u128::from(address),
    }
}

fn masked(address: u128, bits: u32) -> u128 {
    address & u128::MAX.checked_shl(128 - bits).unwrap_or(0)
}

/// A host that leads to a namespace. Written `chat.example`, which leads to one object, or `*.chat.example`,
/// whose first label is the object's name.
#[derive(Clone, PartialEq, Eq)]
pub struct HostRoute {
    pub(crate) host: String,
    pub(crate) wild: bool,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl HostRoute {
    /// Leads to this namespace.
    #[must_use = "the route is the returned one"]
    pub fn to(mut self, namespace: &str) -> Self {
        namespace.clone_into(&mut self.namespace);
        self
    }

    /// Leads to the object of this name, where the host does not tell it.
    #[must_use = "the route is the returned one"]
    pub fn named(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }
}

impl FromStr for HostRoute {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (host, wild) = match text.strip_prefix("*.") {
            Some(host) => (host, true),
            None => (text, false),
        };
        let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        if host.is_empty() || !host.bytes().all(good) || host.starts_with('.') {
            return Err(Error::invalid_request(format!(
                "`{text}` is not a host: write chat.example or *.chat.example, without a port"
            )));
        }
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        Ok(Self { host, wild, namespace: String::new(), name: String::new() })
    }
}

impl fmt::Debug for HostRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wild = if self.wild { "*." } else { "" };
        write!(f, "{wild}{} -> {} {:?}", self.host, self.namespace, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_trusted_by_its_address_or_network() {
        for (proxy, peer, trusted) in [
            ("10.0.0.1", Some("10.0.0.1"), true),
            ("10.0.0.1", Some("10.0.0.2"), false),
            ("10.0.0.0/8", Some("10.200.3.4"), true),
            ("10.9.9.9/8", Some("10.200.3.4"), true),
            ("10.0.0.0/8", Some("11.0.0.1"), false),
            ("0.0.0.0/0", Some("203.0.113.7"), true),
            ("0.0.0.0/0", Some("2001:db8::1"), false),
            ("::/0", Some("2001:db8::1"), true),
            ("2001:db8::/32", Some("2001:db8:9::1"), true),
            ("2001:db8::/32", Some("2001:db9::1"), false),
            ("::1", Some("::1"), true),
            ("unix", None, true),
            ("unix", Some("127.0.0.1"), false),
            ("127.0.0.1", None, false),
        ] {
            let parsed: TrustedProxy = proxy.parse().unwrap();
            let peer = peer.map(|peer| peer.parse().unwrap());
            assert_eq!(parsed.is(peer), trusted, "{proxy} {peer:?}");
        }
        for text in
            ["", "localhost", "10.0.0.0/33", "10.0.0/8", "::/129", "10.0.0.1/", "10.0.0.1/x"]
        {
            let error = text.parse::<TrustedProxy>().unwrap_err();
            assert!(error.message.contains(&format!("`{text}`")), "{error}");
        }
    }

    #[test]
    fn a_host_is_a_name_without_a_port() {
        let route: HostRoute = "*.Chat.Example.".parse().unwrap();
        assert_eq!((route.host.as_str(), route.wild), ("chat.example", true));
        for text in ["", "*.", "a:80", "a/b", "*", ".example", "a*b"] {
            assert!(text.parse::<HostRoute>().is_err(), "{text}");
        }
    }
}
