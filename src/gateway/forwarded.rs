//! Who is at the other end: what is believed of it, and what objects are told.
//!
//! **Invariant:** an object sees `X-Forwarded-Proto` and `-Host` always, `-For` wherever its client has an address,
//! and each from this door or a trusted proxy only.

use std::net::IpAddr;

use http::header::{FORWARDED, HeaderMap, HeaderName, HeaderValue};
use http::uri::Scheme;

use super::settings::GatewaySettings;

static FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
static HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// The peer of one connection.
#[derive(Debug)]
pub(super) struct Peer {
    /// None for one on a Unix socket, which has no address.
    address: Option<HeaderValue>,
    is_trusted: bool,
}

impl Peer {
    /// Says what is believed of the peer with this address.
    pub(super) fn new(address: Option<IpAddr>, settings: &GatewaySettings) -> Self {
        let is_trusted = settings.trusted.iter().any(|proxy| proxy.is(address));
        let address = address.and_then(|address| address.to_string().try_into().ok());
        Self { address, is_trusted }
    }

    /// Returns whether it comes by a Unix socket.
    pub(super) fn is_unix(&self) -> bool {
        self.address.is_none()
    }

    /// Has `headers` say where a request to `host` came from; returns the scheme that its client used.
    pub(super) fn introduce(&self, headers: &mut HeaderMap, host: HeaderValue) -> Scheme {
        if !self.is_trusted {
            forget(headers);
        }
        if let Some(address) = &self.address {
            let before = headers.get_all(&FOR).iter().map(HeaderValue::as_bytes);
            let chain: Vec<&[u8]> = before.chain([address.as_bytes()]).collect();
            let chain = match chain.len() {
                1 => Some(address.clone()),
                _ => HeaderValue::from_bytes(&chain.join(&b", "[..])).ok(),
            };
            headers.insert(&FOR, chain.unwrap_or_else(|| address.clone()));
        }
        headers.entry(&HOST).or_insert(host);
        let proto = headers.entry(&PROTO).or_insert(HeaderValue::from_static("http"));
        // A chain of proxies may tell a list: the first is what the client used.
        let first = proto.as_bytes().split(|byte| *byte == b',').next().unwrap_or_default();
        match first.trim_ascii().eq_ignore_ascii_case(b"https") {
            true => Scheme::HTTPS,
            false => Scheme::HTTP,
        }
    }
}

/// Removes all that a client may have claimed.
fn forget(headers: &mut HeaderMap) {
    headers.remove(FORWARDED);
    let is_claim = |name: &&HeaderName| name.as_str().starts_with("x-forwarded-");
    while let Some(claim) = headers.keys().find(is_claim).cloned() {
        headers.remove(claim);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn introduced(
        peer: Option<&str>,
        trusted: &str,
        lines: &[(&'static str, &str)],
    ) -> (String, Scheme) {
        let settings = GatewaySettings::default().trust(trusted.parse().unwrap());
        let peer = Peer::new(peer.map(|peer| peer.parse().unwrap()), &settings);
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        let scheme = peer.introduce(&mut headers, HeaderValue::from_static("do:80"));
        let mut told: Vec<String> = headers
            .iter()
            .map(|(name, value)| format!("{name}={}", value.to_str().unwrap()))
            .collect();
        told.sort();
        (told.join(" ").replace("x-forwarded-", ""), scheme)
    }

    #[test]
    fn a_client_is_not_believed_and_a_trusted_proxy_is() {
        let claims = [
            ("x-forwarded-for", "9.9.9.9"),
            ("x-forwarded-for", "8.8.8.8"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "evil"),
            ("x-forwarded-port", "1"),
            ("forwarded", "for=9.9.9.9"),
        ];
        let (told, scheme) = introduced(Some("1.2.3.4"), "10.0.0.0/8", &claims);
        assert_eq!((told.as_str(), scheme), ("for=1.2.3.4 host=do:80 proto=http", Scheme::HTTP));
        let (told, scheme) = introduced(Some("10.2.3.4"), "10.0.0.0/8", &claims);
        assert_eq!(scheme, Scheme::HTTPS);
        assert_eq!(
            told,
            "forwarded=for=9.9.9.9 for=9.9.9.9, 8.8.8.8, 10.2.3.4 host=evil port=1 proto=https"
        );
        let (told, scheme) = introduced(None, "unix", &[("x-forwarded-for", "9.9.9.9")]);
        assert_eq!((told.as_str(), scheme), ("for=9.9.9.9 host=do:80 proto=http", Scheme::HTTP));
    }
}
