//! The database of one object, as the layer above drives it.
//!
//! **Invariant:** outside savepoints each statement is a transaction of its own; inside, all of them are one.
//! **Invariant:** there are no changes but in `file` when no savepoint is open.

use std::cell::{Cell, RefCell};
use std::ops::ControlFlow;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::{CachedStatement, Connection, OpenFlags, Statement, StatementStatus};

use super::bindings::{Bindings, Values};
use super::explain::{Meaning, explain, statement_failed};
use super::file::{PageFile, Registered, SYSTEM_NAME};
use super::guard::Guard;
use super::limits::Limits;
use super::math;
use super::pages::{PAGE_BYTES, Pages};
use super::row::{Counts, Cursor, Row};
use super::split::statements;
use super::value::Value;
use crate::error::{Error, Result};

/// An SQL database whose pages come from elsewhere. It stays on its thread.
///
/// After [`page_failure`](Self::page_failure) tells of a failure, everything fails with it.
///
/// ```
/// use std::rc::Rc;
/// use bytes::Bytes;
/// use stubborn::storage::sql::{database::Database, limits::Limits, pages::Pages};
///
/// struct Empty;
/// impl Pages for Empty {
///     fn page(&self, _: u32) -> stubborn::Result<Option<Bytes>> { Ok(None) }
///     fn count(&self) -> stubborn::Result<u32> { Ok(0) }
/// }
/// let database = Database::open(Rc::new(Empty), Limits::default())?;
/// database.exec("CREATE TABLE t (k INTEGER); INSERT INTO t VALUES (?)", (7,))?;
/// assert_eq!(database.exec("SELECT k FROM t", ())?.one()?.get::<i64>("k")?, 7);
/// assert_eq!(database.take_dirty().len(), 2);
/// # Ok::<_, stubborn::Error>(())
/// ```
pub struct Database {
    // Dropped first: it closes the file.
    connection: Connection,
    registered: Registered,
    guard: Guard,
    limits: Limits,
    savepoints: Cell<u32>,
    /// Why the transaction is gone that the open savepoints were of.
    lost: RefCell<Option<Error>>,
    /// Statements under way: their visitors may use the database.
    running: Cell<usize>,
    /// Steps that the running statement has taken, in units of [`STEPS_AT_ONCE`].
    steps: Arc<AtomicU64>,
}

impl Database {
    /// Opens the database with these pages. Where there are none, it is empty, and nothing is written.
    ///
    /// # Errors
    /// Where `pages` can't tell how many there are, the first page can't be read or makes no sense, or SQLite
    /// can't be set up.
    pub fn open(pages: Rc<dyn Pages>, limits: Limits) -> Result<Self> {
        let dirty_max = limits.transaction_bytes_max / PAGE_BYTES as u64;
        let dirty_max = usize::try_from(dirty_max).unwrap_or(usize::MAX);
        let registered = Registered::new(pages, dirty_max)?;
        let opened = Self::connect(&registered.name(), &limits);
        let (connection, guard, steps) = opened.map_err(|error| {
            let failure = registered.file().failure();
            failure.unwrap_or_else(|| Error::failed(format!("opening the sql database: {error}")))
        })?;
        let (savepoints, lost, running) = Default::default();
        Ok(Self { connection, registered, guard, limits, savepoints, lost, running, steps })
    }

