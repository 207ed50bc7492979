//! A room as those hear it who are in it.

use super::{request, send, served};
use crate::Client;
use crate::socket::WebSocket;

async fn join(client: &Client, query: &str) -> WebSocket {
    let room = client.namespace("ROOM").get_by_name("talk");
    room.web_socket(format!("http://do/{query}")).await.unwrap().1
}

async fn hear(socket: &WebSocket) -> String {
    socket.receive().await.unwrap().as_text().unwrap().to_owned()
}

#[test]
fn everybody_in_a_room_hears_what_is_said_and_who_comes_later_hears_what_was() {
    served(async |client| {
        let ann = join(&client, "?from=ann").await;
        assert_eq!(hear(&ann).await, r#"{"here":1}"#);
        let bob = join(&client, "").await;
        for member in [&ann, &bob] {
            assert_eq!(hear(member).await, r#"{"here":2}"#);
        }
        ann.send("hi").await.unwrap();
        let posted = request("POST", "/?from=eve", "from outside");
        let first = hear(&ann).await;
        assert_eq!(first, r#"{"number":1,"from":"ann","text":"hi"}"#);
        // Between two WebSockets there is no order but what their members wait for.
        bob.send("hello").await.unwrap();
        let second = hear(&ann).await;
        assert_eq!(second, r#"{"number":2,"text":"hello"}"#);
        send(&client, ("ROOM", "talk"), posted).await.unwrap();
        let third = r#"{"number":3,"from":"eve","text":"from outside"}"#;
        assert_eq!(hear(&ann).await, third);
        for heard in [first.as_str(), second.as_str(), third] {
            assert_eq!(hear(&bob).await, heard);
        }
        let late = join(&client, "?after=2").await;
        assert_eq!(hear(&late).await, third);
        assert_eq!(hear(&late).await, r#"{"here":3}"#);
        assert_eq!(hear(&bob).await, r#"{"here":3}"#);
        drop(late);
        assert_eq!(hear(&bob).await, r#"{"here":2}"#);
        bob.send("ping").await.unwrap();
        assert_eq!(hear(&bob).await, "pong");
        bob.send(vec![0]).await.unwrap();
        assert_eq!(bob.receive().await.unwrap_err().code, 4000);
    });
}

/// All of them had to fit, or nobody came in; of those behind a number only the first hundred were heard.
#[test]
fn who_joins_a_full_room_hears_the_newest_that_fit() {
    served(async |client| {
        let text = "x".repeat(16 << 10);
        for _ in 0..400 {
            let posted = request("POST", "/", &text);
            send(&client, ("ROOM", "talk"), posted).await.unwrap();
        }
        for query in ["?limit=1000", "?after=1"] {
            let late = join(&client, query).await;
            let mut heard = Vec::new();
            loop {
                let line = hear(&late).await;
                if line.starts_with("{\"here\"") {
                    break;
                }
                let rest = line.strip_prefix("{\"number\":").unwrap();
                heard.push(rest.split(',').next().unwrap().parse::<usize>().unwrap());
            }
            assert!((50..70).contains(&heard.len()), "{}", heard.len());
            assert_eq!(heard, (401 - heard.len()..=400).collect::<Vec<_>>(), "{query}");
        }
    });
}

#[test]
fn a_browser_gets_the_page_and_a_program_does_not() {
    served(async |client| {
        let mut visit = request("GET", "/?from=ann", "");
        visit.headers_mut().insert("accept", "text/html,application/xhtml+xml".parse().unwrap());
        let page = send(&client, ("ROOM", "page"), visit).await.unwrap();
        assert_eq!(page.headers()["content-type"], "text/html;charset=UTF-8");
        assert!(page.into_body().text().await.unwrap().contains("<title>A room</title>"));
        let plain = send(&client, ("ROOM", "page"), request("GET", "/", "")).await.unwrap();
        assert_eq!(plain.headers()["content-type"], "application/x-ndjson");
    });
}
