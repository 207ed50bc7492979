//! Makes errors of what SQLite says.

use rusqlite::ErrorCode;
use rusqlite::ffi::SQLITE_CORRUPT_VTAB;

use super::limits::Limits;
use crate::error::Error;

/// What an error of SQLite means.
pub(super) enum Meaning {
    /// The statement failed, and no more.
    Statement(Error),
    /// The database is unusable.
    Broken(Error),
}

/// Returns what `error` means, which `sql` has raised.
pub(super) fn explain(error: &rusqlite::Error, sql: &str, limits: &Limits) -> Meaning {
    use ErrorCode as C;
    let message = match error {
        rusqlite::Error::SqliteFailure(_, Some(message)) => message.clone(),
        rusqlite::Error::SqlInputError { msg, .. } => msg.clone(),
        other => other.to_string(),
    };
    let failed = |message: &str| Meaning::Statement(statement_failed(message, sql));
    let broken = |what| {
        let sql = shortened(sql);
        Meaning::Broken(Error::failed(format!("the sql database {what}: {message}, in: {sql}")))
    };
    // FTS5 calls an index damaged that an author may have got out of step with its table.
    let virtual_table = error.sqlite_extended_error_code() == Some(SQLITE_CORRUPT_VTAB);
    match error.sqlite_error_code() {
        Some(C::DatabaseCorrupt | C::NotADatabase) if !virtual_table => broken("is damaged"),
        Some(C::SystemIoFailure) => broken("could not be read or written"),
        Some(C::DiskFull) => failed(&format!(
            "the database is full: it may have {} bytes (database_bytes_max)",
            limits.database_bytes_max
        )),
        Some(C::TooBig) => failed(&format!(
            "{message}: a value or row may have {} bytes (value_bytes_max)",
            limits.value_bytes_max
        )),
        Some(C::OperationInterrupted) => {
            failed(&format!("the statement took more than {} steps (steps_max)", limits.steps_max))
        }
        _ => failed(&message),
    }
}

/// Makes the error of a statement.
pub(super) fn statement_failed(message: &str, sql: &str) -> Error {
    Error::failed(format!("sql: {message}, in: {}", shortened(sql)))
}

/// Returns the beginning of a statement, in one line.
fn shortened(sql: &str) -> String {
    const CHARS_MAX: usize = 100;
    const CHAR_BYTES_MAX: usize = 4;
    let mut words = sql.split_whitespace();
    let mut text = words.next().unwrap_or_default().to_owned();
    for word in words {
        if text.len() > CHARS_MAX * CHAR_BYTES_MAX {
            break;
        }
        text.push(' ');
        text.push_str(word);
    }
    match text.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => {
            text.truncate(end);
            text + "…"
        }
        None => text,
    }
}

#[test]
fn a_statement_is_shortened_to_one_line() {
    assert_eq!(shortened("SELECT\n  1"), "SELECT 1");
    let long = shortened(&"ü ".repeat(200));
    assert_eq!(long.chars().count(), 101);
    assert!(long.ends_with('…'));
}
