//! What an author can do with SQL.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::rc::Rc;

use bytes::Bytes;
use serde::Deserialize;

use super::super::bindings::Named;
use super::super::limits::Limits;
use super::super::value::Value;
use super::support::{Map, assert_whole, empty, error, rows, run};

#[test]
fn data_is_defined_written_joined_and_read() {
    let (_, database) = empty();
    run(
        &database,
        "CREATE TABLE author (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE);
         CREATE TABLE book (id INTEGER PRIMARY KEY, author INTEGER REFERENCES author, title TEXT);
         CREATE INDEX by_title ON book (title);
         CREATE VIEW written AS SELECT name, title FROM author JOIN book ON book.author = author.id;
         CREATE TABLE log (what TEXT);
         CREATE TRIGGER logs AFTER INSERT ON book BEGIN
           INSERT INTO log VALUES ('new; ' || NEW.title);
           INSERT INTO log VALUES ('end');
         END;
         INSERT INTO author (name) VALUES ('Ursula'), ('Stanisław');
         INSERT INTO book VALUES (1, 1, 'The Dispossessed'), (2, 2, 'Solaris')",
    );
    assert_eq!(
        rows(&database, "SELECT * FROM written ORDER BY title"),
        ["Stanisław|Solaris", "Ursula|The Dispossessed"]
    );
    assert_eq!(rows(&database, "SELECT count(*) FROM log"), ["4"]);
    run(&database, "UPDATE book SET title = upper(title) WHERE id = 2");
    assert_eq!(rows(&database, "DELETE FROM book WHERE id = 2 RETURNING title"), ["SOLARIS"]);
    let failed = error(&database, "INSERT INTO book VALUES (3, 77, 'x')");
    assert!(failed.contains("FOREIGN KEY constraint failed"), "{failed}");
    let failed = error(&database, "INSERT INTO author (name) VALUES ('Ursula')");
    assert_eq!(
        failed,
        "sql: UNIQUE constraint failed: author.name, in: INSERT INTO author (name) VALUES ('Ursula')"
    );
    run(&database, "ALTER TABLE book RENAME TO work; ALTER TABLE work ADD COLUMN year INTEGER");
    run(&database, "DROP TABLE work; DROP TABLE author; ANALYZE; REINDEX; PRAGMA optimize");
    assert_eq!(rows(&database, "SELECT name FROM sqlite_sequence"), [""; 0]);
    assert_whole(&database);
}

#[test]
fn json_full_text_and_recursion_are_there() {
    let (pages, database) = empty();
    assert_eq!(rows(&database, "SELECT json_extract('{\"a\":[1,2]}', '$.a[1]')"), ["2"]);
    assert_eq!(rows(&database, "SELECT '[7]' ->> 0, jsonb('[1]') IS NOT NULL"), ["7|1"]);
    assert_eq!(rows(&database, "SELECT value FROM json_each('[3,4]')"), ["3", "4"]);
    run(
        &database,
        "CREATE VIRTUAL TABLE note USING fts5(title, body);
         INSERT INTO note VALUES ('a', 'the quick brown fox'), ('b', 'a slow dog')",
    );
    let find = "SELECT title, snippet(note, 1, '<', '>', '', 5) FROM note('quick OR lazy')";
    assert_eq!(rows(&database, find), ["a|the <quick> brown fox"]);
    pages.take(&database);
    let again = pages.open();
    assert_eq!(rows(&again, find).len(), 1);
    run(&again, "INSERT INTO note(note) VALUES ('optimize'); DELETE FROM note WHERE title = 'a'");
    assert_eq!(rows(&again, find).len(), 0);
    run(
        &again,
        "CREATE VIRTUAL TABLE box USING rtree(id, x1, x2); INSERT INTO box VALUES (1, 0, 2)",
    );
    assert_eq!(rows(&again, "SELECT id FROM box WHERE x1 < 1"), ["1"]);
    let sum = "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 100)
               SELECT sum(i) OVER (ORDER BY i), i FROM n ORDER BY i DESC LIMIT 1";
    assert_eq!(rows(&again, sum), ["5050|100"]);
    run(&again, "DROP TABLE note; DROP TABLE box");
    assert_whole(&again);
}

