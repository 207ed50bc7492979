//! What the classes store: what it is, and that a server started later finds it.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{Either, select};
use serde_json::{Value, json};

use super::{check, json_of, request, send, served, served_by};
use crate::error::{Error, Kind};
use crate::storage::memory::Memory;
use crate::{Client, DurableObject, Env, Request, Response, Result, Server, State, respond};

const PROBE: (&str, &str) = ("PROBE", "tested");

/// Checks what one probe answers to `GET`s, in this order.
async fn check_probe(client: &Client, rows: &[(&str, u16, &str)]) {
    let rows = rows.iter().map(|(path, status, text)| ("GET", *path, "", *status, *text));
    check(client, "PROBE", &rows.collect::<Vec<_>>()).await;
}

/// Returns the error that a probe answers.
async fn error_of(client: &Client, path: &str) -> Error {
    send(client, PROBE, request("GET", path, "")).await.map(drop).expect_err(path)
}

async fn text_of(client: &Client, path: &str) -> String {
    let answer = send(client, PROBE, request("GET", path, "")).await.unwrap();
    assert_eq!(answer.status(), 200, "{path}");
    answer.into_body().text().await.unwrap()
}

/// Runs `sql` in a probe.
async fn sql(client: &Client, statement: Value) -> Value {
    let answer = send(client, PROBE, request("POST", "/sql", &statement.to_string())).await;
    serde_json::from_str(&answer.unwrap().into_body().text().await.unwrap()).unwrap()
}

#[test]
fn what_was_acknowledged_is_there_after_a_crash() {
    let store = Memory::new();
    let mut crashed = None;
    served_by(Server::builder().store(Arc::new(store.clone())), async |client| {
        check(&client, "COUNTER", &[("POST", "/?by=41", "", 200, "41")]).await;
        check(&client, "KV", &[("PUT", "/a", "1", 204, ""), ("PUT", "/b", "2", 204, "")]).await;
        check(&client, "KV", &[("DELETE", "/b", "", 204, "")]).await;
        let one = "{\"number\":1,\"from\":\"ann\",\"text\":\"hi\"}\n";
        check(&client, "ROOM", &[("POST", "/?from=ann", "hi", 200, one)]).await;
        check_probe(&client, &[("/put?key=a&value=x", 200, "1")]).await;
        sql(&client, json!({"sql": "CREATE TABLE t (a); INSERT INTO t VALUES (7)"})).await;
        crashed = Some(store.after_crash());
    });
    served_by(Server::builder().store(Arc::new(crashed.unwrap())), async |client| {
        let rows = [("GET", "/", "", 200, "41"), ("POST", "/", "", 200, "42")];
        check(&client, "COUNTER", &rows).await;
        check(&client, "KV", &[("GET", "/", "", 200, "a\n"), ("GET", "/a", "", 200, "1")]).await;
        let stored = send(&client, ("KV", "tested"), request("GET", "/a", "")).await.unwrap();
        assert_eq!(stored.headers()["content-type"], "text/x-test");
        let two = "{\"number\":2,\"text\":\"you\"}\n";
        check(&client, "ROOM", &[("POST", "/", "you", 200, two)]).await;
        let read = (
            "GET",
            "/?limit=1&after=0",
            "",
            200,
            "{\"number\":1,\"from\":\"ann\",\"text\":\"hi\"}\n",
        );
        check(&client, "ROOM", &[read, ("GET", "/?limit=0", "", 200, "")]).await;
        check_probe(&client, &[("/get?key=a", 200, "x")]).await;
        assert_eq!(sql(&client, json!({"sql": "SELECT a FROM t"})).await["rows"], json!([[7]]));
    });
}

