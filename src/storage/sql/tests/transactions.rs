//! Savepoints, and what becomes of pages.

use std::rc::Rc;

use super::super::limits::Limits;
use super::support::{Map, Rows, assert_whole, empty, error, rows, run};
use crate::storage::memory::Memory;

const COUNT: &str = "SELECT count(*) FROM t";

#[test]
fn a_database_that_was_never_written_has_no_pages() {
    let (pages, database) = empty();
    assert_eq!(rows(&database, "SELECT 1"), ["1"]);
    assert_eq!(rows(&database, "SELECT count(*) FROM sqlite_schema"), ["0"]);
    database.savepoint().unwrap();
    run(&database, "CREATE TABLE t (k)");
    assert!(!database.is_dirty() && database.size_bytes() == 8192);
    database.rollback().unwrap();
    assert!(!database.is_dirty() && database.size_bytes() == 0);
    assert_eq!(database.take_dirty(), []);
    run(&database, "CREATE TABLE t (k)");
    assert!(database.is_dirty());
    assert_eq!(pages.take(&database), 2);
    assert_eq!(rows(&pages.open(), COUNT), ["0"]);
}

#[test]
fn a_commit_writes_only_the_pages_that_it_changes() {
    let (pages, database) = empty();
    run(&database, "CREATE TABLE t (k INTEGER PRIMARY KEY, v)");
    for _ in 0..1000 {
        run(&database, "INSERT INTO t (v) VALUES (zeroblob(200))");
    }
    pages.take(&database);
    run(&database, "UPDATE t SET v = 1 WHERE k = 500");
    assert_eq!(pages.take(&database), 1);
    run(&database, "UPDATE t SET v = 1 WHERE k = 500");
    assert!(pages.take(&database) <= 1);
    assert_whole(&pages.open());
}

#[test]
fn savepoints_nest_and_roll_back() {
    let (pages, database) = empty();
    run(&database, "CREATE TABLE t (k INTEGER PRIMARY KEY)");
    database.savepoint().unwrap();
    run(&database, "INSERT INTO t VALUES (1)");
    database.savepoint().unwrap();
    run(&database, "INSERT INTO t VALUES (2)");
    database.savepoint().unwrap();
    run(&database, "INSERT INTO t VALUES (3); CREATE TABLE u (k)");
    assert_eq!((rows(&database, COUNT), database.savepoints()), (vec!["3".to_owned()], 3));
    database.rollback().unwrap();
    assert_eq!(rows(&database, COUNT), ["2"]);
    assert!(error(&database, "SELECT * FROM u").contains("no such table"));
    database.release().unwrap();
    database.savepoint().unwrap();
    run(&database, "DELETE FROM t");
    database.rollback().unwrap();
    // An error inside changes nothing else.
    assert!(error(&database, "INSERT INTO t VALUES (9), (1)").contains("UNIQUE"));
    assert_eq!(rows(&database, "SELECT group_concat(k) FROM t"), ["1,2"]);
    database.release().unwrap();
    assert_eq!(database.savepoints(), 0);
    pages.take(&database);
    assert_eq!(rows(&pages.open(), COUNT), ["2"]);
    database.savepoint().unwrap();
    run(&database, "DELETE FROM t");
    database.rollback().unwrap();
    assert_eq!(rows(&database, COUNT), ["2"]);
}

#[test]
fn what_spills_from_a_small_cache_is_rolled_back_too() {
    let pages = Rc::new(Map::default());
    let database = pages.open_with(Limits { cache_bytes: 20 << 10, ..Limits::default() });
    run(&database, "CREATE TABLE t (k INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (1, 'a')");
    pages.take(&database);
    database.savepoint().unwrap();
    for _ in 0..300 {
        run(&database, "INSERT INTO t (v) VALUES (randomblob(3000))");
    }
    run(&database, "UPDATE t SET v = 'b' WHERE k = 1");
    assert!(database.is_dirty(), "nothing was spilled: the test tests nothing");
    database.rollback().unwrap();
    pages.take(&database);
    assert_eq!(pages.pages.borrow().len(), 2);
    for database in [database, pages.open()] {
        assert_eq!(rows(&database, "SELECT * FROM t"), ["1|a"]);
        assert_whole(&database);
    }
}

