//! What a fetch carries, and what it does not disturb.

use std::time::Duration;

use stubborn::{Kind, Limits};

use crate::support::run;
use crate::support::server::{self, PLAIN};

async fn text(answer: stubborn::stub::Fetch) -> String {
    answer.await.unwrap().into_body().text().await.unwrap()
}

async fn activation(stub: &stubborn::Stub) -> u64 {
    let answer = text(stub.fetch("http://do/whoami")).await;
    answer.rsplit_once(' ').unwrap().1.parse().unwrap()
}

/// Waits until no object is in memory.
async fn evicted(client: &stubborn::Client) {
    while !client.namespace(PLAIN).list(1, None).await.unwrap().objects.is_empty() {
        tokio::task::yield_now().await;
    }
}

/// An object of which nothing is stored: it is listed while it is in memory, and only then.
async fn nameless(client: &stubborn::Client) -> stubborn::Stub {
    let namespace = client.namespace(PLAIN);
    namespace.get(namespace.new_unique_id().await.unwrap())
}

/// Who the object says it is: its id and its name.
async fn whoami(stub: &stubborn::Stub) -> String {
    let answer = text(stub.fetch("http://do/whoami")).await;
    answer.rsplit_once(' ').unwrap().0.to_owned()
}

#[test]
fn bodies_of_every_size_come_back_whole() {
    run(async {
        let (_server, client) = server::connected(2).await;
        for name in ["a", "b", "c"] {
            let stub = client.namespace(PLAIN).get_by_name(name);
            for size in [0usize, 1, 1000, 262_143, 262_144, 262_145, 1 << 20, 5 << 20] {
                let body: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
                let request = http::Request::post("http://do/echo").body(body.clone()).unwrap();
                let back = stub.fetch(request).await.unwrap().into_body().bytes().await.unwrap();
                assert_eq!(back.len(), size, "{name}");
                assert_eq!(back, body, "{name}");
            }
        }
    });
}

#[test]
fn a_body_cut_short_is_an_error_for_its_reader() {
    run(async {
        let (_server, client) = server::connected(2).await;
        for name in ["a", "b", "c"] {
            let stub = client.namespace(PLAIN).get_by_name(name);
            let response =
                stub.fetch("http://do/stream?bytes=3000000&chunk=10000&cut=1000000").await.unwrap();
            let error = response.into_body().bytes().await.unwrap_err();
            assert_eq!(error.kind, Kind::Truncated, "{error:?}");
        }
    });
}

#[test]
fn a_streamed_body_does_not_hold_back_the_calls_behind_it() {
    run(async {
        let (_server, client) = server::connected(2).await;
        for name in ["a", "b", "c"] {
            let stub = client.namespace(PLAIN).get_by_name(name);
            let mut slow = stub
                .fetch("http://do/stream?bytes=50000000&chunk=10000")
                .await
                .unwrap()
                .into_body();
            slow.chunk().await.unwrap().unwrap();
            assert_eq!(text(stub.fetch("http://do/note?n=1")).await, "noted");
            let left = slow.bytes().await.unwrap().len();
            assert!(left > 49_000_000, "{left}");
        }
    });
}

#[test]
fn dropping_a_body_stops_its_producer() {
    run(async {
        let limits = Limits { evict_after: Duration::from_millis(50), ..Limits::default() };
        let (_server, address) = server::start(2, limits).await;
        let client = stubborn::Client::connect(&address).await.unwrap();
        for _ in 0..3 {
            let stub = nameless(&client).await;
            let response =
                stub.fetch("http://do/stream?bytes=5000000000&chunk=10000").await.unwrap();
            drop(response);
            // An object with a producer at work is never evicted; this one is.
            evicted(&client).await;
        }
    });
}

#[test]
fn a_handler_runs_on_without_its_caller_and_can_tell() {
    run(async {
        let (_server, client) = server::connected(2).await;
        for name in ["a", "b", "c"] {
            let stub = client.namespace(PLAIN).get_by_name(name);
            let answer = stub.fetch("http://do/signal");
            assert_eq!(text(stub.fetch("http://do/gone")).await, "0");
            drop(answer);
            while text(stub.fetch("http://do/gone")).await != "1" {
                tokio::task::yield_now().await;
            }
        }
    });
}

#[test]
fn an_object_knows_its_id_and_its_name() {
    run(async {
        let (_server, client) = server::connected(2).await;
        let namespace = client.namespace(PLAIN);
        let id = namespace.id_from_name("lobby").await.unwrap();
        let stub = namespace.get(id);
        assert_eq!(whoami(&stub).await, format!("{id} "));
        let named = namespace.get_by_name("lobby");
        assert_eq!(whoami(&named).await, format!("{id} lobby"));
        let long = "x".repeat(1025);
        let long_id = namespace.id_from_name(&long).await.unwrap();
        assert_eq!(whoami(&namespace.get_by_name(&long)).await, format!("{long_id} "));
        assert_eq!(namespace.id_from_string(&id.to_hex().to_uppercase()).await.unwrap(), id);
    });
}

