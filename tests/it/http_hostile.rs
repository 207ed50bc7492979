//! HTTP clients that mean harm, or are broken: each is refused clearly, and others are served.
//!
//! **Invariant:** after each attack another client is served in full.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use stubborn::gateway::GatewaySettings;
use stubborn::{Body, Limits};
use tokio::io::AsyncWriteExt;

use crate::support::http::{Http, WRITTEN, Wire, exchange, logged, start, started, status};
use crate::support::run;

/// Runs `attack` against a gateway within `limits`, with clients beside it that must not notice.
fn attacked(limits: Limits, attack: impl AsyncFnOnce(&str)) {
    run(async {
        let (_server, address) = start(limits, GatewaySettings::default()).await;
        attack(&address).await;
        for mut http in [Http::one(&address).await, Http::two(&address).await] {
            for name in ["a", "b", "c"] {
                let answer =
                    http.ask_with("POST", &format!("/MIRROR/{name}/read"), "abc".into()).await;
                assert_eq!(answer.text, "3");
            }
        }
    });
}

#[test]
fn what_is_no_request_is_refused_and_the_connection_ends() {
    let long = "x".repeat(20_000);
    let many = (0..300).map(|n| format!("x-{n}: 1\r\n")).collect::<String>();
    let large = format!("x-large: {}\r\n", "x".repeat(100_000));
    let halves = format!("x-a: {0}\r\nx-b: {0}\r\n", "x".repeat(33_000));
    let request =
        |headers: &str| format!("POST /MIRROR/m/read HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
    let cases: Vec<(Vec<u8>, u16)> = vec![
        (b"nonsense\r\n\r\n".to_vec(), 400),
        (b"GET /COUNTER/\xff HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(), 400),
        (b"GET /COUNTER/\xc3( HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(), 400),
        (b"GET /COUNTER/a b HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(), 400),
        (b"GET /COUNTER/a HTTP/1.1\r\n\r\n".to_vec(), 400),
        (
            b"GET /COUNTER/a HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close\r\n\r\n".to_vec(),
            400,
        ),
        (b"GET /COUNTER/a HTTP/1.1\r\nHost : do\r\n\r\n".to_vec(), 400),
        (b"GET /COUNTER/a HTTP/1.1\r\nHost: localhost\r\n folded: x\r\n\r\n".to_vec(), 400),
        (b"GET /COUNTER/a HTTP/1.1\r\nHost: localhost\r\nx: a\0b\r\n\r\n".to_vec(), 400),
        (b"CONNECT do:80 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".to_vec(), 400),
        (
            format!("GET /COUNTER/{long} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                .into(),
            414,
        ),
        (request(&many).into(), 431),
        (request(&large).into(), 431),
        (request(&format!("{halves}Content-Length: 0\r\nConnection: close\r\n")).into(), 431),
        // What two parsers could read in two ways.
        (request("Content-Length: 5\r\nContent-Length: 6\r\n").into(), 400),
        (request("Content-Length: 5, 6\r\n").into(), 400),
        (request("Content-Length: +5\r\n").into(), 400),
        (request("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n").into(), 400),
        (request("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n").into(), 400),
        (request("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n").into(), 400),
        (request("Transfer-Encoding: gzip, chunked\r\n").into(), 400),
        (request("Transfer-Encoding: chunked, identity\r\n").into(), 400),
        (request("Transfer-Encoding: \x0bchunked\r\n").into(), 400),
        (
            request(&format!(
                "Transfer-Encoding:{}gzip,{} chunked\r\n",
                " ".repeat(110),
                " ".repeat(4096)
            ))
            .into(),
            400,
        ),
        (
            b"POST /MIRROR/m/read HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_vec(),
            400,
        ),
    ];
    attacked(Limits::default(), async |address| {
        for (bytes, code) in cases {
            let answer = exchange(address, &bytes).await;
            let shown = String::from_utf8_lossy(&bytes);
            assert_eq!(status(&answer), code, "{shown:.200}: {answer}");
            assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{shown:.200}: {answer}");
        }
    });
}

#[test]
fn nothing_behind_a_refused_head_is_taken_for_a_request() {
    attacked(Limits::default(), async |address| {
        let smuggled =
            "POST /COUNTER/smuggled HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n";
        for headers in [
            format!("Content-Length: {}\r\nTransfer-Encoding: chunked\r\n", smuggled.len() + 5),
            format!("Transfer-Encoding: chunked\r\nContent-Length: {}\r\n", smuggled.len() + 5),
            "Content-Length: 5\r\nContent-Length: 0\r\n".to_owned(),
        ] {
            let good =
                "POST /COUNTER/good HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n";
            let head = format!("POST /COUNTER/bad HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
            let answers = exchange(address, format!("{good}{head}0\r\n\r\n{smuggled}")).await;
            let codes: Vec<&str> =
                answers.split("HTTP/1.1 ").skip(1).map(|one| &one[..3]).collect();
            assert_eq!(codes, ["200", "400"], "{answers}");
        }
        let mut http = Http::one(address).await;
        for (name, count) in [("good", "3"), ("bad", "0"), ("smuggled", "0")] {
            assert_eq!(http.ask("GET", &format!("/COUNTER/{name}")).await.text, count, "{name}");
        }
    });
}

#[test]
fn garbage_in_place_of_a_chunk_cuts_the_body_short() {
    attacked(Limits::default(), async |address| {
        for garbage in ["zz\r\n", "3\r\nabcdef\r\n", "ffffffffffffffffff\r\n", "3\r\nab", "-1\r\n"]
        {
            let mut wire = Wire::open(address).await;
            let head = "POST /MIRROR/garbage/read HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
            wire.say(head).await;
            logged(address, "garbage", "reads").await;
            wire.say(garbage).await;
            let _ = wire.0.shutdown().await;
            wire.hear_all().await;
            logged(address, "garbage", "truncated").await;
        }
    });
}

#[test]
fn a_head_that_does_not_end_is_given_up() {
    let limits = Limits { http_header_timeout: Duration::from_millis(200), ..Limits::default() };
    attacked(limits, async |address| {
        // Nothing, a part of a first head, and a part of one behind a good request.
        let mut silent = Wire::open(address).await;
        let mut slow = Wire::open(address).await;
        slow.say("GET /COUNTER/a HTTP/1.1\r\nHost: localhost\r\nx-slow: ").await;
        let mut second = Wire::open(address).await;
        second.say("GET /COUNTER/a HTTP/1.1\r\nHost: localhost\r\n\r\nGET /COUN").await;
        let mut drip = Wire::open(address).await;
        drip.say("GET / HTTP/1.1\r\n").await;
        let dripping = async {
            loop {
                drip.say("x: y\r\n").await;
                if drip.0.write_all(b"z: z\r\n").await.is_err() {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        assert_eq!(silent.hear_all().await.0, "");
        assert_eq!(status(&slow.hear_all().await.0), 408);
        let heard = second.hear_all().await.0;
        assert!(heard.starts_with("HTTP/1.1 200") && heard.contains("HTTP/1.1 408"), "{heard}");
        // It comes to its end by the time or by the size, whichever is first.
        dripping.await;
    });
}

#[test]
fn a_connection_that_nothing_is_asked_of_is_closed() {
    let limits = Limits { http_idle_timeout: Duration::from_millis(200), ..Limits::default() };
    attacked(limits, async |address| {
        let mut wire = Wire::open(address).await;
        wire.say("GET /PROBE/p/sleep?ms=500 HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        let (heard, orderly) = wire.hear_all().await;
        assert!(heard.ends_with("slept 500 ms") && orderly, "{heard}");
        let Http::Two(mut sender) = Http::two(address).await else { return };
        while !sender.is_closed() {
            let _ = tokio::time::timeout(Duration::from_millis(10), sender.ready()).await;
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn a_client_that_stops_reading_holds_bounded_memory_and_is_given_up() {
    /// What the kernel may buffer on loopback, and more than we may.
    const BUFFERED_MAX: u64 = 32 << 20;
    let limits = Limits { http_stall_timeout: Duration::from_millis(500), ..Limits::default() };
    attacked(limits, async |address| {
        let mut wire = Wire::open(address).await;
        wire.say("GET /MIRROR/endless/endless HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        logged(address, "endless", "closed").await;
        let written = WRITTEN.load(Ordering::Relaxed);
        assert!(written < BUFFERED_MAX, "{written}");
        let (_, orderly) = wire.hear_all().await;
        assert!(!orderly, "an answer without an end is no whole one");
    });
}

#[test]
fn a_client_that_announces_a_body_and_stops_is_given_up() {
    let limits = Limits { http_stall_timeout: Duration::from_millis(300), ..Limits::default() };
    attacked(limits, async |address| {
        let mut wire = Wire::open(address).await;
        wire.say(
            "POST /MIRROR/stalled/read HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nabc",
        )
        .await;
        logged(address, "stalled", "truncated").await;
        wire.hear_all().await;
    });
}

#[test]
fn an_object_that_does_not_read_slows_its_client() {
    attacked(Limits::default(), async |address| {
        for mut http in [Http::one(address).await, Http::two(address).await] {
            let (mut writer, body) = Body::pipe(64 << 10);
            let sending = async { http.send("POST", "/MIRROR/slow/keep", body).await.map(drop) };
            let writing = async {
                let chunk = Bytes::from(vec![b'x'; 64 << 10]);
                let mut written = 0;
                while let Ok(Ok(())) =
                    tokio::time::timeout(Duration::from_millis(300), writer.write(chunk.clone()))
                        .await
                {
                    written += chunk.len();
                    assert!(written < 32 << 20, "{written}");
                }
                assert!(written > 0);
            };
            tokio::select! {
                sent = sending => panic!("{sent:?}"),
                () = writing => {}
            }
        }
    });
}

#[test]
fn one_connection_too_many_is_closed_and_a_place_becomes_free_again() {
    run(async {
        let limits = Limits { connections_max: 2, ..Limits::default() };
        let (_server, address) = start(limits, GatewaySettings::default()).await;
        let (mut one, mut two) = (Http::one(&address).await, Http::two(&address).await);
        assert_eq!(one.ask("GET", "/COUNTER/a").await.status(), 200);
        assert_eq!(two.ask("GET", "/COUNTER/a").await.status(), 200);
        assert_eq!(exchange(&address, "").await, "");
        drop(one);
        let request = "GET /COUNTER/a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        while status(&exchange(&address, request).await) != 200 {}
    });
}

#[test]
fn a_bad_upgrade_is_refused_clearly_and_an_unknown_one_ignored() {
    attacked(Limits::default(), async |address| {
        let upgrade = |to: &str| {
            format!(
                "GET /ROOM/r/ HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: {to}\r\n\r\n"
            )
        };
        let answer = exchange(address, upgrade("websocket") + "\x01\x02 frames").await;
        assert!(status(&answer) == 426 && answer.contains("sec-websocket-version"), "{answer}");
        let last = "GET /ROOM/r/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        let answers = exchange(address, upgrade("h2c") + last).await;
        assert_eq!(answers.matches("HTTP/1.1 200").count(), 2, "{answers}");
    });
}

#[test]
fn a_request_for_a_web_socket_is_the_last_of_its_connection_granted_or_not() {
    const KEY: &str =
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    attacked(Limits::default(), async |address| {
        for (method, path, headers, code) in [
            // Nothing here opens one: each is answered, and nothing behind it is read as a request.
            ("GET", "/COUNTER/a", "Upgrade: websocket\r\n", 200),
            ("GET", "/COUNTER/a", "Upgrade: h2c, WebSocket\r\n", 200),
            ("GET", "/COUNTER/a", "Upgrade: h2c\r\nUpgrade: websocket\r\n", 200),
            ("GET", "/", "Upgrade: websocket\r\n", 200),
            ("GET", "/NONE/a", "Upgrade: websocket\r\n", 404),
            ("GET", "/_stubborn/", "Upgrade: websocket\r\n", 200),
            // One is asked for by GET, without a body.
            ("POST", "/ROOM/r/", "Upgrade: websocket\r\n", 400),
            ("GET", "/ROOM/r/", "Upgrade: websocket\r\nContent-Length: 0\r\n", 400),
            ("GET", "/ROOM/r/", "Upgrade: websocket\r\nTransfer-Encoding: chunked\r\n", 400),
        ] {
            let head = format!(
                "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive, Upgrade\r\n{headers}{KEY}\r\n"
            );
            let smuggled =
                "POST /COUNTER/behind HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n";
            let mut wire = Wire::open(address).await;
            wire.say(format!("{head}{smuggled}")).await;
            let (heard, _) = wire.hear_all().await;
            assert_eq!(status(&heard), code, "{headers}: {heard}");
            assert_eq!(heard.matches("HTTP/1.1 ").count(), 1, "{headers}: {heard}");
        }
        assert_eq!(Http::one(address).await.ask("GET", "/COUNTER/behind").await.text, "0");
    });
}

#[test]
fn a_bare_newline_in_a_trailer_hides_no_request() {
    attacked(Limits::default(), async |address| {
        let smuggled =
            "POST /COUNTER/behind HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n";
        for trailer in ["\n", "x: y\n\n", "x: y\r\n\n"] {
            let head = "POST /MIRROR/trailer/read HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n";
            let heard = exchange(address, format!("{head}{trailer}{smuggled}\r\n\r\n")).await;
            assert!(heard.matches("HTTP/1.1 200").count() == 0, "{trailer:?}: {heard}");
        }
        assert_eq!(Http::one(address).await.ask("GET", "/COUNTER/behind").await.text, "0");
    });
}

#[test]
fn a_stream_of_http_2_that_stalls_ends_and_the_others_go_on() {
    let limits = Limits { http_stall_timeout: Duration::from_millis(400), ..Limits::default() };
    attacked(limits, async |address| {
        let mut http = Http::two(address).await;
        // Announces a body, and sends a part of it.
        let (mut writer, body) = Body::pipe(64);
        writer.write("abc".into()).await.unwrap();
        let Http::Two(sender) = &http else { return };
        let mut second = sender.clone();
        let request = http::Request::post("http://localhost/MIRROR/stalled-2/read").body(body);
        let answer = tokio::spawn(second.send_request(request.unwrap()));
        logged(address, "stalled-2", "truncated").await;
        assert!(answer.await.unwrap().is_ok_and(|answer| answer.status().is_server_error()));
        // Asks for more than it takes.
        let path = "/MIRROR/untaken/endless";
        let untaken = http.send("GET", path, Body::empty()).await.unwrap();
        logged(address, "untaken", "closed").await;
        // Takes its time to answer, which is nobody's fault.
        let slow = http.ask("GET", "/PROBE/p/sleep?ms=900").await;
        assert_eq!(slow.status(), 200, "the connection lives on");
        assert!(untaken.into_body().collect().await.is_err());
        drop(writer);
    });
}

#[test]
fn too_many_headers_over_http_2_are_refused_and_the_connection_lives_on() {
    run(async {
        let (_server, address) = started().await;
        let Http::Two(mut sender) = Http::two(&address).await else { return };
        for (count, bytes) in [(300, 1), (3, 30_000)] {
            let mut request = http::Request::get("http://localhost/COUNTER/a");
            for n in 0..count {
                request = request.header(format!("x-{n}"), "x".repeat(bytes));
            }
            let answer = sender.send_request(request.body(Body::empty()).unwrap()).await.unwrap();
            assert_eq!(answer.status(), 431, "{count}");
        }
        let request = http::Request::get("http://localhost/COUNTER/a").body(Body::empty()).unwrap();
        let answer = sender.send_request(request).await.unwrap();
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "0");
    });
}