/// Statements wrote pages into memory without end.
#[test]
fn what_one_transaction_writes_is_bounded_and_one_too_large_leaves_nothing() {
    for cache_pages in [5, 64, 10_000] {
        let pages = Rc::new(Map::default());
        let database = pages.open_with(Limits {
            cache_bytes: cache_pages << 12,
            transaction_bytes_max: 40 << 12,
            ..Limits::default()
        });
        run(&database, "CREATE TABLE t (k INTEGER PRIMARY KEY, v)");
        for _ in 0..30 {
            run(&database, "INSERT INTO t (v) VALUES (zeroblob(9000))");
            pages.take(&database);
        }
        let sum = "SELECT sum(k), sum(length(v)), hex(max(v)) FROM t";
        let known = rows(&database, sum);
        let grow = "WITH RECURSIVE n(k) AS (SELECT 1 UNION ALL SELECT k + 1 FROM n LIMIT 100)
                    INSERT INTO t (v) SELECT zeroblob(9000) FROM n";
        let change = "UPDATE t SET v = randomblob(9000)";
        for large in [grow, change] {
            for is_nested in [false, true] {
                // What was written before in the turn stays.
                run(&database, "UPDATE t SET v = zeroblob(9000) WHERE k = 3");
                if is_nested {
                    database.savepoint().unwrap();
                    run(&database, "UPDATE t SET v = zeroblob(8000) WHERE k = 7");
                    database.savepoint().unwrap();
                }
                let failed = match database.exec(large, ()) {
                    Err(error) => error.message,
                    Ok(_) if is_nested => {
                        database.release().unwrap();
                        database.release().unwrap_err().message
                    }
                    Ok(_) => panic!("{large} fits"),
                };
                assert!(failed.contains("transaction_bytes_max"), "{failed}");
                while database.savepoints() > 0 {
                    database.rollback().unwrap();
                }
                assert_eq!(database.page_failure(), None);
                assert_eq!(rows(&database, sum), known, "{large}");
                assert_whole(&database);
                assert!(pages.take(&database) <= 40);
                assert_eq!(rows(&pages.open(), sum), known);
                assert_whole(&pages.open());
            }
        }
    }
}

#[test]
fn a_transaction_that_sqlite_has_rolled_back_is_over() {
    let (pages, database) = empty();
    run(&database, "CREATE TABLE t (k INTEGER PRIMARY KEY); INSERT INTO t VALUES (1)");
    database.savepoint().unwrap();
    run(&database, "INSERT INTO t VALUES (2)");
    database.savepoint().unwrap();
    assert!(error(&database, "INSERT OR ROLLBACK INTO t VALUES (1)").contains("UNIQUE"));
    for _ in 0..2 {
        let lost = "the transaction was rolled back: sql: UNIQUE constraint failed";
        assert!(error(&database, COUNT).starts_with(lost));
        assert!(database.savepoint().unwrap_err().message.starts_with(lost));
        assert!(database.release().unwrap_err().message.starts_with(lost));
        database.rollback().unwrap();
    }
    assert_eq!(rows(&database, COUNT), ["1"]);
    database.savepoint().unwrap();
    run(&database, "INSERT INTO t VALUES (2)");
    database.release().unwrap();
    pages.take(&database);
    assert_eq!(rows(&pages.open(), COUNT), ["2"]);
}

#[test]
fn a_late_foreign_key_is_checked_at_the_outermost_release() {
    let (_, database) = empty();
    run(&database, "CREATE TABLE a (k INTEGER PRIMARY KEY); CREATE TABLE t (a REFERENCES a)");
    database.savepoint().unwrap();
    run(&database, "PRAGMA defer_foreign_keys = ON; INSERT INTO t VALUES (1)");
    assert!(database.release().unwrap_err().message.contains("FOREIGN KEY"));
    assert_eq!(database.savepoints(), 1);
    run(&database, "INSERT INTO a VALUES (1)");
    database.release().unwrap();
    database.savepoint().unwrap();
    run(&database, "PRAGMA defer_foreign_keys = ON; INSERT INTO t VALUES (2)");
    assert!(database.release().is_err());
    database.rollback().unwrap();
    assert_eq!(rows(&database, COUNT), ["1"]);
}

#[test]
fn pages_are_rows_of_a_store() {
    let engine = Memory::new();
    let source = Rows::new(&engine, 0);
    let database =
        super::super::database::Database::open(source.clone(), Limits::default()).unwrap();
    run(&database, "CREATE TABLE t (k INTEGER PRIMARY KEY, v)");
    for _ in 0..50 {
        run(&database, "INSERT INTO t (v) VALUES (randomblob(2000))");
        source.take(&database);
    }
    let sum = "SELECT sum(k * length(v)), hex(max(v)) FROM t";
    let (before, count) = (rows(&database, sum), source.take(&database));
    drop(database);
    let source = Rows::new(&engine, count);
    let database = super::super::database::Database::open(source, Limits::default()).unwrap();
    assert_eq!(rows(&database, sum), before);
    assert_whole(&database);
}

#[test]
fn databases_of_one_thread_and_of_many_are_apart() {
    let work = || {
        let all: Vec<_> = (0..4).map(|_| empty()).collect();
        for round in 0..20 {
            for (number, (pages, database)) in all.iter().enumerate() {
                if round == 0 {
                    run(database, "CREATE TABLE t (k)");
                }
                database.exec("INSERT INTO t VALUES (?)", (number,)).unwrap();
                pages.take(database);
            }
        }
        for (number, (_, database)) in all.iter().enumerate() {
            let sum = (number * 20).to_string();
            assert_eq!(rows(database, "SELECT sum(k) FROM t"), [sum]);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(work);
        }
    });
}
