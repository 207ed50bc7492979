//! What a statement returns: a snapshot of rows.

use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::decode;
use super::value::{FromValue, Value};
use crate::error::{Error, Result};

/// The rows of a statement, held in memory, and what they took. An iterator of [`Row`].
#[derive(Clone, Debug)]
pub struct Cursor {
    columns: Arc<[String]>,
    rows: std::vec::IntoIter<Row>,
    rows_read: u64,
    rows_written: u64,
}

impl Cursor {
    pub(super) fn new(columns: Arc<[String]>, rows: Vec<Row>, counts: Counts) -> Self {
        let Counts { read, written } = counts;
        Self { columns, rows: rows.into_iter(), rows_read: read, rows_written: written }
    }

    /// Returns the names of the columns, in order.
    pub fn column_names(&self) -> &[String] {
        &self.columns
    }

    /// Returns how many rows the call has read. For each of its statements this is the larger of two numbers:
    /// the rows that it returned, and the steps that it made through tables and indexes in full scans
    /// (`SQLITE_STMTSTATUS_FULLSCAN_STEP`). Rows that were found through an index and not returned do not count.
    pub fn rows_read(&self) -> u64 {
        self.rows_read
    }

    /// Returns how many rows the call has inserted, updated or deleted (`sqlite3_total_changes`): by its
    /// statements, their triggers and the actions of foreign keys. Index entries do not count; what a table of
    /// FTS5 writes to its own tables does.
    pub fn rows_written(&self) -> u64 {
        self.rows_written
    }

    /// Takes the rows that are left.
    pub fn to_vec(&mut self) -> Vec<Row> {
        self.by_ref().collect()
    }

    /// Takes the one row that is left.
    ///
    /// # Errors
    /// *failed* where there is none, or there are several.
    pub fn one(&mut self) -> Result<Row> {
        let count = self.rows.len();
        match self.rows.next() {
            Some(row) if count == 1 => Ok(row),
            _ => Err(Error::failed(format!("sql: one row was expected, and there are {count}"))),
        }
    }

    /// Takes the rows that are left, each as a `T`: see [`Row::to`].
    ///
    /// # Errors
    /// *failed* where a row is no `T`.
    pub fn rows_as<T: DeserializeOwned>(&mut self) -> Result<Vec<T>> {
        self.map(|row| row.to()).collect()
    }
}

impl Iterator for Cursor {
    type Item = Row;

    fn next(&mut self) -> Option<Row> {
        self.rows.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.rows.size_hint()
    }
}

impl ExactSizeIterator for Cursor {}

/// What statements have read and written.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) read: u64,
    pub(super) written: u64,
}

/// One row of a result.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    columns: Arc<[String]>,
    values: Vec<Value>,
}

impl Row {
    pub(super) fn new(columns: Arc<[String]>, values: Vec<Value>) -> Self {
        Self { columns, values }
    }

    /// Returns the names of the columns, in order.
    pub fn column_names(&self) -> &[String] {
        &self.columns
    }

    /// Returns the values, in order.
    pub fn values(&self) -> &[Value] {
        &self.values
    }

    /// Returns the values, in order.
    pub fn into_values(self) -> Vec<Value> {
        self.values
    }

    /// Returns the value of a column, by its name or its index from 0. Of two columns of one name, the first.
    ///
    /// # Errors
    /// *failed* where there is no such column, or its value is no `T`.
    pub fn get<T: FromValue>(&self, column: impl Column) -> Result<T> {
        let index = column.index(&self.columns);
        let value = index.and_then(|index| self.values.get(index));
        let value = value.ok_or_else(|| {
            let (missing, names) = (column.describe(), self.columns.join(", "));
            Error::failed(format!("sql: there is no column {missing} among {names}"))
        })?;
        T::from_value(value.clone()).map_err(|error| {
            Error::failed(format!("sql: column {}: {}", column.describe(), error.message))
        })
    }

    /// Reads the row as a `T`: a struct or a map by the names of the columns, a tuple by their order.
    ///
    /// # Errors
    /// *failed* where the row is no `T`.
    pub fn to<T: DeserializeOwned>(&self) -> Result<T> {
        decode::row(&self.columns, &self.values)
    }
}

/// What names a column: its name, or its index from 0.
pub trait Column {
    /// Returns its index.
    fn index(&self, names: &[String]) -> Option<usize>;

    /// Says which it is, for people.
    fn describe(&self) -> String;
}

impl Column for usize {
    fn index(&self, _names: &[String]) -> Option<usize> {
        Some(*self)
    }

    fn describe(&self) -> String {
        self.to_string()
    }
}

impl Column for &str {
    fn index(&self, names: &[String]) -> Option<usize> {
        names.iter().position(|name| name == self)
    }

    fn describe(&self) -> String {
        (*self).to_owned()
    }
}
