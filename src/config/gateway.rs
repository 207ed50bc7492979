//! What is told of the gateway: where it serves HTTP, and the table `[gateway]`.
//!
//! **Invariant:** no token is printed.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

use crate::error::{Error, Result};
use crate::gateway::{GatewaySettings, HostRoute, TrustedProxy};
use crate::stub::Address;

/// Where to serve HTTP; `none` is nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpAddress(pub Option<Address>);

impl FromStr for HttpAddress {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "none" => Ok(Self(None)),
            text => text.parse().map(|address| Self(Some(address))),
        }
    }
}

/// The table `[gateway]`. Each key may be missing.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileGateway {
    error_messages: Option<bool>,
    inspector: Option<bool>,
    #[serde(default)]
    inspector_writes: bool,
    #[serde(default)]
    allowed_origins: Vec<String>,
    #[serde(default)]
    trusted_proxies: Vec<Parsed<TrustedProxy>>,
    #[serde(default)]
    api_tokens: Vec<String>,
    api_tokens_file: Option<PathBuf>,
    #[serde(default)]
    routes: Vec<FileRoute>,
}

/// A table `[[gateway.routes]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileRoute {
    host: Parsed<HostRoute>,
    namespace: String,
    name: Option<String>,
}

/// What is written as text.
#[derive(Debug)]
struct Parsed<T>(T);

impl<'de, T: FromStr<Err = Error>> Deserialize<'de> for Parsed<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let parsed = String::deserialize(from)?.parse::<T>();
        parsed.map(Self).map_err(|error| D::Error::custom(error.message))
    }
}

impl FileGateway {
    /// Makes settings of it, and tells which file has further tokens.
    ///
    /// # Errors
    /// *invalid request* for a token that is empty.
    pub fn settings(self) -> Result<(GatewaySettings, Option<PathBuf>)> {
        let mut settings = GatewaySettings::default().inspector_writes(self.inspector_writes);
        for origin in self.allowed_origins {
            settings = settings.allow_origin(&origin);
        }
        if let Some(shown) = self.error_messages {
            settings = settings.error_messages(shown);
        }
        if let Some(served) = self.inspector {
            settings = settings.inspector(served);
        }
        for proxy in self.trusted_proxies {
            settings = settings.trust(proxy.0);
        }
        for token in self.api_tokens {
            if token.is_empty() {
                return Err(Error::invalid_request("gateway.api_tokens: a token is empty"));
            }
            settings = settings.api_token(&token);
        }
        for FileRoute { host, namespace, name } in self.routes {
            let route = host.0.to(&namespace).named(&name.unwrap_or_default());
            settings = settings.route(route);
        }
        Ok((settings, self.api_tokens_file))
    }
}

/// Adds the tokens of a file, one a line.
///
/// # Errors
/// *invalid request* where it can't be read, and where there is none in it.
pub fn add_tokens(mut settings: GatewaySettings, path: &Path) -> Result<GatewaySettings> {
    let wrong = |why: &dyn std::fmt::Display| {
        Error::invalid_request(format!("gateway.api_tokens_file {}: {why}", path.display()))
    };
    let text = std::fs::read_to_string(path).map_err(|error| wrong(&error))?;
    let mut tokens = text.lines().map(str::trim).filter(|line| !line.is_empty()).peekable();
    if tokens.peek().is_none() {
        return Err(wrong(&"there is no token in it"));
    }
    for token in tokens {
        settings = settings.api_token(token);
    }
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_tokens_has_one_a_line_and_at_least_one() {
        let path = std::env::temp_dir().join(format!("stubborn-tokens-{}", std::process::id()));
        for (text, good) in [("a\n\n  b \n", true), ("\n \n", false), ("", false)] {
            std::fs::write(&path, text).unwrap();
            let settings = add_tokens(GatewaySettings::default(), &path);
            assert_eq!(settings.is_ok_and(|settings| settings.asks_for_tokens()), good, "{text:?}");
        }
        std::fs::remove_file(&path).unwrap();
        let error = add_tokens(GatewaySettings::default(), &path).unwrap_err();
        assert!(error.message.contains(&path.display().to_string()), "{error}");
    }
}