#[test]
fn mathematical_functions_are_there() {
    let (_, database) = empty();
    for (sql, expected) in [
        ("ceil(1.2)", "2.0"),
        ("ceiling('7')", "7"),
        ("floor(-1.5)", "-2.0"),
        ("trunc(-1.5)", "-1.0"),
        ("floor(3)", "3"),
        ("sqrt(2)", "1.4142135623730951"),
        ("sqrt(-1)", "null"),
        ("sqrt('x')", "null"),
        ("sqrt('inf')", "null"),
        ("sqrt(x'34')", "null"),
        ("sqrt(' 4 ')", "2.0"),
        ("ln(0)", "null"),
        ("log(1000)", "3.0"),
        ("log(2, 8)", "3.0"),
        ("log(1, 8)", "null"),
        ("log2(8)", "3.0"),
        ("log10(100)", "2.0"),
        ("pow(2, 10)", "1024.0"),
        ("power(2, '0.5')", "1.4142135623730951"),
        ("mod(7, 3)", "1.0"),
        ("mod(7, 0)", "null"),
        ("atan2(0, 1)", "0.0"),
        ("round(degrees(pi()))", "180.0"),
        ("round(sin(radians(90)), 6)", "1.0"),
        ("tanh(0) + acosh(1) + exp(0)", "1.0"),
    ] {
        assert_eq!(rows(&database, &format!("SELECT {sql}")), [expected], "{sql}");
    }
    run(&database, "CREATE TABLE t (x, y AS (sqrt(x))); CREATE INDEX i ON t (pow(x, 2))");
}

#[test]
fn bindings_are_positional_or_named_and_none_is_left_over() {
    let (_, database) = empty();
    let one = |sql, bindings: super::super::bindings::Values| {
        database.exec(sql, bindings).map(|mut cursor| cursor.one().unwrap().into_values())
    };
    use super::super::bindings::Bindings;
    let values = |bindings: super::super::bindings::Values| one("SELECT ?, ?2", bindings).unwrap();
    let both = vec![Value::Integer(1), Value::Text("b".to_owned())];
    assert_eq!(values((1, "b").into_values().unwrap()), both);
    assert_eq!(values((&1_u8, "b".to_owned()).into_values().unwrap()), both);
    assert_eq!(values(both.clone().into_values().unwrap()), both);
    assert_eq!(values(both.as_slice().into_values().unwrap()), both);
    assert_eq!(values([None, Some(2.5)].into_values().unwrap()), [Value::Null, Value::Real(2.5)]);
    assert_eq!(values((&[1, 2]).into_values().unwrap()), [1, 2].map(Value::Integer));
    assert_eq!(values((&vec![1, 2]).into_values().unwrap()), [1, 2].map(Value::Integer));
    let blob = Bytes::from_static(b"\0x");
    assert_eq!(
        values((blob.clone(), true).into_values().unwrap()),
        [Value::Blob(blob), Value::Integer(1)]
    );
    let named = Named::new().with("$b", 2).with("a", 1).into_values().unwrap();
    assert_eq!(one("SELECT :a, $b, :a", named).unwrap(), [1, 2, 1].map(Value::Integer));
    for (sql, bindings, message) in [
        ("SELECT ?", ().into_values(), "1 parameters and 0 bindings"),
        ("SELECT 1", (1,).into_values(), "0 parameters and 1 bindings"),
        ("SELECT ?; SELECT 1", (1,).into_values(), "1 parameters and 0 bindings"),
        ("SELECT :a", Named::new().with("b", 1).into_values(), "no parameter :b"),
        (
            "SELECT :a, :b",
            Named::new().with("a", 1).with(":a", 1).into_values(),
            "two bindings of :a",
        ),
    ] {
        let error = one(sql, bindings.unwrap()).unwrap_err();
        assert!(error.message.contains(message), "{sql}: {error}");
    }
    assert!((u64::MAX,).into_values().is_err());
    assert!(Named::new().with("a", u64::MAX).with("b", 1).into_values().is_err());
}

