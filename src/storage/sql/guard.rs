//! What an author's SQL may not do: SQLite asks about each thing that a statement would.
//!
//! **Invariant:** no statement of an author begins or ends a transaction, opens another database, changes how
//! this one is kept, or touches a name that is reserved.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};

use super::split::{first_word, is_word};

/// Watches one connection.
pub(super) struct Guard {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// Whether the statement is one of ours.
    trusted: bool,
    /// Whether the statement is one for which SQLite itself writes to its own tables.
    changes_schema: bool,
    /// Whether the text has a word that begins as a reserved name.
    names_reserved: bool,
    refusal: Option<String>,
}

impl Guard {
    /// Begins to watch `connection`.
    pub(super) fn watch(connection: &mut Connection) -> rusqlite::Result<Self> {
        let state = Arc::new(Mutex::new(State::default()));
        let asked = state.clone();
        let answer = move |context: AuthContext<'_>| {
            let state = &mut *lock(&asked);
            if state.trusted {
                return Authorization::Allow;
            }
            match state.judge(&context) {
                Ok(()) => Authorization::Allow,
                Err(refusal) => {
                    state.refusal.get_or_insert(refusal);
                    Authorization::Deny
                }
            }
        };
        connection.authorizer(Some(answer))?;
        Ok(Self { state })
    }

    /// Begins a statement of an author; returns why it is refused, where its text says enough.
    pub(super) fn begin(&self, statement: &str) -> Result<(), String> {
        let names_reserved = statement.split(|c| !is_word(c)).any(is_reserved);
        let word = first_word(statement);
        let is_one_of = |words: &[&str]| words.iter().any(|one| word.eq_ignore_ascii_case(one));
        let changes_schema = is_one_of(&CHANGES_SCHEMA);
        *lock(&self.state) = State { changes_schema, names_reserved, ..State::default() };
        if is_one_of(&["vacuum"]) {
            return Err("VACUUM is refused: it would write the whole database anew".to_owned());
        }
        // SQLite asks when it prepares a statement. One of ours of the same text may be prepared already, and is
        // then not asked about again.
        if is_one_of(&TRANSACTIONS) {
            return Err(TRANSACTIONS_REFUSED.to_owned());
        }
        Ok(())
    }

    /// Runs `act`, whose statements are ours.
    pub(super) fn trusting<T>(&self, act: impl FnOnce() -> T) -> T {
        let before = std::mem::replace(&mut lock(&self.state).trusted, true);
        let outcome = act();
        lock(&self.state).trusted = before;
        outcome
    }

    /// Takes why the statement was refused, if it was.
    pub(super) fn take_refusal(&self) -> Option<String> {
        lock(&self.state).refusal.take()
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    fn judge(&self, context: &AuthContext<'_>) -> Result<(), String> {
        use AuthAction as A;
        match context.action {
            A::Transaction { .. } | A::Savepoint { .. } => Err(TRANSACTIONS_REFUSED.to_owned()),
            A::Attach { .. } | A::Detach { .. } => {
                Err("ATTACH and DETACH are refused: an object has one database".to_owned())
            }
            A::CreateTempTable { .. }
            | A::CreateTempIndex { .. }
            | A::CreateTempTrigger { .. }
            | A::CreateTempView { .. } => {
                Err("a temporary table, index, trigger or view is refused: it would be gone \
                     whenever the object leaves memory"
                    .to_owned())
            }
            A::Pragma { pragma_name, pragma_value } => pragma(pragma_name, pragma_value),
            A::Function { function_name } => function(function_name),
            A::CreateVtable { table_name, module_name } => {
                module(module_name).and_then(|()| self.names(&[table_name]))
            }
            A::AlterTable { table_name, .. } => {
                if self.names_reserved {
                    // SQLite doesn't tell the new name of a table.
                    return Err(format!("a name that begins with {RESERVED_NAMES} is reserved"));
                }
                self.names(&[table_name])
            }
            A::Insert { table_name } | A::Delete { table_name } | A::Update { table_name, .. } => {
                self.write(table_name)
            }
            action => self.names(&named(&action)),
        }
    }

    fn write(&self, table: &str) -> Result<(), String> {
        // The table of the schema is guarded by SQLite, which tells of it before it tells what is created.
        let is_schema = table.eq_ignore_ascii_case("sqlite_master");
        if begins_with(table, "sqlite_") && !is_schema && !self.changes_schema {
            return Err(format!("{table} is SQLite's own: it can't be written"));
        }
        self.names(&[table])
    }

    fn names(&self, names: &[&str]) -> Result<(), String> {
        match names.iter().find(|name| is_reserved(name)) {
            Some(name) => {
                Err(format!("{name}: a name that begins with {RESERVED_NAMES} is reserved"))
            }
            None => Ok(()),
        }
    }
}

