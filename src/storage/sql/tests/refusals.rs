//! What an author can't do with SQL, and what is told.

use std::rc::Rc;

use super::super::database::Database;
use super::super::limits::Limits;
use super::support::{Map, assert_whole, empty, error, rows, run};

fn check(database: &Database, sql: &str, message: &str) {
    let failed = error(database, sql);
    assert!(failed.contains(message), "{sql}: {failed}");
    assert!(failed.contains(", in: "), "{failed}");
    assert!(database.page_failure().is_none());
}

#[test]
fn what_is_refused_is_refused_by_its_name() {
    let (pages, database) = empty();
    run(
        &database,
        "CREATE TABLE t (k INTEGER PRIMARY KEY AUTOINCREMENT); INSERT INTO t VALUES (1)",
    );
    run(&database, "CREATE VIRTUAL TABLE note USING fts5(body)");
    for sql in [
        "BEGIN",
        "begin immediate",
        "COMMIT",
        "END",
        "ROLLBACK",
        "SAVEPOINT a",
        "RELEASE s",
        "ROLLBACK TO s",
        "/* x */ BEGIN",
        "EXPLAIN BEGIN",
        "SELECT 1; COMMIT",
    ] {
        check(&database, sql, "use storage.transaction(...)");
    }
    // A statement that is prepared already is not looked at again, and ours are when they have run.
    let kept = rows(&database, "SELECT count(*) FROM t");
    database.savepoint().unwrap();
    database.savepoint().unwrap();
    database.rollback().unwrap();
    database.release().unwrap();
    database.savepoint().unwrap();
    database.rollback().unwrap();
    for sql in ["SAVEPOINT s", "RELEASE s", "ROLLBACK TO s", "ROLLBACK", "rollback;"] {
        check(&database, sql, "use storage.transaction(...)");
        database.savepoint().unwrap();
        run(&database, "INSERT INTO t VALUES (77)");
        check(&database, sql, "use storage.transaction(...)");
        database.rollback().unwrap();
        assert_eq!(rows(&database, "SELECT count(*) FROM t"), kept, "{sql}");
    }
    let reserved = "a name that begins with _stubborn_ or _cf_ is reserved";
    for (sql, message) in [
        ("ATTACH ':memory:' AS a", "ATTACH and DETACH are refused"),
        ("DETACH main", "ATTACH and DETACH are refused"),
        ("VACUUM", "VACUUM is refused"),
        (" ; vacuum INTO 'file'", "VACUUM is refused"),
        ("PRAGMA journal_mode = WAL", "PRAGMA journal_mode is refused"),
        ("PRAGMA main.journal_mode", "PRAGMA journal_mode is refused"),
        ("PRAGMA writable_schema = ON", "PRAGMA writable_schema is refused"),
        ("PRAGMA locking_mode = NORMAL", "PRAGMA locking_mode is refused"),
        ("PRAGMA temp_store_directory = '/'", "PRAGMA temp_store_directory is refused"),
        ("PRAGMA max_page_count = 7", "PRAGMA max_page_count is refused"),
        ("PRAGMA cache_size = 7", "PRAGMA cache_size is refused"),
        ("PRAGMA foreign_keys = OFF", "PRAGMA foreign_keys can be read and not set"),
        ("PRAGMA page_size = 512", "PRAGMA page_size can be read and not set"),
        ("SELECT * FROM pragma_database_list", "PRAGMA database_list is refused"),
        ("SELECT load_extension('x')", "the function load_extension is refused"),
        ("SELECT fts3_tokenizer('x')", "the function fts3_tokenizer is refused"),
        ("CREATE TEMP TABLE a (b)", "a temporary table, index, trigger or view is refused"),
        ("CREATE TEMP VIEW a AS SELECT 1", "a temporary table, index, trigger or view"),
        ("CREATE VIRTUAL TABLE a USING dbstat", "virtual tables may use fts5"),
        ("UPDATE sqlite_sequence SET seq = 7", "sqlite_sequence is SQLite's own"),
        ("DELETE FROM sqlite_sequence", "sqlite_sequence is SQLite's own"),
        ("DELETE FROM sqlite_schema", "sqlite_master"),
        ("INSERT INTO sqlite_master VALUES (1, 2, 3, 4, 5)", "sqlite_master"),
        ("DELETE FROM note_data", "may not be modified"),
        ("CREATE TABLE _stubborn_a (b)", reserved),
        ("CREATE TABLE _CF_a (b)", reserved),
        ("CREATE INDEX _cf_i ON t (k)", reserved),
        ("CREATE VIEW _cf_v AS SELECT 1", reserved),
        ("CREATE TRIGGER _cf_t AFTER INSERT ON t BEGIN SELECT 1; END", reserved),
        ("CREATE VIRTUAL TABLE _cf_n USING fts5(a)", reserved),
        ("ALTER TABLE t RENAME TO _cf_t", reserved),
        ("ALTER TABLE t RENAME TO \"_Stubborn_t\"", reserved),
        ("SELECT \"nothing\" FROM t", "no such column"),
        ("SELEC 1", "syntax error"),
        ("SELECT 1 \0; SELECT 2", "the text has a zero byte"),
    ] {
        check(&database, sql, message);
    }
    for sql in ["PRAGMA table_info(t)", "PRAGMA index_list('t')", "PRAGMA foreign_keys"] {
        run(&database, sql);
    }
    run(&database, "PRAGMA user_version = 3; PRAGMA defer_foreign_keys = ON; PRAGMA quick_check");
    assert_eq!(rows(&database, "SELECT name FROM pragma_table_info('t')"), ["k"]);
    pages.take(&database);
    let again = pages.open();
    assert_eq!(rows(&again, "PRAGMA user_version"), ["3"]);
    assert_eq!(
        rows(&again, "SELECT count(*) FROM sqlite_schema WHERE name LIKE '\\_%' ESCAPE '\\'"),
        ["0"]
    );
    assert_whole(&again);
}

