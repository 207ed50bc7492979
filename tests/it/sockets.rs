//! WebSockets over Cap'n Proto, and their hibernation.

use std::time::Duration;

use stubborn::storage::memory::Memory;
use stubborn::{Client, Error, Kind, Limits, Message};

use stubborn::stubborn_capnp as wire;

use crate::support::run;
use crate::support::sockets::{
    Heard, SOCKETS, TYPED_SOCKETS, ask, has_left, hear, hibernating, object, open, start,
};

#[test]
fn messages_of_a_socket_arrive_in_order_on_every_way_to_its_object() {
    run(async {
        let (_server, address) = start(2, Limits::default(), None).await;
        let client = Client::connect(&address).await.unwrap();
        // Objects on both threads, of both kinds of class.
        for namespace in [SOCKETS, TYPED_SOCKETS] {
            for name in ["a", "b", "c", "d", "e", "f"] {
                let stub = client.namespace(namespace).get_by_name(name);
                let socket = open(&stub, "").await;
                for n in 0..100 {
                    let text = format!("yield {}", "x".repeat(n));
                    socket.send(text).await.unwrap();
                }
                for n in 0..100 {
                    assert_eq!(hear(&socket).await.len(), n, "{namespace} {name}");
                }
            }
        }
    });
}

#[test]
fn an_object_reads_an_end_that_it_did_not_accept_as_hibernatable() {
    run(async {
        let (_server, _client, stub) = object("reads", hibernating()).await;
        let (_, socket) = stub.web_socket("http://do/stream").await.unwrap();
        for n in 0..50 {
            assert_eq!(ask(&socket, &n.to_string()).await, n.to_string());
        }
        socket.close(4002, "done").unwrap();
        let closed = socket.receive().await.unwrap_err();
        assert_eq!((closed.code, closed.reason.as_str(), closed.was_clean), (4002, "done", true));
        assert!(socket.send("late").await.is_err());
    });
}

#[test]
fn a_socket_survives_hibernation_and_the_next_message_wakes_its_object() {
    run(async {
        let (_server, _client, stub) = object("sleeper", hibernating()).await;
        let socket = open(&stub, "red,blue").await;
        let other = open(&stub, "blue,witness").await;
        assert_eq!(ask(&socket, "attach something to keep").await, "attached");
        let first: u64 = ask(&socket, "whoami").await.parse().unwrap();
        for times in 1..=3 {
            has_left("sleeper", times).await;
            let next: u64 = ask(&socket, "whoami").await.parse().unwrap();
            assert_eq!(next, first + times as u64);
            assert_eq!(ask(&socket, "attachment").await, "something to keep");
            assert_eq!(ask(&socket, "tags").await, "red,blue");
            assert_eq!(ask(&other, "attachment").await, "");
            assert_eq!(ask(&other, "count blue").await, "2");
            assert_eq!(ask(&other, "count red").await, "1");
            assert_eq!(ask(&other, "count").await, "2");
        }
        has_left("sleeper", 4).await;
        // Its close wakes the object, too.
        drop(socket);
        assert_eq!(hear(&other).await, "closed 1006  false");
    });
}

#[test]
fn an_object_without_hibernatable_sockets_does_not_hibernate() {
    run(async {
        let limits = Limits { evict_after: Duration::from_millis(400), ..hibernating() };
        let (_server, _client, stub) = object("awake", limits).await;
        let (_, socket) = stub.web_socket("http://do/stream").await.unwrap();
        let hibernatable = open(&stub, "").await;
        let first = ask(&hibernatable, "whoami").await;
        for _ in 0..20 {
            tokio::task::yield_now().await;
            assert_eq!(ask(&socket, "still here").await, "still here");
        }
        assert_eq!(ask(&hibernatable, "whoami").await, first);
        // Once the other is closed, it may.
        drop(socket);
        has_left("awake", 1).await;
        assert_ne!(ask(&hibernatable, "whoami").await, first);
    });
}

#[test]
fn an_automatic_answer_does_not_wake_the_object() {
    run(async {
        let (_server, _client, stub) = object("auto", hibernating()).await;
        let socket = open(&stub, "").await;
        assert_eq!(ask(&socket, "ping").await, "ping");
        assert_eq!(ask(&socket, "stamp").await, "false");
        stub.fetch("http://do/auto").await.unwrap();
        let first: u64 = ask(&socket, "whoami").await.parse().unwrap();
        has_left("auto", 1).await;
        for _ in 0..200 {
            assert_eq!(ask(&socket, "ping").await, "pong");
        }
        assert_eq!(ask(&socket, "whoami").await, (first + 1).to_string());
        assert_eq!(ask(&socket, "stamp").await, "true");
        // Behind a message that the object handles, it keeps its place.
        for text in ["yield 1234", "ping", "yield 123", "ping"] {
            socket.send(text).await.unwrap();
        }
        for answer in ["1234", "pong", "123", "pong"] {
            assert_eq!(hear(&socket).await, answer);
        }
    });
}

