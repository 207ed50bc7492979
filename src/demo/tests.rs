//! Drives each class through a real server, as a client does.

mod alarms;
mod chat;
mod remembering;

use std::cell::RefCell;
use std::future::Future;
use std::num::NonZeroUsize;
use std::rc::Rc;

use serde_json::{Value, json};
use tokio::runtime::LocalRuntime;

use super::namespaces;
use crate::demo_capnp::{listener, probe};
use crate::error::Kind;
use crate::{Body, Client, IntoRequest, Request, Response, Result, Server, ServerBuilder};

/// Runs `test` with a connection to a server of the demonstration.
fn served<F: Future<Output = ()>>(test: impl FnOnce(Client) -> F) {
    served_by(Server::builder(), test);
}

/// Runs `test` with a connection to the server of `builder`, with the demonstration.
fn served_by<F: Future<Output = ()>>(builder: ServerBuilder, test: impl FnOnce(Client) -> F) {
    let runtime = LocalRuntime::new().unwrap();
    runtime.block_on(async {
        let threads = NonZeroUsize::new(2).unwrap();
        let builder = namespaces(builder).listen("127.0.0.1:0").unwrap();
        let server = builder.threads(threads).start().await.unwrap();
        let client = Client::connect(&server.addresses()[0].to_string()).await.unwrap();
        test(client).await;
        server.stop().await;
    });
}

fn request(method: &str, path: &str, body: &str) -> Request {
    let request = http::Request::builder().method(method).uri(format!("http://do{path}"));
    let request = request.header("content-type", "text/x-test").body(body.to_owned());
    request.unwrap().into_request().unwrap()
}

/// Sends to the object `name` of `namespace`.
async fn send(client: &Client, to: (&str, &str), request: Request) -> Result<Response> {
    client.namespace(to.0).get_by_name(to.1).fetch(request).await
}

async fn json_of(client: &Client, to: (&str, &str), path: &str) -> Value {
    let response = send(client, to, request("POST", path, "hi")).await.unwrap();
    serde_json::from_str(&response.into_body().text().await.unwrap()).unwrap()
}

/// Checks, in this order, what one object answers: method, path, body; status, text.
async fn check(client: &Client, namespace: &str, rows: &[(&str, &str, &str, u16, &str)]) {
    for (method, path, body, status, text) in rows {
        let row = format!("{namespace} {method} {path}");
        let answer = send(client, (namespace, "tested"), request(method, path, body)).await;
        let answer = answer.unwrap_or_else(|error| panic!("{row}: {error}"));
        assert_eq!(answer.status().as_u16(), *status, "{row}");
        assert_eq!(answer.headers().contains_key("allow"), *status == 405, "{row}");
        let told = answer.into_body().text().await.unwrap();
        let good = if *status < 400 { told == *text } else { told.contains(text) };
        assert!(good, "{row}: {told:?} and not {text:?}");
    }
}

#[test]
fn a_counter_counts_and_names_what_it_does_not_take() {
    served(async |client| {
        let rows = [
            ("GET", "/", "", 200, "0"),
            ("POST", "/", "", 200, "1"),
            ("POST", "/?by=41", "", 200, "42"),
            ("POST", "/?by=-2", "", 200, "40"),
            ("GET", "/?by=5", "", 200, "40"),
            ("POST", "/?by=ten", "", 400, "by=\"ten\""),
            ("POST", "/?by=9223372036854775807", "", 400, "by=9223372036854775807"),
            ("PUT", "/", "", 405, "PUT"),
            ("HEAD", "/", "", 200, ""),
        ];
        check(&client, "COUNTER", &rows).await;
    });
}

#[test]
fn a_kv_keeps_bytes_and_their_type() {
    served(async |client| {
        let long = format!("/{}", "k".repeat(2049));
        let rows = [
            ("GET", "/", "", 200, ""),
            ("PUT", "/b", "2", 204, ""),
            ("PUT", "/a%20c/d", "1", 204, ""),
            ("GET", "/", "", 200, "a%20c/d\nb\n"),
            ("GET", "/b", "", 200, "2"),
            ("PUT", "/b", "", 204, ""),
            ("GET", "/b", "", 200, ""),
            ("DELETE", "/b", "", 204, ""),
            ("DELETE", "/b", "", 404, "\"b\""),
            ("GET", "/b", "", 404, "\"b\""),
            ("PUT", "/", "", 405, "PUT"),
            ("POST", "/b", "", 405, "POST"),
            ("PUT", &long, "", 414, "2049"),
        ];
        check(&client, "KV", &rows).await;
        let to = ("KV", "tested");
        let stored = send(&client, to, request("GET", "/a%20c/d", "")).await.unwrap();
        assert_eq!(stored.headers()["content-type"], "text/x-test");
        let large = request("PUT", "/large", &"x".repeat((2 << 20) + 1));
        assert_eq!(send(&client, to, large).await.unwrap().status(), 413);
    });
}