#[test]
fn rows_are_read_by_name_by_index_and_as_types() {
    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(rename_all = "lowercase")]
    enum Colour {
        Red,
    }
    #[derive(Debug, Deserialize, PartialEq)]
    struct Thing {
        id: u32,
        name: Option<String>,
        weight: f64,
        sold: bool,
        colour: Colour,
        data: Vec<u8>,
    }
    let (_, database) = empty();
    let sql =
        "SELECT 7 AS id, NULL AS name, 2 AS weight, 1 AS sold, 'red' AS colour, x'0102' AS data";
    let mut cursor = database.exec(sql, ()).unwrap();
    assert_eq!(cursor.column_names(), ["id", "name", "weight", "sold", "colour", "data"]);
    let row = cursor.one().unwrap();
    assert_eq!(row.get::<u8>("id").unwrap(), 7);
    assert_eq!(row.get::<Option<String>>(1).unwrap(), None);
    assert_eq!(row.get::<f64>("weight").unwrap(), 2.0);
    assert_eq!(row.get::<Bytes>("data").unwrap(), Bytes::from_static(&[1, 2]));
    assert!(row.get::<String>("id").unwrap_err().message.contains("of type integer"));
    assert!(row.get::<i64>("nothing").unwrap_err().message.contains("no column nothing"));
    assert!(row.get::<i64>(6).is_err());
    let (name, weight) = (None, 2.0);
    let thing = Thing { id: 7, name, weight, sold: true, colour: Colour::Red, data: vec![1, 2] };
    assert_eq!(row.to::<Thing>().unwrap(), thing);
    assert!(row.to::<(u32,)>().is_err());
    let pairs = "SELECT 1, 'a' UNION ALL SELECT 2, 'b'";
    let pairs: BTreeMap<u32, String> =
        database.exec(pairs, ()).unwrap().rows_as().unwrap().into_iter().collect();
    assert_eq!(pairs[&2], "b");
    assert!(database.exec("SELECT 300", ()).unwrap().one().unwrap().get::<u8>(0).is_err());
}

#[test]
fn a_cursor_is_a_snapshot_that_knows_what_it_took() {
    let (_, database) = empty();
    run(&database, "CREATE TABLE t (k INTEGER PRIMARY KEY, v)");
    let insert = "INSERT INTO t SELECT value, value % 3 FROM json_each('[1,2,3,4,5,6,7,8,9,10]')";
    assert_eq!(database.exec(insert, ()).unwrap().rows_written(), 10);
    let mut cursor = database.exec("SELECT * FROM t WHERE v = 0", ()).unwrap();
    run(&database, "DELETE FROM t WHERE k = 3");
    assert_eq!((cursor.rows_read(), cursor.rows_written()), (9, 0));
    assert_eq!(cursor.next().unwrap().get::<i64>("k").unwrap(), 3);
    assert_eq!(cursor.to_vec().len(), 2);
    assert!(cursor.one().is_err());
    assert_eq!(database.exec("SELECT * FROM t WHERE k = 4", ()).unwrap().rows_read(), 1);
    let both = database.exec("UPDATE t SET v = 1 WHERE k > 8; DELETE FROM t", ()).unwrap();
    assert_eq!(both.rows_written(), 2 + 9);
    assert_eq!(database.exec("SELECT 1", ()).unwrap().column_names(), ["1"]);
    assert!(database.exec(" -- nothing", ()).is_err());
}

#[test]
fn each_streams_what_is_too_large_to_hold() {
    let pages = Rc::new(Map::default());
    let limits = Limits { result_bytes_max: 10_000, ..Limits::default() };
    let database = pages.open_with(limits);
    run(&database, "CREATE TABLE t (k INTEGER PRIMARY KEY, v)");
    run(
        &database,
        "INSERT INTO t SELECT value, zeroblob(900) FROM json_each('[1,2,3,4,5,6,7,8,9,10,11,12]')",
    );
    let failed = error(&database, "SELECT * FROM t");
    assert!(failed.contains("use `each`, or LIMIT"), "{failed}");
    let mut seen = Vec::new();
    let visit = |row: super::super::row::Row| {
        let key = row.get::<i64>("k")?;
        seen.push(key);
        database.exec("UPDATE t SET v = ?2 WHERE k = ?1", (key, key))?;
        pages.take(&database);
        Ok(if key < 11 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    };
    database.each("SELECT * FROM t ORDER BY k", (), visit).unwrap();
    assert_eq!(seen, (1..=11).collect::<Vec<_>>());
    assert_eq!(rows(&database, "SELECT sum(v) FROM t WHERE k < 12"), ["66"]);
    let failed = database.each("DELETE FROM t RETURNING k", (), |_| panic!("it must not run"));
    assert!(failed.unwrap_err().message.contains("`each` only reads"));
    let failed = database.each("SELECT * FROM t", (), |_| Err("enough".into()));
    assert_eq!(failed.unwrap_err().message, "enough");
    assert_whole(&database);
}

#[test]
fn text_that_is_not_utf8_comes_out_with_replacements() {
    let (_, database) = empty();
    assert_eq!(rows(&database, "SELECT CAST(x'61ff' AS TEXT)"), ["a\u{fffd}"]);
}