#[test]
fn a_kv_lists_its_keys_in_pages() {
    served(async |client| {
        let rows = ["/a", "/b/1", "/b/2", "/b/3", "/c"].map(|key| ("PUT", key, "", 204, ""));
        check(&client, "KV", &rows).await;
        let rows = [
            ("GET", "/?limit=2", "", 200, "a\nb/1\n"),
            ("GET", "/?limit=2&after=b/1", "", 200, "b/2\nb/3\n"),
            ("GET", "/?limit=2&after=b%2f3", "", 200, "c\n"),
            ("GET", "/?prefix=b/", "", 200, "b/1\nb/2\nb/3\n"),
            ("GET", "/?prefix=b/&after=b/2", "", 200, "b/3\n"),
            ("GET", "/?limit=0", "", 400, "limit=0"),
            ("GET", "/?limit=10001", "", 400, "limit=10001"),
        ];
        check(&client, "KV", &rows).await;
        // The largest there may be, by the longest key there may be.
        let (key, to) = (format!("/{}", "k".repeat(2_042)), ("KV", "large"));
        for (more, status) in [(0, 204), (1, 413)] {
            let value = "x".repeat((2 << 20) - 2_048 - 5 + more);
            let answer = send(&client, to, request("PUT", &key, &value)).await.unwrap();
            assert_eq!(answer.status(), status, "{more}");
        }
        let stored = send(&client, to, request("GET", &key, "")).await.unwrap();
        assert_eq!(stored.into_body().bytes().await.unwrap().len(), (2 << 20) - 2_048 - 5);
    });
}

