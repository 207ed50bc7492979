//! What a file of a store says of itself.
//!
//! **Invariant:** what is read here was on a disk: any bytes are an answer or an error.

use std::path::Path;

use rusqlite::Connection;

use super::fault::{self, Context as _};
use crate::error::{Error, Result};

/// The format that this code writes, and the newest that it reads.
pub(super) const FORMAT: u32 = 1;
/// Marks the files as a store's: `Stub`.
pub(super) const APPLICATION_ID: u32 = 0x5374_7562;
/// How many files a store may have.
pub(super) const FILES_MAX: u32 = 16;

/// What a file of a store says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Meta {
    /// How the files are written.
    pub format: u32,
    /// How many files the store has.
    pub files: u32,
    /// Which of them this is, from 0.
    pub index: u32,
    /// Tells the store from all others.
    pub store: [u8; 16],
}

impl Meta {
    /// Returns it as rows of its table.
    pub fn rows(&self) -> [(&'static str, Vec<u8>); 4] {
        [
            ("format", self.format.to_be_bytes().to_vec()),
            ("files", self.files.to_be_bytes().to_vec()),
            ("index", self.index.to_be_bytes().to_vec()),
            ("store", self.store.to_vec()),
        ]
    }

    /// Returns what tells the pages of this file from those of all others: 16 hexadecimal digits.
    pub fn page_id(&self) -> String {
        let [.., a, b, c, d, e, f, g, h] = self.store;
        let store = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
        format!("{:016x}", store ^ u64::from(self.index))
    }

    /// Reads it from a file that is open.
    pub fn read(connection: &Connection, file: &Path) -> Result<Self> {
        let mut statement = connection.prepare("SELECT key, value FROM meta").about(file)?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).about(file)?;
        let rows: Vec<(String, Vec<u8>)> = rows.collect::<Result<_, _>>().about(file)?;
        Self::decode(&rows).map_err(|what| fault::damaged(file, what))
    }

    /// Reads it from rows, whatever they are.
    pub fn decode(rows: &[(String, Vec<u8>)]) -> Result<Self, String> {
        let meta = Self {
            format: number(rows, "format")?,
            files: number(rows, "files")?,
            index: number(rows, "index")?,
            store: fixed(rows, "store")?,
        };
        if meta.index >= meta.files || meta.files > FILES_MAX {
            let Self { files, index, .. } = meta;
            return Err(format!("it says that it is file {index} of {files}"));
        }
        Ok(meta)
    }
}

fn number(rows: &[(String, Vec<u8>)], key: &str) -> Result<u32, String> {
    fixed(rows, key).map(u32::from_be_bytes)
}

fn fixed<const N: usize>(rows: &[(String, Vec<u8>)], key: &str) -> Result<[u8; N], String> {
    let (_, value) = rows
        .iter()
        .find(|(known, _)| known == key)
        .ok_or_else(|| format!("its row meta.{key} is missing"))?;
    let length = value.len();
    value.as_slice().try_into().map_err(|_| format!("its row meta.{key} has {length} bytes"))
}

/// Says that a file is of a format that this code does not know.
pub(super) fn newer(file: &Path, format: u32) -> Error {
    Error::failed(format!(
        "{} was written by a newer version of stubborn: format {format}, this one knows {FORMAT}; \
         start that version, or restore a backup of this one",
        file.display()
    ))
}

/// Checks that the files are those of one store, each in its place.
pub(super) fn check_set(directory: &Path, set: &[Meta]) -> Result<()> {
    let Some(first) = set.first() else {
        return Err(Error::failed(format!("{} holds no store", directory.display())));
    };
    for (place, meta) in set.iter().enumerate() {
        let place = u32::try_from(place).unwrap_or(u32::MAX);
        let file = directory.join(super::directory::file_name(place));
        let file = file.display();
        if meta.store != first.store {
            return Err(Error::failed(format!(
                "{file} is of another store than the file before it: put back the one that was there"
            )));
        }
        if meta.index != place || meta.files != first.files {
            let Meta { index, files, .. } = meta;
            return Err(Error::failed(format!(
                "{file} is file {index} of {files}: put back the one that was there"
            )));
        }
    }
    let missing = u32::try_from(set.len()).unwrap_or(u32::MAX);
    if missing < first.files {
        let file = directory.join(super::directory::file_name(missing));
        return Err(Error::failed(format!(
            "{} is missing: the store has {} files; put it back, or restore a backup",
            file.display(),
            first.files
        )));
    }
    if missing > first.files {
        let file = directory.join(super::directory::file_name(first.files));
        return Err(Error::failed(format!(
            "{} is not of this store, which has {} files: move it away",
            file.display(),
            first.files
        )));
    }
    Ok(())
}