#[test]
fn a_room_lists_its_last_messages_or_those_after_one() {
    served(async |client| {
        let (one, two, three) = (
            "{\"number\":1,\"from\":\"ann b\",\"text\":\"hi\"}\n",
            "{\"number\":2,\"text\":\"you\\n\"}\n",
            "{\"number\":3,\"text\":\"\"}\n",
        );
        let rows = [
            ("GET", "/", "", 200, ""),
            ("POST", "/?from=ann+b", "hi", 200, one),
            ("POST", "/", "you\n", 200, two),
            ("POST", "/", "", 200, three),
            ("GET", "/?limit=2", "", 200, &format!("{two}{three}")),
            ("GET", "/?after=1", "", 200, &format!("{two}{three}")),
            ("GET", "/?after=1&limit=1", "", 200, two),
            ("GET", "/?after=9", "", 200, ""),
            ("GET", "/?limit=x", "", 400, "limit=\"x\""),
            ("PUT", "/", "", 405, "PUT"),
            ("GET", "/other", "", 404, "/"),
        ];
        check(&client, "ROOM", &rows).await;
        for _ in 0..1_100 {
            send(&client, ("ROOM", "full"), request("POST", "/", "x")).await.unwrap();
        }
        let all = send(&client, ("ROOM", "full"), request("GET", "/?limit=9999", "")).await;
        let all = all.unwrap().into_body().text().await.unwrap();
        assert_eq!(all.lines().count(), 1_000);
        assert!(all.starts_with("{\"number\":101,"), "the oldest are forgotten");
    });
}

