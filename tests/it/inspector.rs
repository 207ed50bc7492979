//! The inspector: what it answers, to whom, and within which bounds.

use serde_json::{Value, json};
use stubborn::gateway::GatewaySettings;
use stubborn::id::NamespaceKey;
use stubborn::{Body, DurableObject, Env, Limits, Request, Response, Result, State, respond};
use tokio::sync::Notify;

use crate::support::http::{Answer, Http, get, start, start_with, started};
use crate::support::run;

const API: &str = "/_stubborn/api/";

async fn ask(address: &str, asked: &str) -> Value {
    let answer = get(address, &format!("{API}{asked}"), &[]).await;
    assert_eq!(answer.status(), 200, "{asked}: {}", answer.text);
    answer.json()
}

async fn post(address: &str, kind: Option<&str>, body: String) -> Answer {
    let length = body.len();
    let kind = kind.map_or(String::new(), |kind| format!("Content-Type: {kind}\r\n"));
    let head = format!(
        "POST {API}sql HTTP/1.1\r\nHost: localhost\r\n{kind}Content-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    let heard = crate::support::http::exchange(address, head + &body).await;
    let (head, text) = heard.split_once("\r\n\r\n").unwrap();
    let code: u16 = head.split(' ').nth(1).unwrap().parse().unwrap();
    let response = http::Response::builder().status(code).body(()).unwrap();
    Answer { head: response.into_parts().0, text: text.to_owned() }
}

async fn sql(address: &str, id: &str, text: &str) -> Answer {
    let body = json!({ "namespace": "PROBE", "id": id, "sql": text });
    post(address, Some("application/json"), body.to_string()).await
}

fn of<'a>(live: &'a Value, namespace: &str) -> &'a Value {
    let all = live["namespaces"].as_array().unwrap();
    all.iter().find(|one| one["name"] == namespace).unwrap()
}

fn id_of(namespace: &str, name: &str) -> String {
    NamespaceKey::new(namespace).id_from_name(name).to_string()
}

#[test]
fn the_page_is_for_who_may_list_or_has_a_token_and_data_for_nobody_else() {
    run(async {
        let settings = GatewaySettings::default;
        let (_local_server, local) = started().await;
        let (_bearer_server, bearer) = start(Limits::default(), settings().api_token("one")).await;
        let (_none_server, none) = start(Limits::default(), settings().inspector(false)).await;
        let (page, data) = ("/_stubborn/", "/_stubborn/api/namespaces");
        let token: &[_] = &[("authorization", "Bearer one")];
        let (foreign, wrong): (&[_], &[_]) =
            (&[("host", "evil.example")], &[("authorization", "Bearer two")]);
        let same: &[_] = &[("sec-fetch-site", "same-origin")];
        let cross: &[_] = &[("sec-fetch-site", "cross-site")];
        let near: &[_] = &[("sec-fetch-site", "same-site")];
        for (address, path, headers, code) in [
            (&local, page, &[][..], 200),
            (&local, data, &[], 200),
            (&local, data, same, 200),
            (&local, data, cross, 403),
            (&local, data, near, 403),
            (&local, page, cross, 200),
            (&local, page, foreign, 403),
            (&local, data, foreign, 403),
            (&local, "/_stubborn", &[], 307),
            (&local, "/_stubborn/other", &[], 404),
            (&local, "/_stubborn/api/other", &[], 404),
            (&local, "/_stubbornly/x", &[], 404),
            (&bearer, page, &[], 200),
            (&bearer, page, foreign, 200),
            (&bearer, data, &[], 401),
            (&bearer, data, wrong, 401),
            (&bearer, data, token, 200),
            (&none, page, &[], 404),
            (&none, data, &[], 404),
            (&none, "/_stubborn", &[], 404),
        ] {
            let answer = get(address, path, headers).await;
            assert_eq!(answer.status(), code, "{path} {headers:?}: {}", answer.text);
            assert_eq!(answer.text.contains("COUNTER"), code == 200 && path == data);
            assert_eq!(
                answer.header("cache-control") == Some("no-store"),
                path.starts_with("/_stubborn") && !path.starts_with("/_stubbornly")
            );
            let policy = answer.header("content-security-policy").is_some();
            assert_eq!(policy, path == page && code == 200);
        }
        let mut http = Http::one(&bearer).await;
        for (method, path) in [("POST", page), ("PUT", data), ("GET", "/_stubborn/api/sql")] {
            let refused = http.ask(method, path).await.status();
            assert_eq!(refused, if path == page { 405 } else { 401 }, "{method} {path}");
        }
    });
}

