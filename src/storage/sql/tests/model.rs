//! A database against SQLite in memory: the same statements, and the same outcome.

use proptest::prelude::*;
use rusqlite::types::ValueRef;

use super::super::limits::Limits;
use super::super::value::Value;
use super::support::{Map, assert_whole};
use crate::storage::sql::database::Database;

#[derive(Clone, Debug)]
enum Step {
    Run(String),
    Savepoint,
    Release,
    Rollback,
    Take,
    Reopen,
}

fn statement() -> impl Strategy<Value = String> {
    let (key, size) = (0..60_i64, 0..6000_usize);
    prop_oneof![
        6 => (key.clone(), size.clone()).prop_map(|(key, size)| format!(
            "INSERT OR REPLACE INTO t VALUES ({key}, zeroblob({size}), {key} % 7)"
        )),
        2 => (key.clone(), size).prop_map(|(key, size)| format!(
            "UPDATE t SET v = zeroblob({size}) || k WHERE k BETWEEN {key} AND {key} + 4"
        )),
        1 => key.clone().prop_map(|key| format!("INSERT INTO t VALUES ({key}, 'text', {key})")),
        1 => key.clone().prop_map(|key| format!("INSERT OR ROLLBACK INTO t VALUES ({key}, 1, 1)")),
        1 => key.clone().prop_map(|key| format!("DELETE FROM t WHERE w = {key} % 7")),
        1 => key.clone().prop_map(|key| format!("INSERT INTO note VALUES ('word{key} and more')")),
        1 => key.clone().prop_map(|key| format!("DELETE FROM note WHERE note MATCH 'word{key}'")),
        1 => key.clone().prop_map(|key| format!("CREATE TABLE IF NOT EXISTS a{} (x)", key % 3)),
        1 => key.clone().prop_map(|key| format!("DROP TABLE IF EXISTS a{}", key % 3)),
        1 => key.prop_map(|key| format!("INSERT INTO a{} VALUES (zeroblob(9000))", key % 3)),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => statement().prop_map(Step::Run),
        2 => Just(Step::Savepoint),
        2 => Just(Step::Release),
        1 => Just(Step::Rollback),
        2 => Just(Step::Take),
        1 => Just(Step::Reopen),
    ]
}

const SCHEMA: &str = "CREATE TABLE t (k INTEGER PRIMARY KEY, v, w); CREATE INDEX i ON t (w, v);
                      CREATE VIRTUAL TABLE note USING fts5(body)";
const TABLES: [&str; 3] = [
    "SELECT * FROM t ORDER BY k",
    "SELECT rowid, body FROM note ORDER BY rowid",
    "SELECT type, name, sql FROM sqlite_schema ORDER BY name",
];

fn model_rows(model: &rusqlite::Connection, sql: &str) -> Vec<Vec<Value>> {
    let mut statement = model.prepare(sql).unwrap();
    let columns = statement.column_count();
    let read = |row: &rusqlite::Row<'_>| {
        (0..columns)
            .map(|index| row.get_ref(index).map(|value: ValueRef<'_>| Value::of(value)))
            .collect()
    };
    statement.query_map([], read).unwrap().map(Result::unwrap).collect()
}

/// The model has no savepoints that are lost: what SQLite rolled back is begun anew, and rolled back at the end.
struct Pair {
    pages: std::rc::Rc<Map>,
    database: Database,
    model: rusqlite::Connection,
    lost: bool,
}

impl Pair {
    fn new(limits: Limits) -> Self {
        let pages = std::rc::Rc::new(Map::default());
        let database = pages.open_with(limits);
        let model = rusqlite::Connection::open_in_memory().unwrap();
        database.exec(SCHEMA, ()).unwrap();
        model.execute_batch(SCHEMA).unwrap();
        Self { pages, database, model, lost: false }
    }

    fn take(&mut self, step: &Step, limits: Limits) {
        let depth = self.database.savepoints();
        match step {
            Step::Run(sql) => {
                let outcome = self.database.exec(sql, ());
                if self.lost {
                    assert!(outcome.is_err());
                    return;
                }
                let expected = self.model.execute_batch(sql);
                assert_eq!(outcome.is_ok(), expected.is_ok(), "{sql}: {outcome:?} {expected:?}");
                self.lost = depth > 0 && self.model.is_autocommit();
            }
            Step::Savepoint if !self.lost && depth < 4 => {
                self.database.savepoint().unwrap();
                self.model.execute_batch("SAVEPOINT s").unwrap();
            }
            Step::Release if depth > 0 => {
                assert_eq!(self.database.release().is_ok(), !self.lost);
                if !self.lost {
                    self.model.execute_batch("RELEASE s").unwrap();
                }
            }
            Step::Rollback if depth > 0 => {
                self.database.rollback().unwrap();
                if !self.lost {
                    self.model.execute_batch("ROLLBACK TO s; RELEASE s").unwrap();
                }
                self.lost &= depth > 1;
            }
            Step::Take if depth == 0 => drop(self.pages.take(&self.database)),
            Step::Reopen if depth == 0 => {
                self.pages.take(&self.database);
                self.database = self.pages.open_with(limits);
            }
            _ => {}
        }
    }

    fn compare(&self) {
        for sql in TABLES {
            let cursor = self.database.exec(sql, ()).unwrap();
            let rows: Vec<Vec<Value>> = cursor.map(|row| row.into_values()).collect();
            assert!(rows == model_rows(&self.model, sql), "{sql} differs");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(60) })]

    #[test]
    fn statements_do_what_they_do_in_sqlite(
        steps in prop::collection::vec(step(), 1..120),
        cache_pages in 1_u32..40,
    ) {
        let limits = Limits { cache_bytes: cache_pages * 4096, ..Limits::default() };
        let mut pair = Pair::new(limits);
        for step in &steps {
            pair.take(step, limits);
            if !pair.lost && matches!(step, Step::Rollback | Step::Reopen) {
                pair.compare();
            }
        }
        while pair.database.savepoints() > 0 {
            pair.take(&if pair.lost { Step::Rollback } else { Step::Release }, limits);
        }
        pair.take(&Step::Reopen, limits);
        pair.compare();
        assert_whole(&pair.database);
    }
}