#[test]
fn a_probe_reflects() {
    served(async |client| {
        let rows = [
            ("GET", "/log?n=b", "", 200, "0"),
            ("GET", "/log?n=a%20b", "", 200, "1"),
            ("GET", "/yield?n=3", "", 200, "2"),
            ("GET", "/log", "", 200, "[\"b\",\"a b\",\"3\"]"),
            ("GET", "/sleep?ms=1", "", 200, "slept 1 ms"),
            ("GET", "/sleep?ms=x", "", 400, "ms=\"x\""),
            ("GET", "/gone?ms=1", "", 200, "still there"),
            ("GET", "/status?code=503", "", 503, "503"),
            ("GET", "/status?code=99", "", 400, "99"),
            ("GET", "/headers?set=x", "", 400, "\"x\""),
            ("GET", "/yield", "", 400, "?n="),
            ("GET", "/call?namespace=X&name=y", "", 400, "?url="),
            ("GET", "/nothing", "", 404, "/echo"),
        ];
        check(&client, "PROBE", &rows).await;
        let to = ("PROBE", "tested");
        let echo = json_of(&client, to, "/echo?a=1#top").await;
        assert_eq!(
            echo,
            json!({"method": "POST", "url": "http://do/echo?a=1", "body": "hi", "body_encoding": "text",
                   "headers": [["content-type", "text/x-test"]]})
        );
        let bytes = request("POST", "/echo", "").map(|_| Body::from_bytes(&b"\xff\x01"[..]));
        let echo = send(&client, to, bytes).await.unwrap().into_body().text().await.unwrap();
        assert!(echo.contains(r#""body":"ff01","body_encoding":"hex""#), "{echo}");
        let who = json_of(&client, to, "/whoami").await;
        assert_eq!((&who["name"], &who["namespace"]), (&json!("tested"), &json!("PROBE")));
        assert_eq!(who["id"].as_str().map(str::len), Some(64));
        let path = "/headers?set=x-a:1&set=x-a:%202";
        let answer = send(&client, to, request("GET", path, "")).await.unwrap();
        assert_eq!(answer.headers().get_all("x-a").iter().collect::<Vec<_>>(), ["1", "2"]);
    });
}

#[test]
fn a_probe_fails_as_it_is_asked_to_and_passes_on_the_failures_of_others() {
    served(async |client| {
        let call =
            |path: &str| format!("/call?namespace=PROBE&name=other&method=PUT&url=http://do{path}");
        let echoed = json_of(&client, ("PROBE", "p"), &call("/echo")).await;
        assert_eq!((&echoed["method"], &echoed["body"]), (&json!("PUT"), &json!("hi")));
        for (name, path, message, reset) in [
            ("a", "/throw?message=boom", "boom", false),
            ("b", "/panic?message=boom", "the object panicked: boom", true),
            ("c", &call("/throw?message=far"), "far", false),
            ("bad-constructor", "/log", "the constructor of \"bad-constructor\" fails", true),
            ("panic-constructor", "/log", "the object panicked: in the constructor", true),
            ("slow-constructor-x", "/log", "\"slow-constructor-x\" does not say how many ms", true),
        ] {
            let outcome = send(&client, ("PROBE", name), request("GET", path, "")).await;
            let error = outcome.map(drop).expect_err(path);
            assert_eq!((error.kind, error.message.as_str()), (Kind::Failed, message));
            assert_eq!((error.remote, error.reset), (true, reset), "{path}");
        }
        let missing = "/call?namespace=NONE&name=x&url=http://do/";
        let outcome = send(&client, ("PROBE", "d"), request("GET", missing, "")).await;
        let error = outcome.map(drop).expect_err(missing);
        assert_eq!((error.kind, error.remote), (Kind::NoSuchNamespace, true));
        let to = ("PROBE", "slow-constructor-5-x");
        assert_eq!(json_of(&client, to, "/log").await, json!([]));
    });
}

#[test]
fn a_probe_streams_both_ways_what_it_says_it_does() {
    served(async |client| {
        let to = ("PROBE", "p");
        let path = "/stream?bytes=3000000&chunk=70000";
        let answer = send(&client, to, request("GET", path, "")).await.unwrap();
        assert_eq!(answer.body().length(), Some(3_000_000));
        let streamed = answer.into_body().bytes().await.unwrap();
        assert!(streamed.iter().enumerate().all(|(i, byte)| usize::from(*byte) == i % 251));
        assert_eq!(streamed.len(), 3_000_000);
        let digest = "4d3870d4655ed773027a713ea136507d22e076248e0e9cc920a996039653b76f";
        let upload =
            |path: &str| request("POST", path, "").map(|_| Body::from_bytes(streamed.clone()));
        let whole = send(&client, to, upload("/upload?delay_ms=1")).await.unwrap();
        let whole = whole.into_body().text().await.unwrap();
        let part = send(&client, to, upload("/upload?stop_after=3")).await.unwrap();
        let part: Value = serde_json::from_str(&part.into_body().text().await.unwrap()).unwrap();
        assert_eq!(whole, format!("{{\"bytes\":3000000,\"sha256\":\"{digest}\"}}"));
        let of_0_1_2 = "ae4b3280e56e2faf83f414a6e3dabe9d5fbe18976544c05fed121accb85b53fc";
        assert_eq!(part, json!({"bytes": 3, "sha256": of_0_1_2}));
        for path in ["/stream?chunk=0", "/stream?bytes=-1", "/upload?stop_after=x"] {
            let answer = send(&client, to, request("GET", path, "")).await.unwrap();
            assert_eq!(answer.status(), 400, "{path}");
        }
    });
}

/// Remembers what it heard.
struct Ear(RefCell<Vec<u64>>);

impl listener::Server for Ear {
    async fn heard(
        self: Rc<Self>,
        params: listener::HeardParams,
        _results: listener::HeardResults,
    ) -> capnp::Result<()> {
        self.0.borrow_mut().push(params.get()?.get_n());
        Ok(())
    }
}

#[test]
fn a_probe_serves_its_typed_interface_and_fetch_in_one_log() {
    served(async |client| {
        let stub = client.namespace("PROBE").get_by_name("typed");
        let typed: probe::Client = stub.cast();
        let first = stub.fetch("http://do/log?n=fetched");
        let mut call = typed.log_request();
        call.get().set_n(7);
        assert_eq!(call.send().promise.await.unwrap().get().unwrap().get_position(), 1);
        first.await.unwrap();
        let mut note = typed.note_request();
        note.get().set_n(8);
        note.send().await.unwrap();
        let ear = Rc::new(Ear(RefCell::default()));
        let mut call = typed.notify_request();
        call.get().set_listener(capnp_rpc::new_client_from_rc(ear.clone()));
        call.get().set_count(2_000);
        call.send().promise.await.unwrap();
        assert_eq!(*ear.0.borrow(), (0..2_000).collect::<Vec<u64>>());
        let mut call = typed.echo_request();
        call.get().set_listener(capnp_rpc::new_client_from_rc(ear.clone()));
        let echoed = call.send().promise.await.unwrap().get().unwrap().get_listener().unwrap();
        let mut call = echoed.heard_request();
        call.get().set_n(9);
        call.send().promise.await.unwrap();
        assert_eq!(ear.0.borrow().last(), Some(&9));
        let mut call = typed.fail_request();
        call.get().set_message("no");
        let failure = call.send().promise.await.map(drop).unwrap_err();
        assert!(failure.extra.ends_with("no"), "{failure}");
        let log = stub.fetch("http://do/log").await.unwrap().into_body().text().await.unwrap();
        assert_eq!(log, r#"["fetched","7","8"]"#);
    });
}
