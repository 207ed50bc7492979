//! Objects over HTTP: where a url leads, what an object and its client see of each other, bodies, errors.

use bytes::Bytes;
use futures::future::join_all;
use http_body_util::BodyExt;
use stubborn::gateway::{GatewaySettings, HostRoute};
use stubborn::id::NamespaceKey;
use stubborn::{Body, Limits};

use crate::support::http::{Http, Wire, exchange, get, logged, start, start_with, started, status};
use crate::support::run;

const MIB: usize = 1 << 20;

#[test]
fn a_path_leads_to_an_object_by_name_or_id() {
    run(async {
        let (_server, address) = started().await;
        let mut http = Http::one(&address).await;
        let id = NamespaceKey::new("COUNTER").id_from_name("a/ü");
        for (path, sum) in [
            ("/COUNTER/a%2F%C3%BC".to_owned(), "1"),
            ("/COUNTER/a%2f%c3%bc/".to_owned(), "2"),
            ("/COUNTER/a%2F%C3%BC/any/path?by=3".to_owned(), "5"),
            (format!("/COUNTER/id:{id}"), "6"),
            (format!("/COUNTER/id:{}/x", id.to_string().to_uppercase()), "7"),
            ("/C%4FUNTER/a%2F%C3%BC".to_owned(), "8"),
            ("/COUNTER/id%3Aname".to_owned(), "1"),
        ] {
            let answer = http.ask("POST", &path).await;
            assert_eq!((answer.status(), answer.text.as_str()), (200, sum), "{path}");
        }
        let foreign = NamespaceKey::new("KV").id_from_name("a");
        for (path, code, told) in [
            (format!("/COUNTER/id:{foreign}/"), 404, "not of namespace COUNTER"),
            ("/COUNTER/id:xyz/".to_owned(), 400, "xyz"),
            ("/COUNTER/%ff/".to_owned(), 400, "UTF-8"),
            ("/COUNTER/%zz/".to_owned(), 400, "percent"),
            ("/COUNTER".to_owned(), 400, "/NAMESPACE/NAME"),
            ("/COUNTER/".to_owned(), 400, "/NAMESPACE/NAME"),
            (format!("/COUNTER/{}/", "n".repeat(16_000)), 200, "0"),
        ] {
            let answer = http.ask("GET", &path).await;
            assert_eq!(answer.status(), code, "{path:.99}: {}", answer.text);
            assert!(answer.text.contains(told), "{path:.99}: {}", answer.text);
        }
        assert!(http.ask("GET", "/").await.text.starts_with("stubborn "));
    });
}

#[test]
fn a_namespace_that_is_not_exposed_looks_like_one_that_does_not_exist() {
    run(async {
        let (_server, address) = started().await;
        let mut http = Http::two(&address).await;
        let nothing = http.ask("GET", "/NOWHERE/a/").await;
        assert_eq!(nothing.status(), 404);
        assert!(!nothing.text.contains("COUNTER"));
        for path in ["/HIDDEN/a/", "/HIDDEN", "/counter/a/", "/_stubborn/x", "//a", "/x"] {
            let answer = http.ask("GET", path).await;
            assert_eq!((answer.status(), &answer.text), (404, &nothing.text), "{path}");
        }
    });
}

#[test]
fn a_host_leads_to_its_object_and_to_nothing_else() {
    run(async {
        let route = |host: &str, namespace| host.parse::<HostRoute>().unwrap().to(namespace);
        let settings = GatewaySettings::default()
            .route(route("*.probe.example", "PROBE"))
            .route(route("one.example", "HIDDEN").named("one"));
        let (_server, address) = start(Limits::default(), settings).await;
        let whoami = |host: &'static str| {
            let address = address.clone();
            async move { get(&address, "/whoami", &[("host", host)]).await }
        };
        for (host, name) in [("ann.probe.example", "ann"), ("BOB.probe.example:80", "bob")] {
            assert_eq!(whoami(host).await.json()["name"], name, "{host}");
        }
        assert_eq!(whoami("probe.example").await.status(), 403, "it is not this machine");
        assert_eq!(whoami("a.b.probe.example").await.status(), 403);
        // What leads elsewhere on other hosts is the object's here.
        for path in ["/client/v4/accounts/a/x", "/COUNTER/a/", "/"] {
            let answer = get(&address, path, &[("host", "one.example")]).await;
            assert_eq!((answer.status(), answer.text.as_str()), (404, "nothing"), "{path}");
        }
    });
}