#[test]
fn close_codes_and_reasons_arrive_both_ways() {
    run(async {
        let (_server, _client, stub) = object("codes", Limits::default()).await;
        let witness = open(&stub, "witness").await;
        for (code, reason) in [(1000, ""), (3000, "x"), (4999, "grüße")] {
            let socket = open(&stub, "").await;
            socket.close(code, reason).unwrap();
            assert_eq!(hear(&witness).await, format!("closed {code} {reason} true"));
            let answer = socket.receive().await.unwrap_err();
            assert_eq!((answer.code, answer.was_clean), (code, true));

            let socket = open(&stub, "").await;
            socket.send(format!("close {code} {reason}")).await.unwrap();
            let closed = socket.receive().await.unwrap_err();
            assert_eq!((closed.code, closed.reason.as_str()), (code, reason));
            assert!(closed.was_clean);
            assert_eq!(hear(&witness).await, format!("closed {code} {reason} true"));
        }
        for code in [0, 999, 1001, 1005, 1006, 2999, 5000] {
            assert_eq!(witness.close(code, "").unwrap_err().kind, Kind::InvalidRequest);
        }
        assert!(witness.close(1000, &"x".repeat(124)).is_err());
        assert_eq!(ask(&witness, "count").await, "1");
    });
}

#[test]
fn a_lost_link_is_code_1006_on_both_sides() {
    run(async {
        let (server, address) = start(2, Limits::default(), None).await;
        let client = Client::connect(&address).await.unwrap();
        let stub = client.namespace(SOCKETS).get_by_name("lost");
        let witness = open(&stub, "witness").await;
        // One that is dropped, and one whose connection is.
        drop(open(&stub, "").await);
        assert_eq!(hear(&witness).await, "closed 1006  false");
        let other = Client::connect(&address).await.unwrap();
        let socket = open(&other.namespace(SOCKETS).get_by_name("lost"), "").await;
        assert_eq!(ask(&socket, "count").await, "2");
        drop((socket, other));
        assert_eq!(hear(&witness).await, "closed 1006  false");
        assert_eq!(ask(&witness, "count").await, "1");
        server.stop().await;
        let closed = witness.receive().await.unwrap_err();
        assert!(matches!(closed.code, 1001 | 1006), "{closed:?}");
    });
}

#[test]
fn a_reset_loses_every_socket_of_the_object() {
    run(async {
        for (name, word) in [("aborts", "abort"), ("panics", "panic")] {
            let (_server, client, stub) = object(name, Limits::default()).await;
            let mut sockets = Vec::new();
            for _ in 0..5 {
                sockets.push(open(&stub, "").await);
            }
            sockets[2].send("shout before").await.unwrap();
            sockets[2].send(word).await.unwrap();
            for socket in &sockets {
                assert_eq!(hear(socket).await, "before");
                let closed = socket.receive().await.unwrap_err();
                assert_eq!((closed.code, closed.was_clean), (1006, false));
            }
            assert!(stub.broken().await.reset);
            let again = client.namespace(SOCKETS).get_by_name(name);
            let open = again.fetch("http://do/open").await.unwrap().into_body().text().await;
            assert_eq!(open.unwrap(), "0");
        }
    });
}

#[test]
fn an_error_of_a_handler_leaves_the_socket_open() {
    run(async {
        let (_server, _client, stub) = object("fails", Limits::default()).await;
        let socket = open(&stub, "").await;
        socket.send("fail").await.unwrap();
        assert_eq!(ask(&socket, "count").await, "1");
    });
}

