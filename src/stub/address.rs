//! Where a server listens: a TCP address or a Unix socket.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::error::{Error, Result};

/// Where a server listens.
///
/// Written as `HOST:PORT`, or as `unix:PATH` for a Unix socket.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// A host (name or number) and a port.
    Tcp(String),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl Address {
    /// Returns whether only this machine reaches a server that listens there. A host by name may be anywhere.
    #[cfg(feature = "server")]
    pub(crate) fn is_private(&self) -> bool {
        match self {
            Self::Tcp(text) => {
                text.parse().is_ok_and(|at: std::net::SocketAddr| at.ip().is_loopback())
            }
            Self::Unix(_) => true,
        }
    }
}

impl FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if let Some(path) = text.strip_prefix("unix:") {
            if path.is_empty() {
                return Err(Error::invalid_request("`unix:` lacks the path of a socket"));
            }
            return Ok(Self::Unix(path.into()));
        }
        let port = text.rsplit_once(':').and_then(|(host, port)| {
            (!host.is_empty()).then(|| port.parse::<u16>().ok()).flatten()
        });
        match port {
            Some(_) => Ok(Self::Tcp(text.to_owned())),
            None => Err(Error::invalid_request(format!(
                "`{text}` is not an address: write HOST:PORT or unix:PATH"
            ))),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => f.write_str(address),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_prints_as_it_was_written() {
        for text in ["127.0.0.1:7400", "localhost:0", "[::1]:7400", "unix:/run/stubborn"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_not_an_address_is_named() {
        for text in ["", "localhost", ":7400", "host:port", "host:70000", "unix:"] {
            let error = text.parse::<Address>().unwrap_err();
            assert!(error.message.contains(&format!("`{text}`")), "{error}");
        }
    }
}
