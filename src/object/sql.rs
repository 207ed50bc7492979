//! An object's own SQL database, as its author sees it.

use std::ops::ControlFlow;

use super::storage::Storage;
use crate::error::Result;
use crate::storage::sql::bindings::Bindings;
use crate::storage::sql::row::{Cursor, Row};

/// An object's own SQL database: SQLite, private to the object, in the same transactions and as durable as its
/// keys and values. It is there when it is first used.
///
/// Transactions are those of the storage ([`Storage::transaction`]): statements that begin or end one are
/// refused, as are `ATTACH`, `VACUUM` and most pragmas. JSON, math functions and FTS5 are there.
///
/// ```
/// # use stubborn::{Result, State};
/// fn note(state: &State, author: &str, text: &str) -> Result<i64> {
///     let sql = state.storage().sql();
///     sql.exec("CREATE TABLE IF NOT EXISTS notes (id INTEGER PRIMARY KEY, author, text)", ())?;
///     sql.exec("INSERT INTO notes (author, text) VALUES (?1, ?2)", (author, text))?;
///     sql.exec("SELECT count(*) AS count FROM notes", ())?.one()?.get("count")
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Sql(Storage);

impl Sql {
    pub(super) fn new(storage: Storage) -> Self {
        Self(storage)
    }

    /// Runs one or several statements. The bindings are the last one's, and so are the rows: all of them, in
    /// memory, at most 16 MiB.
    ///
    /// # Errors
    /// *failed*, with what SQLite says of it; a failed statement changes nothing.
    pub fn exec(&self, sql: &str, bindings: impl Bindings) -> Result<Cursor> {
        self.0.with_sql(|database| database.exec(sql, bindings))
    }

    /// Visits the rows of a statement that only reads, one at a time, until `visit` breaks.
    ///
    /// # Errors
    /// As [`exec`](Self::exec), and the errors of `visit`.
    pub fn each(
        &self,
        sql: &str,
        bindings: impl Bindings,
        visit: impl FnMut(Row) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        self.0.with_sql(|database| database.each(sql, bindings, visit))
    }

    /// Returns the size of the database in bytes.
    ///
    /// # Errors
    /// *failed* where it can't be read.
    pub fn size_bytes(&self) -> Result<u64> {
        self.0.with_sql(|database| Ok(database.size_bytes()))
    }
}