#[test]
fn a_message_leaves_only_when_what_was_written_before_it_is_durable() {
    run(async {
        let store = Memory::held();
        let (_server, address) = start(1, hibernating(), Some(store.clone())).await;
        let client = Client::connect(&address).await.unwrap();
        let stub =
            client.namespace(SOCKETS).get(client.namespace(SOCKETS).new_unique_id().await.unwrap());
        let socket = open(&stub, "").await;
        assert_eq!(ask(&socket, "before").await, "before");
        socket.send("put one").await.unwrap();
        socket.send("behind").await.unwrap();
        while store.waiting() == 0 {
            tokio::task::yield_now().await;
        }
        // The next call passes through the object, and is held as well: nothing overtakes.
        let mut call = std::pin::pin!(stub.fetch("http://do/open"));
        let early = async {
            tokio::select! { biased;
                message = socket.receive() => panic!("{message:?} left too early"),
                _ = &mut call => panic!("the call left too early"),
                () = async { for _ in 0..500 { tokio::task::yield_now().await } } => {}
            }
        };
        early.await;
        while store.waiting() > 0 {
            store.commit(1);
        }
        assert_eq!(hear(&socket).await, "stored one");
        assert_eq!(hear(&socket).await, "behind");
        call.await.unwrap();

        // What was said after a write that is lost is never seen.
        socket.send("put two").await.unwrap();
        while store.waiting() == 0 {
            tokio::task::yield_now().await;
        }
        store.fail(&Error::failed("the disk is gone"));
        assert_eq!(socket.receive().await.unwrap_err().code, 1006);
    });
}

#[test]
fn large_messages_pass_and_larger_ones_end_the_socket_with_1009() {
    run(async {
        let limits = Limits { socket_message_bytes_max: 6 << 20, ..Limits::default() };
        let (_server, _client, stub) = object("large", limits).await;
        let witness = open(&stub, "witness").await;
        let socket = open(&stub, "").await;
        for text in ["é".repeat(3 << 20), "x".repeat((6 << 20) - 1)] {
            socket.send(text.as_str()).await.unwrap();
            assert_eq!(socket.receive().await.unwrap().as_text(), Some(text.as_str()));
        }
        let bytes: Vec<u8> = (0..6 << 20).map(|n| n as u8).collect();
        socket.send(bytes.clone()).await.unwrap();
        assert_eq!(socket.receive().await.unwrap(), Message::from(bytes));
        // The client's own limit is larger than the server's.
        socket.send(vec![0; (6 << 20) + 1]).await.unwrap();
        assert!(hear(&witness).await.starts_with("error the peer of the WebSocket"));
        assert_eq!(socket.receive().await.unwrap_err().code, 1009);
        let own = socket.send(vec![0; (32 << 20) + 1]).await.unwrap_err();
        assert!(matches!(own.kind, Kind::InvalidRequest | Kind::Disconnected));
    });
}

#[test]
fn a_peer_that_does_not_read_holds_back_nobody_else() {
    run(async {
        let (_server, _client, stub) = object("slow", Limits::default()).await;
        let witness = open(&stub, "witness").await;
        let slow = open(&stub, "").await;
        slow.send("flood").await.unwrap();
        let told = hear(&witness).await;
        assert!(told.ends_with("sent, then overloaded"), "{told}");
        assert_eq!(ask(&witness, "still here").await, "still here");
        let sent: usize = told.split(' ').next().unwrap().parse().unwrap();
        for _ in 0..sent {
            assert_eq!(hear(&slow).await.len(), 1 << 20);
        }
        assert_eq!(ask(&slow, "back again").await, "back again");
    });
}

#[test]
fn objects_open_sockets_to_each_other_and_hand_them_on() {
    run(async {
        let (_server, address) = start(2, Limits::default(), None).await;
        let client = Client::connect(&address).await.unwrap();
        let namespace = client.namespace(SOCKETS);
        for name in ["p", "q", "r", "s"] {
            let stub = namespace.get_by_name(name);
            let dialled = stub.fetch(format!("http://do/dial?name=near{name}")).await.unwrap();
            let answer = dialled.into_body().text().await.unwrap();
            assert!(answer.parse::<u64>().is_ok(), "{answer}");
            let (_, socket) =
                stub.web_socket(format!("http://do/proxy?name=far{name}")).await.unwrap();
            assert_eq!(ask(&socket, "through two objects").await, "through two objects");
            assert_eq!(ask(&socket, "count dialled").await, "0");
            socket.send("close 4000 far").await.unwrap();
            assert_eq!(socket.receive().await.unwrap_err().code, 4000);
        }
    });
}