#[test]
fn namespaces_objects_and_their_data_are_there_as_people_read_them() {
    run(async {
        let (_server, address) = started().await;
        let mut http = Http::one(&address).await;
        let hostile = "</script><img src=x>\u{202e}\u{0}\"";
        let bytes = Body::from(hostile.as_bytes().to_vec());
        http.ask_with("PUT", "/KV/hostile/%3Cb%3E", bytes).await;
        http.ask_with("PUT", "/PROBE/p/put?key=%3Cb%3E", Body::from(hostile)).await;
        http.ask("POST", "/PROBE/p/alarm?in_ms=3600000").await;
        let all = ask(&address, "namespaces").await;
        let probe = of(&all, "PROBE");
        assert!(probe["class"].as_str().unwrap().ends_with("::Probe") && probe["exposed"] == true);
        assert_eq!(of(&all, "HIDDEN")["exposed"], false);
        let (id, kv) = (id_of("PROBE", "p"), id_of("KV", "hostile"));
        let object = ask(&address, &format!("object?namespace=PROBE&id={id}")).await;
        assert_eq!((&object["name"], &object["in_memory"]), (&"p".into(), &true.into()));
        assert_eq!((&object["keys"], &object["counted_all"]), (&2.into(), &true.into()));
        assert!(object["alarm"]["due_ms"].as_u64() > Some(1_600_000_000_000), "{object}");
        let values = ask(&address, &format!("values?namespace=PROBE&id={id}&prefix=%3C")).await;
        let entry = &values["values"][0];
        assert_eq!((entry["key"].as_str(), values["cursor"].as_str()), (Some("<b>"), None));
        let value: String = serde_json::from_str(entry["value"].as_str().unwrap()).unwrap();
        assert_eq!(value, hostile);
        let values = ask(&address, &format!("values?namespace=KV&id={kv}")).await;
        let shown = values["values"][0]["value"].as_str().unwrap();
        assert_eq!(shown, format!("bytes\"{}\"", hostile.as_bytes().escape_ascii()));
        for (asked, code) in [
            ("object?namespace=NOWHERE&id=0".to_owned(), 404),
            (format!("object?namespace=PROBE&id={kv}"), 404),
            ("object?namespace=PROBE&id=xyz".to_owned(), 400),
            (format!("values?namespace=PROBE&id={id}&cursor=xyz"), 400),
            (format!("values?namespace=PROBE&id={id}&limit=201"), 400),
            ("objects?namespace=PROBE&limit=1001".to_owned(), 400),
            ("objects?namespace=PROBE&cursor=xyz".to_owned(), 400),
            ("events?limit=0".to_owned(), 400),
        ] {
            let answer = get(&address, &format!("{API}{asked}"), &[]).await;
            assert_eq!(answer.status(), code, "{asked}: {}", answer.text);
        }
    });
}

