//! The namespaces of a server: fixed when it starts.

use std::collections::HashMap;

use crate::error::{Error, Kind, Result};
use crate::id::NamespaceKey;
use crate::object::Class;

/// One namespace: its name, the class of its objects and the key of its ids.
#[derive(Clone, Debug)]
pub struct NamespaceConfig {
    name: String,
    class: Class,
    ids: NamespaceKey,
}

impl NamespaceConfig {
    /// Makes a namespace. Ids are derived from `unique_key`: whoever knows it can make ids.
    pub fn new(name: impl Into<String>, class: Class, unique_key: &str) -> Self {
        Self { name: name.into(), class, ids: NamespaceKey::new(unique_key) }
    }

    /// Returns its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the class of its objects.
    pub fn class(&self) -> &Class {
        &self.class
    }

    /// Returns what makes and checks its ids.
    pub fn ids(&self) -> &NamespaceKey {
        &self.ids
    }
}

/// All namespaces of a server, ordered by name.
#[derive(Debug)]
pub struct Namespaces(Vec<NamespaceConfig>);

impl Namespaces {
    /// Collects namespaces.
    ///
    /// # Errors
    /// *invalid request* where two have the same name, or the same key: their objects would be the same.
    pub fn new(mut namespaces: Vec<NamespaceConfig>) -> Result<Self> {
        namespaces.sort_by(|a, b| a.name.cmp(&b.name));
        for (a, b) in namespaces.iter().zip(namespaces.iter().skip(1)) {
            if a.name == b.name {
                let name = &a.name;
                return Err(Error::invalid_request(format!("two namespaces are named `{name}`")));
            }
        }
        let mut known = HashMap::new();
        for namespace in &namespaces {
            if let Some(other) = known.insert(namespace.ids.fingerprint(), &namespace.name) {
                let name = &namespace.name;
                return Err(Error::invalid_request(format!(
                    "namespaces `{other}` and `{name}` have the same unique_key: give one another"
                )));
            }
        }
        Ok(Self(namespaces))
    }

    /// Finds a namespace by its name; returns its number.
    ///
    /// # Errors
    /// *no such namespace*, naming those that exist.
    pub fn find(&self, name: &str) -> Result<usize> {
        self.0.binary_search_by(|known| known.name.as_str().cmp(name)).map_err(|_| {
            let known: Vec<_> = self.0.iter().map(NamespaceConfig::name).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            Error::new(
                Kind::NoSuchNamespace,
                format!("no namespace is named `{name}`; there is {known}"),
            )
        })
    }

    /// Returns the namespace of a number that [`find`](Self::find) returned.
    pub fn at(&self, number: usize) -> &NamespaceConfig {
        self.0.get(number).expect("numbers come from `find`")
    }

    /// Returns all, ordered by name.
    pub fn all(&self) -> &[NamespaceConfig] {
        &self.0
    }
}