/// Returns the names that an action is about.
fn named<'a>(action: &AuthAction<'a>) -> [&'a str; 2] {
    use AuthAction as A;
    match *action {
        A::CreateTable { table_name }
        | A::DropTable { table_name }
        | A::DropVtable { table_name, .. }
        | A::Analyze { table_name }
        | A::Read { table_name, .. } => [table_name, ""],
        A::CreateIndex { index_name, table_name } | A::DropIndex { index_name, table_name } => {
            [index_name, table_name]
        }
        A::CreateTrigger { trigger_name, table_name }
        | A::DropTrigger { trigger_name, table_name } => [trigger_name, table_name],
        A::CreateView { view_name } | A::DropView { view_name } => [view_name, ""],
        A::Reindex { index_name } => [index_name, ""],
        _ => ["", ""],
    }
}

fn pragma(name: &str, value: Option<&str>) -> Result<(), String> {
    let is = |names: &[&str]| names.iter().any(|one| name.eq_ignore_ascii_case(one));
    match value {
        _ if is(PRAGMAS) => Ok(()),
        None if is(PRAGMAS_READ) => Ok(()),
        Some(_) if is(PRAGMAS_READ) => Err(format!("PRAGMA {name} can be read and not set")),
        _ => Err(format!("PRAGMA {name} is refused")),
    }
}

fn function(name: &str) -> Result<(), String> {
    match FUNCTIONS_REFUSED.iter().any(|one| name.eq_ignore_ascii_case(one)) {
        true => Err(format!("the function {name} is refused")),
        false => Ok(()),
    }
}

fn module(name: &str) -> Result<(), String> {
    match MODULES.iter().any(|one| name.eq_ignore_ascii_case(one)) {
        true => Ok(()),
        false => Err(format!("virtual tables may use {}, and not {name}", MODULES.join(", "))),
    }
}

fn is_reserved(name: &str) -> bool {
    RESERVED.iter().any(|prefix| begins_with(name, prefix))
}

fn begins_with(name: &str, prefix: &str) -> bool {
    name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

/// How statements begin that have SQLite write to its own tables. No author's write begins so.
const CHANGES_SCHEMA: [&str; 6] = ["create", "drop", "alter", "analyze", "reindex", "pragma"];
/// How statements begin that begin or end a transaction.
const TRANSACTIONS: [&str; 6] = ["begin", "commit", "end", "rollback", "savepoint", "release"];
const TRANSACTIONS_REFUSED: &str =
    "BEGIN, COMMIT, ROLLBACK, SAVEPOINT and RELEASE are refused: use storage.transaction(...)";
/// Names for tables that are not the author's.
const RESERVED: [&str; 2] = ["_stubborn_", "_cf_"];
const RESERVED_NAMES: &str = "_stubborn_ or _cf_";
/// Pragmas that read, about what their value says; or that change no more than the author's own data.
const PRAGMAS: &[&str] = &[
    "collation_list",
    "compile_options",
    "defer_foreign_keys", // until the end of the transaction
    "foreign_key_check",
    "foreign_key_list",
    "function_list",
    "index_info",
    "index_list",
    "index_xinfo",
    "integrity_check",
    "optimize",
    "quick_check",
    "table_info",
    "table_list",
    "table_xinfo",
    "user_version", // a number in the database, for the author: what has been migrated, for example
];
/// Pragmas that read when they have no value. FTS5 asks for the first, the R-tree for the second.
const PRAGMAS_READ: &[&str] =
    &["data_version", "page_size", "page_count", "freelist_count", "foreign_keys"];
const FUNCTIONS_REFUSED: [&str; 2] = ["load_extension", "fts3_tokenizer"];
const MODULES: [&str; 4] = ["fts5", "fts5vocab", "rtree", "rtree_i32"];