#[test]
fn objects_are_found_and_paged_and_looking_brings_none_into_memory() {
    run(async {
        let (_server, address) = started().await;
        let mut http = Http::one(&address).await;
        for n in 0..25 {
            http.ask("POST", &format!("/COUNTER/object-{n}")).await;
        }
        for n in 0..60 {
            http.ask_with("PUT", &format!("/PROBE/p/put?key=k{n:02}"), Body::from("v")).await;
        }
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        loop {
            let asked = format!("objects?namespace=COUNTER&limit=10&cursor={cursor}");
            let page = ask(&address, &asked).await;
            let objects = page["objects"].as_array().unwrap();
            assert!(objects.iter().all(|one| one["in_memory"] == true));
            seen.extend(objects.iter().map(|one| one["name"].to_string()));
            let Some(next) = page["cursor"].as_str() else { break };
            cursor = next.to_owned();
        }
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 25);
        let id = id_of("COUNTER", "object-7");
        for wanted in ["object-7", &id, &id.to_uppercase()] {
            let found = ask(&address, &format!("objects?namespace=COUNTER&find={wanted}")).await;
            assert_eq!(found["objects"][0]["name"], "object-7", "{wanted}");
            assert_eq!(found["objects"].as_array().unwrap().len(), 1);
        }
        let unused = id_of("COUNTER", "unused");
        for asked in [
            "objects?namespace=COUNTER&find=unused",
            &format!("objects?namespace=COUNTER&find={unused}"),
        ] {
            assert_eq!(ask(&address, asked).await["objects"], json!([]));
        }
        let object = ask(&address, &format!("object?namespace=COUNTER&id={unused}")).await;
        assert_eq!((&object["in_memory"], &object["is_recorded"]), (&false.into(), &false.into()));
        assert_eq!(of(&ask(&address, "live").await, "COUNTER")["in_memory"], 25);
        let id = id_of("PROBE", "p");
        let (mut keys, mut cursor) = (Vec::new(), String::new());
        loop {
            let asked = format!("values?namespace=PROBE&id={id}&prefix=k&limit=25&cursor={cursor}");
            let page = ask(&address, &asked).await;
            keys.extend(
                page["values"].as_array().unwrap().iter().map(|one| one["key"].to_string()),
            );
            let Some(next) = page["cursor"].as_str() else { break };
            cursor = next.to_owned();
        }
        assert_eq!(keys, (0..60).map(|n| format!("\"k{n:02}\"")).collect::<Vec<_>>());
    });
}