#[test]
fn a_probe_stores_lists_and_deletes() {
    served(async |client| {
        let rows = [
            ("/put?key=a&value=1", 200, "1"),
            ("/put?key=b/1&value=x%20y&key=b/2&value=&key=c&value=3", 200, "3"),
            ("/put?key=a&value=1&key=b", 400, "?key= 2 and ?value= 1"),
            ("/put?value=1", 400, "?key="),
            ("/get?key=b/1", 200, "x y"),
            ("/get?key=b/2", 200, ""),
            ("/get?key=d", 404, "\"d\""),
            ("/get?key=c&key=d&key=a", 200, r#"[["c","3"],["a","1"]]"#),
            ("/list", 200, r#"[["a","1"],["b/1","x y"],["b/2",""],["c","3"]]"#),
            ("/list?prefix=b/", 200, r#"[["b/1","x y"],["b/2",""]]"#),
            ("/list?start=b/2&end=c", 200, r#"[["b/2",""]]"#),
            ("/list?start_after=b/2", 200, r#"[["c","3"]]"#),
            ("/list?reverse&limit=2", 200, r#"[["c","3"],["b/2",""]]"#),
            ("/list?reverse=false&limit=1", 200, r#"[["a","1"]]"#),
            ("/list?limit=x", 400, "limit=\"x\""),
            ("/delete?key=a", 200, "1"),
            ("/delete?key=a", 200, "0"),
            ("/delete?key=a&key=b/1&key=b/2", 200, "2"),
            ("/sync", 200, "synced"),
            ("/delete-all", 200, "deleted"),
            ("/list", 200, "[]"),
        ];
        check_probe(&client, &rows).await;
        let rows =
            [("PUT", "/put?key=k", "a body", 200, "1"), ("GET", "/get?key=k", "", 200, "a body")];
        check(&client, "PROBE", &rows).await;
        let error = error_of(&client, "/list?limit=0").await;
        assert_eq!((error.kind, error.remote, error.reset), (Kind::Failed, true, false), "{error}");
    });
}

#[test]
fn a_transaction_that_fails_leaves_nothing_and_lets_nobody_in_while_it_is_open() {
    served(async |client| {
        let rows = [
            ("/put?key=a&value=1", 200, "1"),
            ("/log?n=alive", 200, "0"),
            ("/txn?key=a&value=2&key=b&value=2", 200, "2"),
            ("/list", 200, r#"[["a","2"],["b","2"]]"#),
        ];
        check_probe(&client, &rows).await;
        let error = error_of(&client, "/txn?key=a&value=3&key=c&value=3&fail=no%20more").await;
        assert_eq!((error.kind, error.message.as_str()), (Kind::Failed, "no more"));
        assert_eq!((error.remote, error.reset), (true, false));
        let stub = client.namespace("PROBE").get_by_name("tested");
        for (open, list) in [
            ("/txn?key=a&value=4&await_ms=20&fail=no", r#"[["a","2"],["b","2"]]"#),
            ("/txn?key=a&value=4&await_ms=20", r#"[["a","4"],["b","2"]]"#),
        ] {
            let first = stub.fetch(format!("http://do{open}"));
            let second = stub.fetch("http://do/list").await.unwrap();
            assert!(first.now_or_never().is_some(), "it ended before the list was made");
            assert_eq!(second.into_body().text().await.unwrap(), list, "{open}");
        }
        check_probe(&client, &[("/log", 200, "[\"alive\"]")]).await;
        for (path, count) in [("/txn?key=d&value=1&fail=no", None), ("/txn?key=d&value=1", Some(1))]
        {
            let body = json!({"sql": "CREATE TABLE t (a); INSERT INTO t VALUES (1)"}).to_string();
            let outcome = send(&client, PROBE, request("POST", path, &body)).await;
            assert_eq!(outcome.is_ok(), count.is_some(), "{path}");
            let found = "SELECT count(*) FROM sqlite_schema";
            let found = sql(&client, json!({"sql": found})).await;
            assert_eq!(found["rows"], json!([[count.unwrap_or(0)]]), "{path}");
            let value = send(&client, PROBE, request("GET", "/get?key=d", "")).await.unwrap();
            assert_eq!(value.status() == 200, count.is_some(), "{path}");
        }
    });
}

#[test]
fn nothing_enters_a_probe_that_blocks_and_one_that_fails_to_is_reset() {
    served(async |client| {
        let stub = client.namespace("PROBE").get_by_name("tested");
        let first = Box::pin(stub.fetch("http://do/block?ms=20"));
        let second = Box::pin(stub.fetch("http://do/log?n=a"));
        let Either::Left((blocked, second)) = select(first, second).await else {
            panic!("the log was told first");
        };
        assert_eq!(blocked.unwrap().into_body().text().await.unwrap(), "blocked 20 ms");
        second.await.unwrap();
        let error = error_of(&client, "/block?ms=1&fail").await;
        assert_eq!((error.remote, error.reset), (true, true), "{error}");
        assert!(error.message.contains("asked to fail"), "{error}");
        check_probe(&client, &[("/log", 200, "[]")]).await;
    });
}

#[test]
fn what_is_not_confirmed_is_answered_before_it_is_durable() {
    let store = Memory::held();
    served_by(Server::builder().store(Arc::new(store.clone())), async |client| {
        let rows = [("/put?key=a&value=1&unconfirmed", 200, "1"), ("/get?key=a", 200, "1")];
        check_probe(&client, &rows).await;
        for path in ["/sync", "/put?key=a&value=2"] {
            let mut waits = Box::pin(send(&client, PROBE, request("GET", path, "")));
            // An answer behind it, of another object, says that it had its chance.
            let other = send(&client, ("PROBE", "other"), request("GET", "/sleep?ms=5", ""));
            let Either::Right((other, _)) = select(&mut waits, Box::pin(other)).await else {
                panic!("{path} was answered before it was durable");
            };
            other.unwrap();
            store.commit(store.waiting());
            assert_eq!(waits.await.unwrap().status(), 200, "{path}");
        }
        store.commit(store.waiting());
    });
}

#[test]
fn a_probe_runs_sql_and_answers_in_json() {
    served(async |client| {
        let created =
            sql(&client, json!({"sql": "CREATE TABLE t (id INTEGER PRIMARY KEY, a, b)"})).await;
        assert_eq!((&created["columns"], &created["rows"]), (&json!([]), &json!([])));
        let insert = "INSERT INTO t (a, b) VALUES (?, ?)";
        let written = sql(&client, json!({"sql": insert, "bindings": ["x", 1.5]})).await;
        assert_eq!((&written["rows_written"], &written["rows"]), (&json!(1), &json!([])));
        let insert = "INSERT INTO t (a, b) VALUES (:a, :b)";
        let named = json!({":a": {"base64": "AP8="}, "b": null});
        sql(&client, json!({"sql": insert, "bindings": named})).await;
        let read = sql(&client, json!({"sql": "SELECT id, a, b FROM t"})).await;
        assert_eq!(read["columns"], json!(["id", "a", "b"]));
        assert_eq!(read["rows"], json!([[1, "x", 1.5], [2, {"hex": "00ff"}, null]]));
        assert_eq!((&read["rows_read"], &read["rows_written"]), (&json!(2), &json!(0)));
        let bytes = read["database_bytes"].as_u64().unwrap();
        assert!(bytes >= 4_096 && bytes % 4_096 == 0, "{bytes}");
        for (body, complaint) in [
            ("", "no statement"),
            ("{", "the body is not"),
            (r#"{"sql": "SELECT 1", "binding": []}"#, "`binding`"),
            (r#"{"sql": "SELECT ?", "bindings": 1}"#, "bindings 1"),
            (r#"{"sql": "SELECT ?", "bindings": [[]]}"#, "[]"),
        ] {
            check(&client, "PROBE", &[("POST", "/sql", body, 400, complaint)]).await;
        }
        for statement in ["SELEC 1", "BEGIN", "SELECT ?"] {
            let body = json!({"sql": statement}).to_string();
            let outcome = send(&client, PROBE, request("POST", "/sql", &body)).await;
            let error = outcome.map(drop).expect_err(statement);
            assert_eq!(
                (error.kind, error.remote, error.reset),
                (Kind::Failed, true, false),
                "{error}"
            );
        }
    });
}

#[test]
fn a_probe_goes_back_to_a_bookmark_and_undoes_it() {
    let history = Some(Duration::from_secs(3_600));
    served_by(Server::builder().history(history), async |client| {
        check_probe(&client, &[("/put?key=a&value=1", 200, "1")]).await;
        sql(&client, json!({"sql": "CREATE TABLE t (a); INSERT INTO t VALUES (1)"})).await;
        let rows_of =
            async || sql(&client, json!({"sql": "SELECT a FROM t"})).await["rows"].clone();
        let bookmark = text_of(&client, "/bookmark").await;
        sql(&client, json!({"sql": "INSERT INTO t VALUES (2)"})).await;
        let rows = [("/put?key=a&value=2", 200, "1"), ("/put?key=b&value=2", 200, "1")];
        check_probe(&client, &rows).await;
        let error = error_of(&client, &format!("/restore?to={bookmark}")).await;
        assert_eq!((error.remote, error.reset), (true, true), "{error}");
        let undo = error.message.rsplit(' ').next().unwrap().to_owned();
        check_probe(&client, &[("/list", 200, r#"[["a","1"]]"#)]).await;
        assert_eq!(rows_of().await, json!([[1]]));
        let stay = text_of(&client, &format!("/restore?to={undo}&stay")).await;
        check_probe(&client, &[("/list", 200, r#"[["a","1"]]"#)]).await;
        assert!(error_of(&client, "/abort").await.reset);
        check_probe(&client, &[("/list", 200, r#"[["a","2"],["b","2"]]"#)]).await;
        assert_eq!(rows_of().await, json!([[1], [2]]));
        error_of(&client, &format!("/restore?to={stay}")).await;
        check_probe(&client, &[("/list", 200, r#"[["a","1"]]"#)]).await;
        check_probe(&client, &[("/restore?to=x", 400, "\"x\" is no bookmark")]).await;
        let error = error_of(&client, "/bookmark?at_ms=1").await;
        assert!(error.message.contains("gone back to"), "{error}");
    });
    served(async |client| {
        let error = error_of(&client, "/bookmark").await;
        assert_eq!((error.remote, error.reset), (true, false), "{error}");
        assert!(error.message.contains("no history is kept"), "{error}");
        assert_eq!(json_of(&client, PROBE, "/list").await, json!([]));
    });
}

/// Writes in one turn by every call that writes.
struct Writer(State);

impl DurableObject for Writer {
    async fn new(state: State, _env: Env) -> Result<Self> {
        Ok(Self(state))
    }

    async fn fetch(&self, _request: Request) -> Result<Response> {
        let storage = self.0.storage();
        storage.put("a", &1)?;
        storage.put_many(&[("b", 1), ("c", 1)])?;
        storage.delete_many(&["b"])?;
        storage.transaction_sync(|| storage.put("d", &1))?;
        storage.sql().exec("CREATE TABLE t (a)", ())?;
        storage.set_alarm(u64::MAX)?;
        Ok(respond::text("written"))
    }
}

/// Transactions that wait for nothing used to hand over what was written before them.
#[test]
fn what_is_written_with_no_wait_between_is_one_batch() {
    let store = Memory::held();
    let builder = Server::builder().namespace::<Writer>("WRITER").store(Arc::new(store.clone()));
    served_by(builder, async |client| {
        let id = client.namespace("WRITER").new_unique_id().await.unwrap();
        let mut waits = Box::pin(client.namespace("WRITER").get(id).fetch("http://do/"));
        while store.waiting() == 0 {
            assert!((&mut waits).now_or_never().is_none(), "it was answered before it is durable");
            tokio::task::yield_now().await;
        }
        // An object without a name writes nothing: its answer says that there was time for another batch.
        let other = client.namespace("PROBE").new_unique_id().await.unwrap();
        let slept = client.namespace("PROBE").get(other).fetch("http://do/sleep?ms=5");
        slept.await.unwrap();
        assert_eq!(store.waiting(), 1);
        store.commit(1);
        assert_eq!(waits.await.unwrap().status(), 200);
        store.commit(store.waiting());
    });
}
