//! The file `stubborn.toml`, as it is written.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use serde::Deserialize;
use serde::de::{Deserializer, Error};

use super::gateway::FileGateway;
use super::limits::FileLimits;
use crate::demo::{DEMO, DemoClass};
use crate::stub::Address;

/// What a file says. Each key may be missing.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    pub listen: Option<Vec<FileAddress>>,
    pub http: Option<Vec<FileAddress>>,
    pub threads: Option<NonZeroUsize>,
    pub namespaces: Option<BTreeMap<String, FileNamespace>>,
    #[serde(default)]
    pub gateway: FileGateway,
    #[serde(default)]
    pub limits: FileLimits,
}

/// A table `[namespaces.NAME]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileNamespace {
    pub class: FileClass,
    pub unique_key: Option<String>,
    #[serde(default)]
    pub expose: bool,
}

/// An address to listen on.
#[derive(Debug)]
pub struct FileAddress(pub Address);

impl<'de> Deserialize<'de> for FileAddress {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let address = String::deserialize(from)?.parse::<Address>();
        address.map(Self).map_err(|error| D::Error::custom(error.message))
    }
}

/// A class, by its short name.
#[derive(Debug)]
pub struct FileClass(pub DemoClass);

impl<'de> Deserialize<'de> for FileClass {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let name = String::deserialize(from)?;
        let known = DEMO.into_iter().find(|class| class.name == name);
        known.map(Self).ok_or_else(|| {
            let names = DEMO.map(|class| class.name).join(", ");
            D::Error::custom(format!("there is no class {name:?}; there are {names}"))
        })
    }
}
