//! The file `stubborn.toml`, as it is written.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error};

use super::gateway::FileGateway;
use super::limits::FileLimits;
use super::units::TimeOrNone;
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
    pub storage: FileStorage,
    #[serde(default)]
    pub gateway: FileGateway,
    #[serde(default)]
    pub limits: FileLimits,
}

/// The table `[storage]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileStorage {
    pub data: Option<PathBuf>,
    pub in_memory: Option<bool>,
    pub history: Option<TimeOrNone>,
}

impl FileStorage {
    /// Returns where objects are stored, none in memory, and how far they can go back.
    ///
    /// # Errors
    /// *invalid request* where both places are told.
    pub fn settings(self) -> crate::error::Result<(Option<PathBuf>, Option<Duration>)> {
        let in_memory = self.in_memory.unwrap_or(false);
        if in_memory && self.data.is_some() {
            return Err(crate::error::Error::invalid_request(
                "storage.data and storage.in_memory = true: objects are stored in one place",
            ));
        }
        let data = (!in_memory).then(|| self.data.unwrap_or_else(|| DATA.into()));
        Ok((data, self.history.map_or(Some(HISTORY), |history| history.0)))
    }
}

/// Where objects are stored where nothing is told.
const DATA: &str = "./stubborn-data";
/// How far objects can go back where nothing is told.
const HISTORY: Duration = Duration::from_secs(3600);

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