#[test]
fn an_object_sees_its_own_url_and_what_is_true_of_its_client() {
    run(async {
        let trusting = GatewaySettings::default().trust("127.0.0.0/8".parse().unwrap());
        let (_distrusting_server, distrusting) = started().await;
        let (_trusting_server, trusting) = start(Limits::default(), trusting).await;
        let sent = [
            ("host", "localhost:81"),
            ("connection", "x-private"),
            ("x-private", "1"),
            ("te", "trailers"),
            ("x-forwarded-for", "9.9.9.9"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "front.example"),
            ("x-kept", "a"),
            ("x-kept", "b"),
        ];
        for (address, url, told) in [
            (
                &distrusting,
                "http://localhost:81/echo?q=%20",
                r#"[["host","localhost:81"],["x-kept","a"],["x-kept","b"],["x-forwarded-for","127.0.0.1"],["x-forwarded-host","localhost:81"],["x-forwarded-proto","http"]]"#,
            ),
            (
                &trusting,
                "https://localhost:81/echo?q=%20",
                r#"[["host","localhost:81"],["x-forwarded-for","9.9.9.9, 127.0.0.1"],["x-forwarded-proto","https"],["x-forwarded-host","front.example"],["x-kept","a"],["x-kept","b"]]"#,
            ),
        ] {
            let seen = get(address, "/PROBE/p/echo?q=%20", &sent).await.json();
            let sorted = |headers: &serde_json::Value| {
                let mut all: Vec<_> =
                    headers.as_array().unwrap().iter().map(ToString::to_string).collect();
                all.sort();
                all
            };
            assert_eq!(seen["url"], url);
            let told = serde_json::from_str(told).unwrap();
            assert_eq!(sorted(&seen["headers"]), sorted(&told));
        }
        let absolute = "GET http://127.0.0.9/PROBE/p/echo HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        let seen = exchange(&distrusting, absolute).await;
        assert!(seen.contains(r#""url":"http://127.0.0.9/echo""#), "{seen}");
    });
}

#[test]
fn a_client_sees_the_answer_less_what_belongs_to_the_hop() {
    run(async {
        let (_server, address) = started().await;
        for mut http in [Http::one(&address).await, Http::two(&address).await] {
            let answer = http.ask("GET", "/MIRROR/m/hop").await;
            assert_eq!((answer.status(), answer.text.as_str()), (200, "hop"));
            for (name, value) in [
                ("connection", None),
                ("x-private", None),
                ("keep-alive", None),
                ("transfer-encoding", None),
                ("content-length", Some("3")),
                ("x-kept", Some("1")),
            ] {
                assert_eq!(answer.header(name), value, "{name}");
            }
            assert!(answer.header("date").is_some());
            let head = http.ask("HEAD", "/KV/k/none").await;
            assert_eq!((head.status(), head.text.as_str()), (404, ""));
            for (code, length) in [(204, None), (304, None), (205, Some("0"))] {
                let answer = http.ask("GET", &format!("/PROBE/p/status?code={code}")).await;
                assert_eq!((answer.status(), answer.text.as_str()), (code, ""));
                if let Http::One(_) = http {
                    assert_eq!(answer.header("content-length"), length, "{code}");
                }
            }
            assert_eq!(http.ask("GET", "/COUNTER/still/").await.text, "0", "it serves on");
        }
    });
}

#[test]
fn requests_of_one_connection_reach_an_object_in_their_order() {
    run(async {
        let (_server, address) = started().await;
        for name in ["a", "b", "c"] {
            let one = format!(
                "POST /COUNTER/{name} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
            );
            let last = format!(
                "GET /COUNTER/{name} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            );
            let answers = exchange(&address, one.repeat(100) + &last).await;
            let sums: Vec<&str> = answers
                .split("\r\n\r\n")
                .skip(1)
                .map(|body| body.split("HTTP").next().unwrap())
                .collect();
            let counted: Vec<String> = (1..=100).chain([100]).map(|n: u32| n.to_string()).collect();
            assert_eq!(sums, counted);
        }
        let Http::Two(sender) = Http::two(&address).await else { return };
        let asked = (1..=100).map(|n| {
            let mut sender = sender.clone();
            let uri = "http://localhost/COUNTER/streams/";
            let request = http::Request::post(uri).body(Body::empty()).unwrap();
            let answer = sender.send_request(request);
            async move {
                let body = answer.await.unwrap().into_body().collect().await.unwrap();
                assert_eq!(body.to_bytes(), n.to_string());
            }
        });
        join_all(asked.collect::<Vec<_>>()).await;
    });
}

#[test]
fn bodies_stream_both_ways_while_they_are_made() {
    run(async {
        let (_server, address) = started().await;
        for mut http in [Http::one(&address).await, Http::two(&address).await] {
            // Both shards: an object on the connection's thread, and one on the other.
            for name in ["a", "b", "c", "d"] {
                let (mut writer, body) = Body::pipe(64);
                let path = format!("/MIRROR/{name}/through");
                writer.write("first".into()).await.unwrap();
                let mut back = http.send("POST", &path, body).await.unwrap().into_body();
                for (word, next) in [("first", "second"), ("second", "third"), ("third", "")] {
                    let frame = back.frame().await.unwrap().unwrap();
                    assert_eq!(frame.into_data().unwrap(), word);
                    writer.write(next.into()).await.unwrap();
                }
                writer.finish();
                assert!(back.collect().await.unwrap().to_bytes().is_empty());
            }
        }
    });
}

#[test]
fn a_body_of_64_mib_passes_whole_in_both_directions() {
    run(async {
        let (_server, address) = started().await;
        for mut http in [Http::one(&address).await, Http::two(&address).await] {
            let path = format!("/PROBE/p/stream?bytes={}", 64 * MIB);
            let mut body = http.send("GET", &path, Body::empty()).await.unwrap().into_body();
            let (mut bytes, mut good) = (0_usize, true);
            while let Some(frame) = body.frame().await {
                let data = frame.unwrap().into_data().unwrap();
                good &= data.iter().enumerate().all(|(i, b)| usize::from(*b) == (bytes + i) % 251);
                bytes += data.len();
            }
            assert!(good && bytes == 64 * MIB, "{bytes}");
            let chunk = Bytes::from(vec![b'x'; MIB]);
            let chunks = futures::stream::iter(
                (0..64).map(move |_| Ok::<_, stubborn::Error>(chunk.clone())),
            );
            let answer = http.ask_with("PUT", "/PROBE/p/upload", Body::from_stream(chunks)).await;
            assert_eq!(answer.json()["bytes"], 64 * MIB, "{}", answer.text);
        }
    });
}

#[test]
fn a_body_cut_short_never_looks_complete() {
    run(async {
        let (_server, address) = started().await;
        for path in ["/MIRROR/m/cut", "/MIRROR/m/short?9"] {
            let mut http = Http::two(&address).await;
            let mut body = http.send("GET", path, Body::empty()).await.unwrap().into_body();
            // An error is not followed by an end.
            let end = loop {
                match body.frame().await {
                    Some(Ok(_)) => {}
                    end => break end,
                }
            };
            assert!(matches!(end, Some(Err(_))), "{path}");
            // The other streams live on.
            assert_eq!(http.ask("GET", "/COUNTER/c/").await.status(), 200);
            for version in ["1.0", "1.1"] {
                let mut wire = Wire::open(&address).await;
                wire.say(format!("GET {path} HTTP/{version}\r\nHost: localhost\r\n\r\n")).await;
                let (heard, orderly) = wire.hear_all().await;
                assert!(!heard.ends_with("0\r\n\r\n"), "{heard}");
                assert!(!orderly || heard.is_empty(), "{version} {path}: {heard}");
            }
        }
        for framed in
            ["Content-Length: 9\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"]
        {
            let mut wire = Wire::open(&address).await;
            wire.say(format!("POST /MIRROR/cut/read HTTP/1.1\r\nHost: localhost\r\n{framed}"))
                .await;
            logged(&address, "cut", "reads").await;
            drop(wire);
            logged(&address, "cut", "truncated").await;
        }
    });
}

#[test]
fn an_object_can_see_that_its_client_has_gone() {
    run(async {
        let (_server, address) = started().await;
        for name in ["a", "b", "c"] {
            let keep = format!("GET /MIRROR/{name}/keep HTTP/1.1\r\nHost: localhost\r\n\r\n");
            let mut wire = Wire::open(&address).await;
            wire.say(&keep).await;
            logged(&address, name, "keeps").await;
            drop(wire);
            logged(&address, name, "gone").await;
            // A client that has said its last word counts as gone, too.
            let mut wire = Wire::open(&address).await;
            wire.say(&keep).await;
            logged(&address, name, "keeps").await;
            tokio::io::AsyncWriteExt::shutdown(&mut wire.0).await.unwrap();
            logged(&address, name, "gone").await;
            let mut http = Http::two(&address).await;
            let path = format!("/MIRROR/{name}/keep");
            tokio::select! {
                answer = http.send("GET", &path, Body::empty()) => panic!("{answer:?}"),
                () = logged(&address, name, "keeps") => {}
            }
            logged(&address, name, "gone").await;
            assert_eq!(http.ask("GET", "/COUNTER/c/").await.status(), 200, "one stream was reset");
            let path = format!("/MIRROR/{name}/endless");
            let mut body = http.send("GET", &path, Body::empty()).await.unwrap().into_body();
            body.frame().await.unwrap().unwrap();
            drop(body);
            logged(&address, name, "closed").await;
        }
    });
}

#[test]
fn an_error_has_a_status_flags_and_a_message_where_configured() {
    run(async {
        let (_shown_server, shown) = started().await;
        let hidden = GatewaySettings::default().error_messages(false);
        let (_hidden_server, hidden) = start(Limits::default(), hidden).await;
        for (kind, code) in [
            ("failed", 500),
            ("disconnected", 502),
            ("overloaded", 503),
            ("timeout", 504),
            ("invalid-request", 500),
            ("no-such-object", 500),
        ] {
            let path = format!("/MIRROR/m/fail?{kind}");
            let answer = get(&shown, &path, &[]).await;
            assert_eq!(answer.status(), code, "{kind}");
            let error = &answer.json()["error"];
            assert_eq!(error["kind"], kind.replace('-', " "));
            assert_eq!((&error["remote"], &error["delivered"]), (&true.into(), &true.into()));
            assert_eq!(error["overloaded"], kind == "overloaded");
            assert_eq!(error["retryable"], kind == "disconnected");
            assert_eq!(error["message"], "a secret of the object");
            assert_eq!(answer.header("retry-after"), (code == 503).then_some("1"));
            assert_eq!(answer.header("content-type"), Some("application/json"));
            let answer = get(&hidden, &path, &[]).await;
            assert!(answer.status() == code && !answer.text.contains("secret"), "{}", answer.text);
        }
        let panicked = get(&shown, "/PROBE/p/panic?message=boom", &[]).await;
        assert_eq!((panicked.status(), &panicked.json()["error"]["reset"]), (500, &true.into()));
        assert_eq!(get(&shown, "/PROBE/p/whoami", &[]).await.status(), 200, "a new one serves");
        let one = Limits { object_queue_events_max: 1, ..Limits::default() };
        let (_server, address) = start(one, GatewaySettings::default()).await;
        let slow = "/PROBE/slow-constructor-300-x/log";
        let (address, asked) = (&address, 0..8);
        let answers = join_all(asked.map(|_| get(address, slow, &[]))).await;
        let refused = answers.iter().find(|answer| answer.status() == 503).expect("one too many");
        assert_eq!(refused.json()["error"]["remote"], false);
    });
}

#[test]
fn a_server_that_is_to_stop_answers_what_is_under_way() {
    run(async {
        let (server, address) = started().await;
        let (mut one, mut two) = (Http::one(&address).await, Http::two(&address).await);
        let idle = Http::one(&address).await;
        let (first, second) = ("/PROBE/first/sleep?ms=300", "/PROBE/second/sleep?ms=300");
        let stop = async {
            // An object is listed once its first request has come.
            let list = "/_stubborn/api/objects?namespace=PROBE";
            let both = |text: &str| text.contains("\"first\"") && text.contains("\"second\"");
            while !both(&get(&address, list, &[]).await.text) {}
            server.stop().await;
        };
        let (one, two, ()) = tokio::join!(one.ask("GET", first), two.ask("GET", second), stop);
        for answer in [one, two] {
            assert_eq!((answer.status(), answer.text.as_str()), (200, "slept 300 ms"));
        }
        drop(idle);
        assert!(tokio::net::TcpStream::connect(&address).await.is_err());
    });
}

#[test]
fn an_expectation_is_met_before_the_body_is_sent() {
    run(async {
        let (_server, address) = started().await;
        let mut wire = Wire::open(&address).await;
        wire.say("POST /MIRROR/m/read HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n").await;
        assert_eq!(wire.hear_until("\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
        wire.say("abc").await;
        let heard = wire.hear_until("\r\n\r\n3").await;
        assert_eq!(status(&heard), 200, "{heard}");
    });
}

#[test]
fn the_listing_pages_through_all_and_asks_who_one_is() {
    const BASE: &str = "/client/v4/accounts/any/workers/durable_objects/namespaces";
    run(async {
        let (_server, address) = started().await;
        let mut http = Http::one(&address).await;
        for n in 0..25 {
            http.ask("POST", &format!("/COUNTER/object-{n}")).await;
        }
        let local = |path: String| {
            let address = address.clone();
            async move { get(&address, &path, &[]).await }
        };
        let all = local(BASE.to_owned()).await.json();
        let names: Vec<&str> = all["result"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["COUNTER", "HIDDEN", "KV", "MIRROR", "PROBE", "ROOM"]);
        assert_eq!(all["success"], true);
        let second = local(format!("{BASE}?page=2&per_page=4")).await.json();
        assert_eq!(second["result"].as_array().unwrap().len(), 2);
        let beyond = local(format!("{BASE}?page=3&per_page=4")).await.json();
        assert_eq!(beyond["result"], serde_json::json!([]));
        let id = all["result"][0]["id"].as_str().unwrap().to_owned();
        let (mut cursor, mut sizes, mut seen) =
            (String::new(), vec![], std::collections::BTreeSet::new());
        loop {
            let page = local(format!("{BASE}/{id}/objects?limit=10&cursor={cursor}")).await.json();
            let objects = page["result"].as_array().unwrap().clone();
            sizes.push(objects.len());
            for object in objects {
                let name = object["name"].as_str().unwrap().to_owned();
                assert_eq!(object["id"].as_str().unwrap().len(), 64);
                assert!(object["hasStoredData"].is_boolean() && seen.insert(name));
            }
            let info = &page["result_info"];
            assert_eq!(info["cursor"], info["cursors"]["after"]);
            match info["cursor"].as_str() {
                Some(next) => cursor = next.to_owned(),
                None => break,
            }
        }
        assert_eq!((sizes, seen.len()), (vec![10, 10, 5], 25));
        for (path, code) in [
            (format!("{BASE}/{id}/objects?limit=9"), 400),
            (format!("{BASE}/{id}/objects?limit=10001"), 400),
            (format!("{BASE}/{id}/objects?cursor=nonsense"), 400),
            (format!("{BASE}?page=0"), 400),
            (format!("{BASE}/{}/objects", "0".repeat(32)), 404),
            ("/client/v4/user".to_owned(), 404),
        ] {
            let answer = local(path.clone()).await;
            let told = answer.json();
            assert_eq!((answer.status(), &told["success"]), (code, &false.into()), "{path}");
            assert!(told["errors"][0]["code"].is_number() && told["result"].is_null(), "{told}");
        }
        assert_eq!(http.ask("POST", BASE).await.status(), 405);
        let rebound = get(&address, BASE, &[("host", "evil.example")]).await;
        assert!(rebound.status() == 403 && !rebound.text.contains("COUNTER"), "{}", rebound.text);
    });
}

#[test]
fn with_tokens_their_bearers_list_and_nobody_else() {
    const BASE: &str = "/client/v4/accounts/any/workers/durable_objects/namespaces";
    run(async {
        let settings = GatewaySettings::default().api_token("one").api_token("two");
        let (_server, address) = start_with(|builder| builder.gateway(settings)).await;
        for (authorization, code) in [
            (None, 401),
            (Some("Bearer one"), 200),
            (Some("bearer two"), 200),
            (Some("Bearer three"), 401),
            (Some("Bearer "), 401),
            (Some("Basic one"), 401),
            (Some("one"), 401),
        ] {
            let mut headers = vec![("host", "any.example")];
            headers.extend(authorization.map(|value| ("authorization", value)));
            let answer = get(&address, BASE, &headers).await;
            assert_eq!(answer.status(), code, "{authorization:?}");
            assert_eq!(answer.text.contains("COUNTER"), code == 200);
        }
        let open = demo_on_all_interfaces().await;
        let answer = get(&open.1, BASE, &[]).await;
        assert_eq!(answer.status(), 403, "other machines may reach it, and there are no tokens");
    });
}

async fn demo_on_all_interfaces() -> (stubborn::Server, String) {
    let builder = stubborn::demo::namespaces(stubborn::Server::builder());
    let server = builder.http("0.0.0.0:0").unwrap().start().await.unwrap();
    let port = server.http_addresses()[0].to_string().rsplit(':').next().unwrap().to_owned();
    (server, format!("127.0.0.1:{port}"))
}