#[test]
fn statements_read_the_objects_database_and_what_they_change_is_dropped() {
    run(async {
        let (_server, address) = started().await;
        let mut http = Http::one(&address).await;
        let made = json!({ "sql": "CREATE TABLE t (k INTEGER, v); INSERT INTO t VALUES (9007199254740993, 'a'), (2, x'00ff'), (3, NULL)" });
        let made = http.ask_with("POST", "/PROBE/p/sql", Body::from(made.to_string())).await;
        assert_eq!(made.status(), 200, "{}", made.text);
        let id = id_of("PROBE", "p");
        let object = ask(&address, &format!("object?namespace=PROBE&id={id}")).await;
        assert_eq!(
            (&object["tables"][0]["name"], &object["tables_error"]),
            (&"t".into(), &Value::Null)
        );
        let rows = sql(&address, &id, "SELECT k, v FROM t").await.json();
        assert_eq!(rows["columns"], json!(["k", "v"]));
        assert_eq!(
            rows["rows"][0][0],
            json!({ "type": "integer", "text": "9007199254740993", "cut": false })
        );
        assert_eq!(rows["rows"][1][1]["text"], r#"bytes"\x00\xff""#);
        assert_eq!((&rows["rows"][2][1], &rows["more"]), (&Value::Null, &false.into()));
        let tried = sql(&address, &id, "DELETE FROM t; SELECT count(*) FROM t").await.json();
        assert_eq!(tried["rows"][0][0]["text"], "0");
        let again = sql(&address, &id, "SELECT count(*) FROM t").await.json();
        assert_eq!(again["rows"][0][0]["text"], "3", "what was changed is dropped");
        let many =
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n";
        let many = sql(&address, &id, many).await.json();
        assert_eq!((many["rows"].as_array().unwrap().len(), &many["more"]), (200, &true.into()));
        for (statement, told) in [
            ("DELETE FROM t", "the inspector only reads"),
            ("SELEC", "SELEC"),
            ("SELECT * FROM nowhere", "nowhere"),
            ("ATTACH 'x' AS y", "ATTACH"),
            ("", "no statement"),
            (
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n",
                "",
            ),
            (
                "CREATE TABLE big AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT zeroblob(1000000) FROM n; SELECT 1",
                "",
            ),
        ] {
            let answer = sql(&address, &id, statement).await;
            assert_eq!(answer.status(), 400, "{statement}: {}", answer.text);
            assert!(answer.text.contains(told), "{statement}: {}", answer.text);
        }
        let body = json!({ "namespace": "PROBE", "id": id, "sql": "SELECT 1" }).to_string();
        for (kind, body, code) in [
            (Some("application/json"), body.clone(), 200),
            (None, body.clone(), 400),
            (Some("text/plain"), body, 400),
            (Some("application/json"), "{}".to_owned(), 400),
            (Some("application/json"), " ".repeat((64 << 10) + 1), 400),
        ] {
            let answer = post(&address, kind, body).await;
            assert_eq!(answer.status(), code, "{kind:?}: {:.300}", answer.text);
        }
        let fresh = sql(&address, &id_of("PROBE", "fresh"), "SELECT 1").await;
        assert_eq!(fresh.json()["rows"][0][0]["text"], "1");
        let live = ask(&address, "live").await;
        assert_eq!(of(&live, "PROBE")["in_memory"], 1, "looking brought nothing into memory");
    });
}

#[test]
fn what_happens_is_counted_and_what_goes_wrong_is_remembered_within_bounds() {
    run(async {
        let (_server, address) = started().await;
        let mut http = Http::one(&address).await;
        for _ in 0..5 {
            http.ask("GET", "/PROBE/p/whoami").await;
        }
        http.ask("GET", "/PROBE/p/sleep?ms=50").await;
        let long = "x".repeat(2_000);
        http.ask("GET", &format!("/PROBE/p/throw?message=%3Cb%3E{long}")).await;
        http.ask("GET", "/PROBE/q/panic?message=boom").await;
        http.ask("GET", "/KV/k/none").await;
        let live = ask(&address, "live").await;
        let probe = of(&live, "PROBE");
        let counts = ["fetches", "typed", "alarms", "errors", "resets", "in_memory"];
        assert_eq!(counts.map(|name| probe[name].as_u64().unwrap()), [8, 0, 0, 2, 1, 1]);
        let latencies = probe["latencies"].as_array().unwrap();
        let sum: u64 = latencies.iter().map(|count| count.as_u64().unwrap()).sum();
        assert_eq!(sum, 8);
        let bounds = ask(&address, "namespaces").await["bounds_us"].as_array().unwrap().clone();
        let slow = latencies.iter().zip(&bounds).filter(|(_, bound)| bound.as_u64() > Some(50_000));
        assert!(slow.map(|(count, _)| count.as_u64().unwrap()).sum::<u64>() >= 1);
        assert_eq!(of(&live, "KV")["fetches"], 1);
        let events = ask(&address, "events").await;
        let told: Vec<_> = events["events"].as_array().unwrap().iter().collect();
        assert_eq!(told.len(), 2, "{events}");
        let of_kind = |kind: &str| told.iter().find(|one| one["kind"] == kind).unwrap();
        let (failed, reset) = (of_kind("fetch"), of_kind("reset"));
        let message = failed["message"].as_str().unwrap();
        assert!(message.starts_with("<b>xxx") && message.len() == 512, "{message}");
        assert_eq!((&failed["name"], &failed["id"]), (&"p".into(), &id_of("PROBE", "p").into()));
        assert_eq!((&reset["name"], &reset["namespace"]), (&"q".into(), &"PROBE".into()));
        assert!(reset["message"].as_str().unwrap().contains("boom"));
        for (asked, count) in [
            ("events?namespace=KV".to_owned(), 0),
            ("events?namespace=PROBE".to_owned(), 2),
            ("events?limit=1".to_owned(), 1),
            (format!("events?namespace=PROBE&id={}", id_of("PROBE", "q")), 1),
        ] {
            let told = ask(&address, &asked).await;
            assert_eq!(told["events"].as_array().unwrap().len(), count, "{asked}");
        }
        for n in 0..300 {
            http.ask("GET", &format!("/PROBE/p/throw?message=number-{n}")).await;
        }
        let asked = format!("events?namespace=PROBE&limit=1000&id={}", id_of("PROBE", "p"));
        let told = ask(&address, &asked).await;
        let told = told["events"].as_array().unwrap();
        assert!(told.len() <= 256 && told[0]["message"] == "number-299", "{}", told.len());
        http.ask("POST", "/PROBE/p/alarm?in_ms=0&fail=1").await;
        let failed = async { while of(&ask(&address, "live").await, "PROBE")["alarms"] == 0 {} };
        tokio::time::timeout(crate::support::http::PATIENCE, failed).await.unwrap();
        let told = ask(&address, "events?limit=1").await;
        assert_eq!(told["events"][0]["kind"], "alarm", "{told}");
    });
}

async fn change(address: &str, id: &str, text: &str) -> Answer {
    change_in("PROBE", address, id, text).await
}

async fn change_in(namespace: &str, address: &str, id: &str, text: &str) -> Answer {
    let body = json!({ "namespace": namespace, "id": id, "sql": text, "change": true });
    post(address, Some("application/json"), body.to_string()).await
}

#[test]
fn a_statement_changes_what_is_stored_only_where_that_is_configured() {
    run(async {
        let (_closed_server, closed) = started().await;
        let settings = GatewaySettings::default().inspector_writes(true);
        let (_open_server, open) = start(Limits::default(), settings).await;
        let id = id_of("PROBE", "changed");
        for (address, writes) in [(&closed, false), (&open, true)] {
            assert_eq!(ask(address, "namespaces").await["writes"], writes);
            let mut http = Http::one(address).await;
            let make = json!({ "sql": "CREATE TABLE t (x)" }).to_string();
            http.ask_with("POST", "/PROBE/changed/sql", make.into()).await;
            let answer = change(address, &id, "INSERT INTO t VALUES (77) RETURNING x").await;
            assert_eq!(answer.status(), if writes { 200 } else { 403 }, "{}", answer.text);
            if writes {
                assert_eq!(answer.json()["rows"][0][0]["text"], "77");
            }
            // Of statements of which one fails, none has happened.
            let failed =
                change(address, &id, "INSERT INTO t VALUES (55); SELECT * FROM none").await;
            assert_eq!(failed.status(), if writes { 400 } else { 403 }, "{}", failed.text);
            let select = json!({ "sql": "SELECT x FROM t" }).to_string();
            let seen = http.ask_with("POST", "/PROBE/changed/sql", select.into()).await.text;
            assert_eq!(seen.contains("77"), writes, "{seen}");
            assert!(!seen.contains("55"), "{seen}");
            let stored = sql(address, &id, "SELECT x FROM t").await.json();
            assert_eq!(stored["rows"].as_array().unwrap().len(), usize::from(writes), "durable");
        }
        let absent = change(&open, &id_of("PROBE", "absent"), "CREATE TABLE t (x)").await;
        assert!(absent.status() == 400 && absent.text.contains("not in memory"), "{}", absent.text);
    });
}

static SHUT: Notify = Notify::const_new();
static OPEN: Notify = Notify::const_new();

/// Reads a number, lets nobody in for as long as the test wants, and stores one more.
struct Shut(State);

impl DurableObject for Shut {
    async fn new(state: State, _env: Env) -> Result<Self> {
        state.storage().sql().exec("CREATE TABLE IF NOT EXISTS t (x)", ())?;
        Ok(Self(state))
    }

    async fn fetch(&self, _request: Request) -> Result<Response> {
        let sql = self.0.storage().sql();
        let count = || sql.exec("SELECT x FROM t", ()).map(Iterator::count);
        let section = async {
            let before = count()?;
            SHUT.notify_one();
            OPEN.notified().await;
            Ok(before == count()?)
        };
        let is_alone = self.0.block_concurrency_while(section).await;
        Ok(respond::text(is_alone.to_string()))
    }
}

#[test]
fn a_statement_waits_for_a_critical_section_of_its_object() {
    run(async {
        let settings = GatewaySettings::default().inspector_writes(true);
        let shut = |builder: stubborn::ServerBuilder| {
            builder.gateway(settings).namespace::<Shut>("SHUT").expose("SHUT")
        };
        let (_server, address) = start_with(shut).await;
        let id = id_of("SHUT", "door");
        let mut http = Http::one(&address).await;
        let inside = http.ask("GET", "/SHUT/door/");
        let changing = async {
            SHUT.notified().await;
            let changed = change_in("SHUT", &address, &id, "INSERT INTO t VALUES (1)");
            let open = async {
                // Asked behind it on the thread of the object: by then it would have happened.
                for _ in 0..3 {
                    ask(&address, &format!("object?namespace=SHUT&id={id}")).await;
                }
                OPEN.notify_one();
            };
            tokio::join!(changed, open).0
        };
        let (inside, changed) = tokio::join!(inside, changing);
        assert_eq!(inside.text, "true", "nothing came in between");
        assert_eq!(changed.status(), 200, "{}", changed.text);
    });
}

#[test]
fn the_last_events_are_told_whether_or_not_they_failed() {
    run(async {
        let (_server, address) = started().await;
        let mut http = Http::one(&address).await;
        for path in ["/PROBE/told/whoami", "/PROBE/told/throw", "/PROBE/other/whoami"] {
            http.ask("GET", path).await;
        }
        let id = id_of("PROBE", "told");
        let told = ask(&address, &format!("events?namespace=PROBE&id={id}")).await;
        let recent = told["recent"].as_array().unwrap();
        let seen: Vec<_> = recent.iter().map(|one| (&one["kind"], &one["failed"])).collect();
        assert_eq!(seen, [(&"fetch".into(), &true.into()), (&"fetch".into(), &false.into())]);
        assert!(
            recent.iter().all(|one| one["name"] == "told" && one["took_us"].is_u64()),
            "{told}"
        );
        let all = ask(&address, "events").await;
        assert_eq!(all["recent"].as_array().unwrap().len(), 3);
    });
}

#[test]
fn the_web_sockets_of_an_object_are_told_and_it_stays_asleep() {
    run(async {
        let limits =
            Limits { hibernate_after: std::time::Duration::from_millis(20), ..Limits::default() };
        let (_server, address) = start(limits, GatewaySettings::default()).await;
        let mut wires = Vec::new();
        for _ in 0..3 {
            let mut wire = crate::support::http::Wire::open(&address).await;
            wire.say(
                "GET /ROOM/seen/?from=ann HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            )
            .await;
            wire.hear_until("\r\n\r\n").await;
            wires.push(wire);
        }
        let path = format!("object?namespace=ROOM&id={}", id_of("ROOM", "seen"));
        loop {
            let object = ask(&address, &path).await;
            let sockets = object["sockets"].as_array().unwrap();
            assert_eq!((&object["sockets_count"], sockets.len()), (&3.into(), 3));
            assert!(
                sockets.iter().all(|one| one["attachment_bytes"].as_u64() > Some(0)),
                "{object}"
            );
            if object["in_memory"] == false {
                break;
            }
        }
        assert_eq!(ask(&address, &path).await["in_memory"], false);
    });
}