#[test]
fn a_response_that_opens_nothing_says_so() {
    run(async {
        let (_server, _client, stub) = object("refuses", Limits::default()).await;
        let refused = stub.web_socket("http://do/refuse").await.unwrap_err();
        assert!(refused.message.contains("403"), "{refused}");
        let hollow = stub.web_socket("http://do/hollow").await.unwrap_err();
        assert!(hollow.remote && hollow.message.contains("no WebSocket"), "{hollow}");
        let astray = stub.web_socket("http://do/astray").await.unwrap_err();
        assert!(astray.remote && astray.message.contains("status 200"), "{astray}");
        // A request without the other half of a WebSocket.
        let plain = stub.fetch("http://do/stream").await.unwrap_err();
        assert!(plain.message.contains("the request has none"), "{plain}");
        let tags = ["a"; 11].join(",x");
        let many = stub.web_socket(format!("http://do/accept?tags={tags}b,c,d,e,f,g,h,i,j,k,l"));
        assert!(many.await.unwrap_err().message.contains("of at most 10"));
        let long = stub.web_socket(format!("http://do/accept?tags={}", "x".repeat(257)));
        assert!(long.await.unwrap_err().message.contains("of at most 256"));
    });
}

#[test]
fn a_thousand_sockets_of_one_object_hibernate_and_wake_together() {
    run(async {
        let (_server, _client, stub) = object("thousand", hibernating()).await;
        let mut sockets = Vec::new();
        for _ in 0..1000 {
            sockets.push(open(&stub, "").await);
        }
        has_left("thousand", 1).await;
        for (n, socket) in sockets.iter().enumerate() {
            socket.send(format!("yield {n}")).await.unwrap();
        }
        for (n, socket) in sockets.iter().enumerate() {
            assert_eq!(hear(socket).await, n.to_string());
        }
        sockets[500].send("shout all").await.unwrap();
        for socket in &sockets {
            assert_eq!(hear(socket).await, "all");
        }
        sockets.truncate(2);
        loop {
            let count = ask(&sockets[0], "count").await;
            if count == "2" {
                break;
            }
        }
    });
}

#[test]
fn what_is_attached_and_answered_has_its_bounds_and_so_has_the_number_of_sockets() {
    run(async {
        let (_server, _client, stub) = object("bounds", Limits::default()).await;
        let socket = open(&stub, "").await;
        // Serialized, a text of this size has three bytes more.
        for (bytes, fits) in [((16 << 10) - 3, "true"), ((16 << 10) - 2, "false")] {
            assert_eq!(ask(&socket, &format!("attach-bytes {bytes}")).await, fits);
        }
        for (bytes, fits) in [(2 << 10, "[true, true]"), ((2 << 10) + 1, "[false, false]")] {
            assert_eq!(ask(&socket, &format!("auto-bytes {bytes}")).await, fits);
        }
        let many = stub.fetch("http://do/many").await.unwrap().into_body().text().await.unwrap();
        assert_eq!(many, "32767, then overloaded");
        assert_eq!(ask(&socket, "still here").await, "still here");
    });
}

#[test]
fn a_socket_whose_object_can_not_be_made_again_is_lost() {
    run(async {
        let (_server, _client, stub) = object("poisoned", hibernating()).await;
        let (socket, other) = (open(&stub, "").await, open(&stub, "").await);
        assert_eq!(ask(&socket, "put poison").await, "stored poison");
        has_left("poisoned", 1).await;
        socket.send("wake").await.unwrap();
        for lost in [&socket, &other] {
            assert_eq!(lost.receive().await.unwrap_err().code, 1006);
        }
        assert!(stub.broken().await.message.contains("poisoned"));
    });
}

#[test]
fn a_message_for_which_there_is_no_room_in_memory_waits_until_there_is() {
    run(async {
        let limits =
            Limits { objects_max: 1, evict_after: Duration::from_millis(200), ..hibernating() };
        let (_server, client, stub) = object("waits", limits).await;
        let socket = open(&stub, "").await;
        has_left("waits", 1).await;
        // Another object takes the only place, for a while.
        let other = client.namespace(SOCKETS).get_by_name("in its place");
        other.fetch("http://do/open").await.unwrap();
        assert_eq!(stub.fetch("http://do/open").await.unwrap_err().kind, Kind::Overloaded);
        assert_eq!(ask(&socket, "late but there").await, "late but there");
    });
}

#[test]
fn no_event_of_a_socket_enters_a_critical_section() {
    run(async {
        let (_server, _client, stub) = object("section", Limits::default()).await;
        let (socket, other) = (open(&stub, "").await, open(&stub, "").await);
        assert_eq!(ask(&other, "ready").await, "ready");
        for _ in 0..10 {
            socket.send("section").await.unwrap();
            other.send("behind").await.unwrap();
            assert_eq!(hear(&socket).await, "section over");
            let heard = [hear(&other).await, hear(&other).await];
            // It may have come before the section began; the object sees to it that it did not within.
            assert!(heard.contains(&"behind".to_owned()), "{heard:?}");
        }
    });
}