    fn connect(
        name: &str,
        limits: &Limits,
    ) -> rusqlite::Result<(Connection, Guard, Arc<AtomicU64>)> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags_and_vfs(name, flags, SYSTEM_NAME)?;
        // There is one connection, so it keeps its lock; a journal in memory is enough for rolling back, as what
        // a crash leaves behind is the business of the store. SQLite allocates room for twenty pages when it
        // reads the first one, unless it may keep less than three. It reads one before it can be told how many it
        // may keep, so it is told to forget that.
        connection.execute_batch(&format!(
            "PRAGMA cache_size = 1; PRAGMA shrink_memory; PRAGMA page_size = {PAGE_BYTES}; PRAGMA locking_mode = EXCLUSIVE;
             PRAGMA journal_mode = MEMORY; PRAGMA synchronous = OFF; PRAGMA temp_store = MEMORY;
             PRAGMA user_version; PRAGMA cache_size = -{}; PRAGMA max_page_count = {}",
            limits.cache_bytes.div_ceil(1024),
            (limits.database_bytes_max / PAGE_BYTES as u64).clamp(1, u64::from(u32::MAX - 1)),
        ))?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DML, false)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DDL, false)?;
        for (limit, value) in [
            (Limit::SQLITE_LIMIT_LENGTH, limits.value_bytes_max),
            (Limit::SQLITE_LIMIT_SQL_LENGTH, limits.statement_bytes_max),
            (Limit::SQLITE_LIMIT_VARIABLE_NUMBER, limits.parameters_max),
            (Limit::SQLITE_LIMIT_ATTACHED, 0),
            (Limit::SQLITE_LIMIT_WORKER_THREADS, 0),
        ] {
            connection.set_limit(limit, i32::try_from(value).unwrap_or(i32::MAX))?;
        }
        connection.set_prepared_statement_cache_capacity(limits.statements_cached);
        math::add(&connection)?;
        let steps = Arc::new(AtomicU64::new(0));
        let (counter, most) = (steps.clone(), limits.steps_max / STEPS_AT_ONCE as u64);
        let too_many = move || counter.fetch_add(1, Ordering::Relaxed) >= most;
        connection.progress_handler(STEPS_AT_ONCE, Some(too_many))?;
        let guard = Guard::watch(&mut connection)?;
        Ok((connection, guard, steps))
    }

    /// Runs the statements of `sql`, one or several. The last one takes the bindings, and its rows are what is
    /// returned; the rows of those before are not. Where a statement fails, those before it have happened.
    ///
    /// # Errors
    /// *failed*, with what SQLite says and the statement; where the bindings are not one for each parameter; where
    /// the result is larger than [`result_bytes_max`](Limits::result_bytes_max), after which the last statement,
    /// if it wrote, has happened.
    pub fn exec(&self, sql: &str, bindings: impl Bindings) -> Result<Cursor> {
        let (mut rows, mut bytes) = (Vec::new(), 0_usize);
        let mut counts = Counts::default();
        let most = self.limits.result_bytes_max;
        let columns = self.run(sql, bindings, &mut counts, Access::Any, &mut |row| {
            bytes += row.values().iter().map(Value::bytes).sum::<usize>() + size_of::<Row>();
            if bytes > most {
                // What a statement writes, it has written before its first row.
                return Ok(ControlFlow::Break(()));
            }
            rows.push(row);
            Ok(ControlFlow::Continue(()))
        })?;
        if bytes > most {
            let message = format!(
                "the result has more than {most} bytes (result_bytes_max): use `each`, or LIMIT"
            );
            return Err(statement_failed(&message, sql));
        }
        Ok(Cursor::new(columns, rows, counts))
    }

    /// Runs the statements of `sql` as [`exec`](Self::exec) does, and hands the rows of the last one to `visit`,
    /// one by one, until it breaks. The last statement only reads. `visit` may use the database; whether it sees
    /// what it writes meanwhile is undefined.
    ///
    /// # Errors
    /// As [`exec`](Self::exec), without a bound on the result; where the last statement writes; what `visit`
    /// returns.
    pub fn each(
        &self,
        sql: &str,
        bindings: impl Bindings,
        mut visit: impl FnMut(Row) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        self.run(sql, bindings, &mut Counts::default(), Access::ReadOnly, &mut visit).map(drop)
    }

    /// Opens a savepoint, inside of those that are open.
    ///
    /// # Errors
    /// Where the database is broken, or the transaction is lost: see [`release`](Self::release).
    pub fn savepoint(&self) -> Result<()> {
        self.usable()?;
        self.control("SAVEPOINT s")?;
        self.savepoints.set(self.savepoints.get() + 1);
        Ok(())
    }

    /// Closes the innermost savepoint, and keeps what has changed since it was opened.
    ///
    /// # Errors
    /// The savepoint then remains open, and must be rolled back. A foreign key that is checked late is violated;
    /// or SQLite has rolled the whole transaction back before (`INSERT OR ROLLBACK`, a database that is full, a
    /// statement of too many steps): then nothing but rolling back is possible in any of the open savepoints.
    ///
    /// # Panics
    /// Where none is open.
    pub fn release(&self) -> Result<()> {
        let savepoints = self.savepoints.get().checked_sub(1).expect("a savepoint is open");
        self.usable()?;
        self.control("RELEASE s")?;
        self.savepoints.set(savepoints);
        Ok(())
    }

    /// Closes the innermost savepoint, and undoes what has changed since it was opened.
    ///
    /// # Errors
    /// Where the database is broken. The savepoint is closed even then.
    ///
    /// # Panics
    /// Where none is open.
    pub fn rollback(&self) -> Result<()> {
        let savepoints = self.savepoints.get().checked_sub(1).expect("a savepoint is open");
        self.savepoints.set(savepoints);
        let lost = match savepoints {
            0 => self.lost.take().is_some(),
            _ => self.lost.borrow().is_some(),
        };
        self.sound()?;
        match savepoints {
            _ if lost => Ok(()),
            0 => self.control("ROLLBACK"),
            _ => self.control("ROLLBACK TO s").and_then(|()| self.control("RELEASE s")),
        }
    }

    /// Returns whether a statement is under way: somebody visits its rows.
    pub fn is_running(&self) -> bool {
        self.running.get() > 0
    }

    /// Returns how many savepoints are open.
    pub fn savepoints(&self) -> u32 {
        self.savepoints.get()
    }

    /// Returns whether [`take_dirty`](Self::take_dirty) would return anything. Says nothing of changes in open
    /// savepoints.
    pub fn is_dirty(&self) -> bool {
        self.file().failure().is_none() && self.file().is_dirty()
    }

    /// Takes the pages that have changed since the last time, in order; none for pages that are no longer there.
    /// From now on [`Pages`] must return them. Of a broken database there are none.
    ///
    /// # Panics
    /// Where a savepoint is open.
    pub fn take_dirty(&self) -> Vec<(u32, Option<Bytes>)> {
        assert_eq!(self.savepoints.get(), 0, "pages are taken when no savepoint is open");
        match self.file().failure() {
            Some(_) => Vec::new(),
            None => self.file().take(),
        }
    }

    /// Returns how many bytes the database has, with what has changed in open savepoints.
    pub fn size_bytes(&self) -> u64 {
        let written = self.file().size();
        let pages = match self.savepoints.get() {
            0 => written,
            _ => self.pages_in_transaction().unwrap_or(written),
        };
        u64::from(pages) * PAGE_BYTES as u64
    }

    /// Returns why the database is broken, where it is: its pages could not be read, or make no sense. The object
    /// must then be reset.
    pub fn page_failure(&self) -> Option<Error> {
        self.file().failure()
    }

    fn file(&self) -> &PageFile {
        self.registered.file()
    }

    fn sound(&self) -> Result<()> {
        self.file().failure().map_or(Ok(()), Err)?;
        match self.file().is_reading() {
            true => Err(Error::failed("the sql database can't be used by its own pages")),
            false => Ok(()),
        }
    }

    fn usable(&self) -> Result<()> {
        self.sound()?;
        self.lost.borrow().clone().map_or(Ok(()), Err)
    }

    /// Runs a statement of ours.
    fn control(&self, sql: &str) -> Result<()> {
        self.steps.store(0, Ordering::Relaxed);
        let outcome = self.guard.trusting(|| self.connection.prepare_cached(sql)?.raw_execute());
        outcome.map(drop).map_err(|error| {
            let error = self.explain(&error, sql);
            self.note_lost(sql, Some(&error));
            error
        })
    }

    /// Runs statements without asking what they do.
    #[cfg(test)]
    pub(super) fn trusted_for_tests(&self, sql: &str) {
        let outcome = self.guard.trusting(|| self.connection.execute_batch(sql));
        outcome.expect("a test knows its SQL");
    }

    fn pages_in_transaction(&self) -> Option<u32> {
        self.usable().ok()?;
        let count = || {
            let mut statement = self.connection.prepare_cached("PRAGMA page_count")?;
            statement.query_row((), |row| row.get(0))
        };
        self.guard.trusting(count).ok()
    }

    /// Runs all statements of `sql`; returns the names of the last one's columns.
    fn run(
        &self,
        sql: &str,
        bindings: impl Bindings,
        counts: &mut Counts,
        access: Access,
        visit: Visit<'_>,
    ) -> Result<Arc<[String]>> {
        self.usable()?;
        if sql.len() > self.limits.statement_bytes_max as usize {
            let most = self.limits.statement_bytes_max;
            let message = format!("the text has more than {most} bytes (statement_bytes_max)");
            return Err(statement_failed(&message, sql));
        }
        if sql.contains('\0') {
            // SQLite would take it for the end.
            return Err(statement_failed("the text has a zero byte", sql));
        }
        let values = bindings.into_values()?;
        let statements = statements(sql);
        let Some((last, before)) = statements.split_last() else {
            return Err(statement_failed("there is no statement", sql));
        };
        let none = Values::Positional(Vec::new());
        for statement in before {
            let ignore = &mut |_| Ok(ControlFlow::Continue(()));
            self.run_one(statement, &none, counts, Access::Any, ignore)?;
        }
        self.run_one(last, &values, counts, access, visit)
    }

    fn run_one(
        &self,
        sql: &str,
        values: &Values,
        counts: &mut Counts,
        access: Access,
        visit: Visit<'_>,
    ) -> Result<Arc<[String]>> {
        self.usable()?;
        self.guard.begin(sql).map_err(|refusal| statement_failed(&refusal, sql))?;
        self.steps.store(0, Ordering::Relaxed);
        let prepared = self.connection.prepare_cached(sql);
        let mut statement = prepared.map_err(|error| self.explain(&error, sql))?;
        if access == Access::ReadOnly && !statement.readonly() {
            return Err(statement_failed("`each` only reads: use `exec`", sql));
        }
        let bound = values.bind(&mut statement);
        bound.map_err(|message| statement_failed(&message, sql))?;
        let written_before = self.connection.total_changes();
        let outcome = self.step(sql, &mut statement, counts, visit);
        counts.written += self.connection.total_changes() - written_before;
        self.note_lost(sql, outcome.as_ref().err());
        outcome
    }

    /// Steps through a statement to its end.
    fn step(
        &self,
        sql: &str,
        statement: &mut CachedStatement<'_>,
        counts: &mut Counts,
        visit: Visit<'_>,
    ) -> Result<Arc<[String]>> {
        let _running = Running::begin(&self.running);
        statement.reset_status(StatementStatus::FullscanStep);
        let (mut columns, mut returned) = (None, 0);
        let mut rows = statement.raw_query();
        let outcome = loop {
            let row = match rows.next() {
                Ok(Some(row)) => row,
                Ok(None) => break Ok(()),
                Err(error) => break Err(self.explain(&error, sql)),
            };
            returned += 1;
            // The first step may prepare the statement anew, with other columns.
            let columns = columns.get_or_insert_with(|| names(row.as_ref()));
            let value = |index| row.get_ref(index).map(Value::of);
            let values = (0..columns.len()).map(value).collect::<Result<Vec<_>, _>>();
            let values = values.map_err(|error| self.explain(&error, sql));
            match values.and_then(|values| visit(Row::new(columns.clone(), values))) {
                Ok(ControlFlow::Continue(())) => {}
                Ok(ControlFlow::Break(())) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        drop(rows);
        let scanned = statement.get_status(StatementStatus::FullscanStep);
        counts.read += u64::try_from(scanned).unwrap_or_default().max(returned);
        outcome.map(|()| columns.unwrap_or_else(|| names(statement)))
    }

    /// Notes that SQLite has rolled the transaction back that the open savepoints are of.
    fn note_lost(&self, sql: &str, cause: Option<&Error>) {
        if self.savepoints.get() > 0 && self.connection.is_autocommit() {
            let cause = cause.map_or(sql, |error| &error.message);
            let error = Error::failed(format!("the transaction was rolled back: {cause}"));
            self.lost.borrow_mut().get_or_insert(error);
        }
    }

    fn explain(&self, error: &rusqlite::Error, sql: &str) -> Error {
        if let Some(failure) = self.file().failure() {
            return failure;
        }
        if let Some(refusal) = self.guard.take_refusal() {
            return statement_failed(&refusal, sql);
        }
        if self.file().take_refused() {
            let max = self.limits.transaction_bytes_max;
            let message = format!("more than {max} bytes are written (transaction_bytes_max)");
            return statement_failed(&message, sql);
        }
        match explain(error, sql, &self.limits) {
            Meaning::Statement(error) => error,
            Meaning::Broken(error) => {
                self.file().fail(error.clone());
                error
            }
        }
    }
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (pages, savepoints) = (self.file().size(), self.savepoints.get());
        write!(f, "Database({pages} pages, {savepoints} savepoints)")
    }
}

/// A statement under way, also where its visitor panics.
struct Running<'a>(&'a Cell<usize>);

impl<'a> Running<'a> {
    fn begin(count: &'a Cell<usize>) -> Self {
        count.set(count.get() + 1);
        Self(count)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

fn names(statement: &Statement<'_>) -> Arc<[String]> {
    statement.column_names().map(str::to_owned).collect()
}

/// Looks at one row, and says whether to go on.
type Visit<'a> = &'a mut dyn FnMut(Row) -> Result<ControlFlow<()>>;

/// What a statement may do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    Any,
    ReadOnly,
}

/// How often steps are counted.
const STEPS_AT_ONCE: i32 = 1000;