#[test]
fn what_is_not_an_object_of_the_namespace_is_refused_by_kind() {
    run(async {
        let (_server, client) = server::connected(2).await;
        let namespace = client.namespace(PLAIN);
        let foreign = client.namespace("TYPED").id_from_name("x").await.unwrap();
        let error = namespace.get(foreign).fetch("http://do/").await.unwrap_err();
        assert_eq!(error.kind, Kind::WrongNamespace, "{error:?}");
        assert!(!error.remote && !error.delivered);
        assert_eq!(namespace.id_from_string("zz").await.unwrap_err().kind, Kind::InvalidId);
        let error = client.namespace("NOPE").get_by_name("x").fetch("http://do/").await;
        let error = error.unwrap_err();
        assert_eq!(error.kind, Kind::NoSuchNamespace);
        assert!(error.message.contains("NOPE") && error.message.contains(PLAIN), "{error}");
        let id = namespace.id_from_name("nobody").await.unwrap();
        let existing = namespace.get_existing(id);
        let error = existing.fetch("http://do/whoami").await.unwrap_err();
        assert_eq!(error.kind, Kind::NoSuchObject);
        whoami(&namespace.get(id)).await;
        assert_eq!(whoami(&existing).await, format!("{id} "));
    });
}

#[test]
fn a_request_that_cannot_be_sent_is_refused_before_it_is_sent() {
    run(async {
        let (_server, client) = server::connected(1).await;
        let stub = client.namespace(PLAIN).get_by_name("x");
        for url in ["/relative", "ftp://do/", "http://", "http://do/a b", ""] {
            let error = stub.fetch(url).await.unwrap_err();
            assert_eq!(error.kind, Kind::InvalidRequest, "{url}: {error:?}");
        }
        let long = format!("http://do/{}", "x".repeat(20_000));
        assert_eq!(stub.fetch(long).await.unwrap_err().kind, Kind::InvalidRequest);
        assert_eq!(text(stub.fetch("http://do/whoami")).await.split(' ').nth(1), Some("x"));
    });
}

#[test]
fn headers_arrive_as_sent_repeated_and_in_order() {
    run(async {
        let (_server, client) = server::connected(2).await;
        let stub = client.namespace(PLAIN).get_by_name("x");
        let error = stub.fetch("http://do/throw?message=boom").await.unwrap_err();
        assert_eq!((error.kind, error.remote, error.delivered), (Kind::Failed, true, true));
        assert!(!error.reset && !error.retryable, "{error:?}");
        assert_eq!(error.message, "thrown: boom");
        let response = stub.fetch("http://do/nothing").await.unwrap();
        assert_eq!(response.status(), 404);
        assert!(response.headers().contains_key("content-type"), "{response:?}");
    });
}

#[test]
fn an_error_of_another_object_passes_on_with_its_flags() {
    run(async {
        let (_server, client) = server::connected(2).await;
        let stub = client.namespace(PLAIN).get_by_name("caller");
        for target in ["near", "far", "other"] {
            let url = format!("http://do/call?namespace={PLAIN}&name={target}&n=0");
            let error = stub.fetch(url).await.unwrap_err();
            assert!(error.remote && error.delivered && !error.reset, "{error:?}");
            assert_eq!(error.message, "thrown: far");
        }
        assert!(stub.broken_reason().is_none());
    });
}

#[test]
fn an_idle_object_is_evicted_and_its_stub_starts_it_again() {
    run(async {
        let limits = Limits { evict_after: Duration::from_millis(40), ..Limits::default() };
        let (_server, address) = server::start(2, limits).await;
        let client = stubborn::Client::connect(&address).await.unwrap();
        for _ in 0..3 {
            let stub = nameless(&client).await;
            let first = activation(&stub).await;
            evicted(&client).await;
            assert!(activation(&stub).await > first);
        }
    });
}

#[test]
fn listing_pages_through_all_objects_in_order_of_id() {
    run(async {
        let (_server, client) = server::connected(2).await;
        let namespace = client.namespace(PLAIN);
        let calls = (0..250).map(|n| {
            let stub = namespace.get_by_name(&format!("object-{n}"));
            text(stub.fetch("http://do/whoami"))
        });
        futures::future::join_all(calls).await;
        let (mut seen, mut cursor) = (Vec::new(), None);
        loop {
            let page = namespace.list(100, cursor.as_deref()).await.unwrap();
            assert!(page.objects.len() <= 100);
            seen.extend(page.objects);
            cursor = page.cursor;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(seen.len(), 250);
        assert!(seen.is_sorted_by(|a, b| a.id < b.id));
        assert!(seen.iter().all(|object| object.name.is_some() && !object.has_stored_data));
        assert!(namespace.list(0, None).await.is_err());
        assert!(namespace.list(10, Some("zz")).await.is_err());
    });
}

#[test]
fn redirects_are_followed_to_the_same_object_where_the_caller_says_so() {
    run(async {
        let (_server, client) = server::connected(2).await;
        let stub = client.namespace(PLAIN).get_by_name("x");
        let post = |status: u16, n: u32| {
            let url = format!("http://elsewhere.example/redirect?status={status}&n={n}");
            http::Request::post(url).body("again").unwrap()
        };
        let follow = stubborn::redirect::Mode::Follow;
        for (status, method) in [(303, "GET"), (302, "GET"), (307, "POST"), (308, "POST")] {
            let response = stub.fetch_with(post(status, 3), follow).await.unwrap();
            assert_eq!(response.into_body().text().await.unwrap(), method, "{status}");
        }
        assert_eq!(
            stub.fetch(post(307, 1)).await.unwrap().status(),
            307,
            "by default it is returned"
        );
        let error = stub.fetch_with(post(307, 21), follow).await.unwrap_err();
        assert!(error.message.contains("20"), "{error:?}");
    });
}
