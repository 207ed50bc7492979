//! Reads a store's files for one thread.
//!
//! **Invariant:** no borrow and no statement is held while a visitor runs: it may read and submit.

use std::cell::{OnceCell, RefCell};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rusqlite::Connection;

use super::file;
use super::queue::closed;
use super::rows;
use crate::error::Result;
use crate::storage::engine::{Order, Visit};
use crate::storage::overlay::{Found, Merged, Overlay, merge};
use crate::storage::row::{Key, KeyRange};

/// The connections of one thread to a store's files.
pub(super) struct Reader {
    files: Vec<(PathBuf, OnceCell<Connection>)>,
    open: fn(&Path) -> Result<Connection>,
}

impl Reader {
    /// Makes one that opens each file with `open` when it is first read.
    pub fn new(files: Vec<PathBuf>, open: fn(&Path) -> Result<Connection>) -> Self {
        Self { files: files.into_iter().map(|path| (path, OnceCell::new())).collect(), open }
    }

    /// Returns the connection to a file, and the file's path.
    pub fn file(&self, index: usize) -> Result<(&Connection, &Path)> {
        let (path, opened) = self.files.get(index).ok_or_else(closed)?;
        if opened.get().is_none() {
            let connection = (self.open)(path)?;
            opened.get_or_init(|| connection);
        }
        Ok((opened.get().ok_or_else(closed)?, path))
    }

    /// Closes the files that `is_sound` picks out, so that whoever closes one last leaves no log.
    pub fn tidy(&mut self, is_sound: impl Fn(usize) -> bool) {
        for (index, (path, opened)) in self.files.iter_mut().enumerate() {
            if let Some(connection) = opened.take().filter(|_| is_sound(index))
                && let Err(error) = file::close(connection, path)
            {
                tracing::debug!(%error, "a file was closed, but not tidied");
            }
        }
    }

    /// Returns how many files there are.
    pub fn count(&self) -> usize {
        self.files.len()
    }

    /// Finds a row, above or below.
    pub fn find(&self, overlay: &RefCell<Overlay>, key: &Key) -> Result<Option<Bytes>> {
        match overlay.borrow().find(key) {
            Found::There(value) => return Ok(Some(value)),
            Found::Gone => return Ok(None),
            Found::Below => {}
        }
        // A key that names no object has no row.
        let Some(object) = key.object_key() else { return Ok(None) };
        let (connection, path) = self.file(file_of(object.shard(), self.count()))?;
        rows::find(connection, path, key)
    }

    /// Visits the rows of a range.
    pub fn scan(
        &self,
        overlay: &RefCell<Overlay>,
        range: &KeyRange,
        order: Order,
        visit: Visit<'_>,
    ) -> Result<()> {
        let (mut limit, mut rest) = (ROWS_AT_FIRST, Some(range.clone()));
        while let Some(range) = rest {
            let merged = self.some(overlay, &range, order, limit)?;
            for (key, value) in merged.rows {
                if visit(&key, value) == ControlFlow::Break(()) {
                    return Ok(());
                }
            }
            limit = (limit * 4).min(ROWS_AT_ONCE);
            rest = merged.rest;
        }
        Ok(())
    }

    /// Reads some rows of a range, and returns where to go on.
    fn some(
        &self,
        overlay: &RefCell<Overlay>,
        range: &KeyRange,
        order: Order,
        limit: usize,
    ) -> Result<Merged> {
        let files = match range.object_key() {
            Some(object) => {
                let index = file_of(object.shard(), self.count());
                index..index + 1
            }
            None => 0..self.count(),
        };
        let read = |index| {
            let (connection, path) = self.file(index)?;
            rows::read(connection, path, range, order, limit)
        };
        let below = files.map(read).collect::<Result<_>>()?;
        let overlay = overlay.borrow();
        let above = overlay.read(range, order, limit);
        Ok(merge(&overlay, below, above, range, order))
    }
}

/// Returns which of so many files has the objects of a virtual shard.
pub(super) fn file_of(shard: u16, files: usize) -> usize {
    usize::from(shard) % files.max(1)
}

/// Rows that a scan reads at first, as many stop soon, and later.
const ROWS_AT_FIRST: usize = 16;
const ROWS_AT_ONCE: usize = 256;