#[test]
fn reserved_tables_can_be_neither_read_nor_changed() {
    let (_, database) = empty();
    database.trusted_for_tests("CREATE TABLE _cf_kv (k); CREATE VIEW v AS SELECT * FROM _cf_kv");
    for sql in [
        "SELECT * FROM _cf_kv",
        "SELECT count(*) FROM _CF_KV",
        "SELECT * FROM v",
        "INSERT INTO _cf_kv VALUES (1)",
        "UPDATE _cf_kv SET k = 1",
        "DELETE FROM _cf_kv",
        "DROP TABLE _cf_kv",
        "ALTER TABLE _cf_kv RENAME TO a",
        "CREATE INDEX i ON _cf_kv (k)",
        "CREATE TRIGGER t AFTER INSERT ON _cf_kv BEGIN SELECT 1; END",
        "CREATE TABLE a AS SELECT * FROM _cf_kv",
    ] {
        check(&database, sql, "reserved");
    }
}

#[test]
fn limits_are_kept_and_named() {
    let pages = Rc::new(Map::default());
    let limits = Limits {
        database_bytes_max: 40 * 4096,
        value_bytes_max: 10_000,
        statement_bytes_max: 1000,
        parameters_max: 5,
        steps_max: 1_000_000,
        ..Limits::default()
    };
    let database = pages.open_with(limits);
    run(&database, "CREATE TABLE t (k INTEGER PRIMARY KEY, v)");
    check(&database, &format!("SELECT '{}'", "x".repeat(1000)), "statement_bytes_max");
    check(&database, "SELECT zeroblob(10001)", "value_bytes_max");
    check(&database, "SELECT ?6", "variable number must be between ?1 and ?5");
    let endless =
        "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n) SELECT sum(i) FROM n";
    check(&database, endless, "more than 1000000 steps (steps_max)");
    let mut written = 0;
    let full = loop {
        match database.exec("INSERT INTO t (v) VALUES (zeroblob(9000))", ()) {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
    };
    assert!(full.message.contains("it may have 163840 bytes (database_bytes_max)"), "{full}");
    assert!(written >= 10, "{written}");
    assert_eq!(rows(&database, "SELECT count(*) FROM t"), [written.to_string()]);
    assert!(database.size_bytes() <= 40 * 4096);
    run(&database, "DELETE FROM t WHERE k < 5; INSERT INTO t (v) VALUES (zeroblob(9000))");
    assert_whole(&database);
}
