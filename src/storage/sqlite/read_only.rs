//! A store that is only looked at, while another process may serve it.
//!
//! **Invariant:** it takes no lock and writes no row. What it shows was durable; one scan may show some rows
//! older than others, unless the object is held.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use rusqlite::Connection;

use super::directory;
use super::fault::{self, Context as _};
use super::file;
use super::meta::{self, Meta};
use super::reader::{Reader, file_of};
use crate::error::{Error, Result};
use crate::storage::engine::{Batch, Done, Order, Session, Store, Submitted, Visit};
use crate::storage::overlay::Overlay;
use crate::storage::row::{Key, KeyRange, ObjectKey, Space};

/// A store that is only looked at. What is submitted to it fails.
pub struct ReadOnly {
    reader: Reader,
    /// Stays empty.
    overlay: RefCell<Overlay>,
    done: RefCell<Vec<Done>>,
}

/// A namespace, as a store knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpaceName {
    /// Its number in keys.
    pub space: Space,
    /// What it is recognised by.
    pub fingerprint: [u8; 16],
    /// What it is called, for people.
    pub name: String,
}

impl ReadOnly {
    /// Opens the store in a directory, whether or not a process serves it.
    ///
    /// # Errors
    /// *failed* where there is no store, or where it is damaged, incomplete or of a newer format.
    pub fn open(directory: &Path) -> Result<Self> {
        let set = open_set(directory, file::open_read_only)?;
        let paths = set.into_iter().map(|(path, _)| path).collect();
        let reader = Reader::new(paths, file::open_read_only);
        Ok(Self { reader, overlay: RefCell::default(), done: RefCell::default() })
    }

    /// Has all that is read of an object from now on be of one moment, as long as this is there. The log grows
    /// meanwhile where a process serves the store.
    ///
    /// # Errors
    /// *failed* where the store can't be read.
    pub fn hold(&self, object: &ObjectKey) -> Result<()> {
        let (connection, path) = self.reader.file(file_of(object.shard(), self.reader.count()))?;
        if connection.is_autocommit() {
            connection.execute_batch("BEGIN").about(path)?;
        }
        // A transaction begins with what it reads first.
        connection.query_row("SELECT count(*) FROM meta", [], |_| Ok(())).about(path)
    }

    /// Returns the namespaces, by number.
    ///
    /// # Errors
    /// *failed* where the store can't be read or is damaged.
    pub fn spaces(&self) -> Result<Vec<SpaceName>> {
        let (connection, path) = self.reader.file(0)?;
        let sql = "SELECT number, fingerprint, name FROM space ORDER BY number";
        let mut statement = connection.prepare(sql).about(path)?;
        let rows = statement
            .query_map([], |row| Ok((row.get(0)?, row.get::<_, Vec<u8>>(1)?, row.get(2)?)))
            .about(path)?;
        let read = |row: rusqlite::Result<(u32, Vec<u8>, String)>| {
            let (number, fingerprint, name) = row.about(path)?;
            let fingerprint = fingerprint.try_into().map_err(|wrong: Vec<u8>| {
                let bytes = wrong.len();
                let what = format_args!("the fingerprint of namespace {number} has {bytes} bytes");
                fault::damaged(path, what)
            })?;
            Ok(SpaceName { space: Space(number), fingerprint, name })
        };
        rows.map(read).collect()
    }
}

/// Opens all files of a store and checks that they are the whole of one.
pub(super) fn open_set(
    directory: &Path,
    open: fn(&Path) -> Result<Connection>,
) -> Result<Vec<(PathBuf, Connection)>> {
    let mut set = Vec::new();
    let mut metas = Vec::new();
    for path in directory::files(directory)? {
        let connection = open(&path)?;
        metas.push(Meta::read(&connection, &path)?);
        set.push((path, connection));
    }
    meta::check_set(directory, &metas)?;
    Ok(set)
}

impl Store for ReadOnly {
    fn get(&self, key: &Key) -> Result<Option<Bytes>> {
        self.reader.find(&self.overlay, key)
    }

    fn scan(&self, range: &KeyRange, order: Order, visit: Visit<'_>) -> Result<()> {
        self.reader.scan(&self.overlay, range, order, visit)
    }

    fn submit(&self, session: &Arc<Session>, _batch: Batch) -> Submitted {
        session.fail();
        let ticket = session.next_ticket();
        let outcome = Err(Error::failed("the store was opened to be read only"));
        self.done.borrow_mut().push(Done { session: session.number, ticket, outcome });
        Submitted::Pending(ticket)
    }

    fn take_done(&self, done: &mut Vec<Done>) {
        done.append(&mut self.done.borrow_mut());
    }

    fn backlog_bytes(&self) -> usize {
        0
    }
}