#[test]
fn an_automatic_answer_does_not_overtake_what_the_object_said_before() {
    run(async {
        let store = Memory::held();
        let (_server, address) = start(1, Limits::default(), Some(store.clone())).await;
        let client = Client::connect(&address).await.unwrap();
        let namespace = client.namespace(SOCKETS);
        let stub = namespace.get(namespace.new_unique_id().await.unwrap());
        stub.fetch("http://do/auto").await.unwrap();
        let socket = open(&stub, "").await;
        socket.send("put one").await.unwrap();
        socket.send("ping").await.unwrap();
        while store.waiting() == 0 {
            tokio::task::yield_now().await;
        }
        store.commit(1);
        assert_eq!(hear(&socket).await, "stored one");
        assert_eq!(hear(&socket).await, "pong");
    });
}

#[test]
fn a_caller_that_breaks_the_rules_of_the_contract_ends_its_own_socket_alone() {
    run(async {
        let (_server, _client, stub) = object("rules", Limits::default()).await;
        let witness = open(&stub, "witness").await;
        let raw = stub.cast::<wire::stub::Client>();
        let dial = async || {
            let mut call = raw.fetch_request();
            call.get().set_url("http://do/accept?tags=");
            let mut upgrade = call.get().init_headers(1).get(0);
            upgrade.set_name("upgrade");
            upgrade.set_value(b"websocket");
            let heard = Heard::default();
            call.get().set_web_socket(stubborn::capability(heard.clone()));
            let answer = call.send().promise.await.unwrap();
            let wire::outcome::Response(Ok(response)) = answer.get().unwrap().which().unwrap()
            else {
                panic!("the object refuses")
            };
            (response.get_web_socket().unwrap(), heard)
        };
        // Codes that are never on the wire are refused, and change nothing.
        let (peer, heard) = dial().await;
        for code in [0, 999, 1004, 1006, 1015, 5000] {
            let mut close = peer.close_request();
            close.get().set_code(code);
            assert!(close.send().promise.await.is_err(), "{code}");
        }
        // Parts without end are stopped where a message would be too large.
        let part = vec![b'x'; 1 << 20];
        let mut parts = 0;
        loop {
            let mut call = peer.send_part_request();
            call.get().set_bytes(&part);
            match call.send().await {
                Ok(()) => parts += 1,
                Err(_) => break,
            }
        }
        assert!((32..36).contains(&parts), "{parts}");
        assert!(hear(&witness).await.starts_with("error"));
        heard.closed(1009).await;
        // A text in parts whose bytes are no text.
        let (peer, heard) = dial().await;
        let mut call = peer.send_part_request();
        call.get().set_bytes(&[0xff]);
        call.send().await.unwrap();
        let mut call = peer.send_text_request();
        call.get().set_text("x");
        let _ = call.send().await;
        heard.closed(1007).await;
        // After its close, a caller can send nothing.
        let (peer, heard) = dial().await;
        let mut close = peer.close_request();
        close.get().set_code(1000);
        close.send().promise.await.unwrap();
        heard.closed(1000).await;
        let close = peer.close_request().send().promise.await;
        assert!(close.is_err());
        assert!(hear(&witness).await.starts_with("error"));
        assert_eq!(hear(&witness).await, "closed 1000  true");
        assert_eq!(ask(&witness, "count").await, "1");
    });
}

#[test]
fn an_end_may_change_threads_and_keeps_its_connection_open() {
    run(async {
        let (_server, address) = start(2, Limits::default(), None).await;
        let client = stubborn_client::send::Client::connect(&address).await.unwrap();
        let stub = client.namespace(SOCKETS).get_by_name("threads");
        let (response, socket) = stub.web_socket("http://do/accept?tags=x").await.unwrap();
        assert_eq!(response.status(), 101);
        drop((client, stub));
        let speaking = tokio::spawn(async move {
            for n in 0..100 {
                assert_eq!(ask(&socket, &n.to_string()).await, n.to_string());
            }
            socket.close(4000, "done").unwrap();
            socket.receive().await.unwrap_err().code
        });
        assert_eq!(speaking.await.unwrap(), 4000);
    });
}
