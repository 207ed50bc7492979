//! Peers that mean harm: they get a clear error or lose their connection, and nobody else notices.
//!
//! **Invariant:** after each attack another client is served in full.

use std::num::NonZeroUsize;
use std::time::Duration;

use capnp_rpc::rpc_capnp::exception::Type;
use futures::FutureExt;
use stubborn::demo_capnp::probe;
use stubborn::runtime::Placement;
use stubborn::{Class, Client, Kind, Limits, Server};

use crate::support::raw::{self, Answer, Flags, On, Raw, THE_STUB};
use crate::support::target::{Aim, TARGET};
use crate::support::{Random, noise, run};

/// The namespace of the same objects with a typed interface, which are reached another way.
const TYPED_TARGET: &str = "TYPED_TARGET";
const WAYS: [(&str, usize); 4] = [(TARGET, 0), (TARGET, 1), (TYPED_TARGET, 0), (TYPED_TARGET, 1)];

async fn start(limits: Limits) -> (Server, String) {
    let builder = Server::builder()
        .namespace::<Aim>(TARGET)
        .class(TYPED_TARGET, Class::typed::<Aim, probe::Client>(), TYPED_TARGET)
        .threads(NonZeroUsize::new(2).unwrap())
        .limits(limits)
        .listen("127.0.0.1:0")
        .unwrap();
    let server = builder.start().await.unwrap();
    let address = server.addresses()[0].to_string();
    (server, address)
}

/// Runs `attack` against a server within `limits`, with a client beside it that must not notice.
fn attacked(limits: Limits, attack: impl AsyncFnOnce(&str)) {
    run(async {
        let (_server, address) = start(limits).await;
        let before = Client::connect(&address).await.unwrap();
        served(&before).await;
        attack(&address).await;
        served(&before).await;
        served(&connect(&address).await).await;
    });
}

/// Connects as soon as there is a place.
async fn connect(address: &str) -> Client {
    loop {
        let client = Client::connect(address).await.unwrap();
        match client.namespaces().await {
            Ok(_) => return client,
            Err(_) => tokio::task::yield_now().await,
        }
    }
}

/// Calls objects of every way, with small and with streamed bodies.
async fn served(client: &Client) {
    for namespace in [TARGET, TYPED_TARGET] {
        for name in ["a", "b", "c"] {
            let stub = client.namespace(namespace).get_by_name(name);
            for size in [0, 100, 600_000] {
                let body: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
                let request = http::Request::post("http://do/echo").body(body.clone()).unwrap();
                let back = stub.fetch(request).await.unwrap().into_body().bytes().await.unwrap();
                assert_eq!(back, body, "{namespace} {name}");
            }
        }
    }
}

/// Connects by a peer of which thread 0 holds the connection, to an object on `shard`.
async fn greeted(address: &str, namespace: &str, shard: usize) -> Raw {
    let finder = Client::connect(address).await.unwrap();
    for n in 0.. {
        let name = format!("aim-{n}");
        let id = finder.namespace(namespace).id_from_name(&name).await.unwrap();
        if Placement::new(2).shard(&id) == shard {
            // Connections alternate between the threads: `before` took the first, the finder the second.
            return Raw::greeted(address, namespace, &name).await;
        }
    }
    unreachable!("ids are spread evenly")
}

fn short() -> Limits {
    let soon = Duration::from_millis(200);
    Limits { handshake_timeout: soon, message_timeout: soon, ..Limits::default() }
}

fn overloaded(answer: &Answer) -> bool {
    match answer {
        Answer::Exception(kind) => *kind == Type::Overloaded,
        Answer::Error(kind, flags) => {
            assert!(!flags.delivered, "what was shed surely did not run");
            *kind == Kind::Overloaded && flags.overloaded
        }
        _ => false,
    }
}

#[test]
fn a_size_that_is_claimed_and_not_sent_disturbs_nobody() {
    attacked(short(), async |address| {
        for bytes in [64_u32 << 20, 4 << 20] {
            let header = [0, bytes / 8 - (bytes == 4 << 20) as u32].map(u32::to_le_bytes).concat();
            let mut peers = Vec::new();
            for _ in 0..50 {
                let mut peer = Raw::connect(address).await;
                peer.say(&header).await;
                peers.push(peer);
            }
            for mut peer in peers {
                peer.closed().await;
            }
        }
    });
}

#[test]
fn calls_beyond_the_limit_are_overloaded_and_room_that_is_made_is_used() {
    const MAX: u32 = 100;
    let limits = Limits { connection_calls_max: MAX as usize, ..Limits::default() };
    attacked(limits, async |address| {
        for (namespace, shard) in WAYS {
            let mut peer = greeted(address, namespace, shard).await;
            let calls = 0..5 * MAX;
            let forever = |id| raw::fetch(id, THE_STUB, "http://do/forever", &[]);
            peer.say(&calls.clone().flat_map(forever).collect::<Vec<_>>()).await;
            for id in calls.skip(MAX as usize) {
                let answer = peer.answer_to(id).await.unwrap();
                assert!(overloaded(&answer), "{id}: {answer:?}");
                peer.say(&raw::finish(id)).await;
            }
            // One that is cancelled makes room for another.
            peer.say(&raw::finish(0)).await;
            let left = peer.answer_to(0).await;
            assert_eq!(left, Some(Answer::Results), "{namespace} {shard}");
            peer.say(&raw::fetch(20 * MAX, THE_STUB, "http://do/hi", &[])).await;
            let answer = peer.answer_to(20 * MAX).await.unwrap();
            assert!(matches!(answer, Answer::Response(200, _)), "{namespace} {shard}: {answer:?}");
        }
    });
}

#[test]
fn a_peer_that_reads_no_reply_is_heard_no_more_and_then_loses_its_connection() {
    let limits = Limits { peer_timeout: Duration::from_millis(300), ..Limits::default() };
    attacked(limits, async |address| {
        let mut peer = Raw::greeted(address, TARGET, "a").await;
        let calls = |n: u32| -> Vec<u8> {
            let ids = n * 100..(n + 1) * 100;
            ids.flat_map(|id| raw::fetch(id, THE_STUB, "http://do/echo", &[7; 4000])).collect()
        };
        let mut said = 0;
        for n in 0..1000 {
            let piece = calls(n);
            if !peer.try_say(&piece).await {
                break;
            }
            said += piece.len();
        }
        // 400 MB would be all: the buffers of both kernels and of the server are far less.
        assert!(said < 64 << 20, "{said} bytes were taken");
    });
}

#[test]
fn stubs_beyond_the_limit_fail_overloaded_until_others_are_released() {
    let limits = Limits { connection_stubs_max: 10, ..Limits::default() };
    attacked(limits, async |address| {
        for namespace in [TARGET, TYPED_TARGET] {
            // The hello takes two: its namespace counts too.
            let mut peer = Raw::greeted(address, namespace, "a").await;
            for id in 0..20 {
                peer.say(&raw::by_name(id, &format!("name-{id}"))).await;
                peer.answer_to(id).await.unwrap();
                peer.say(&raw::fetch(100 + id, On::Field(id), "http://do/hi", &[])).await;
                let answer = peer.answer_to(100 + id).await.unwrap();
                assert_eq!(overloaded(&answer), id >= 8, "{id}: {answer:?}");
            }
            peer.say(&raw::finish(3)).await;
            peer.say(&raw::by_name(30, "another")).await;
            peer.say(&raw::fetch(31, On::Field(30), "http://do/hi", &[])).await;
            let answer = peer.answer_to(31).await.unwrap();
            // A stub of an object on another thread is let go of there first.
            assert!(matches!(answer, Answer::Response(200, _)), "{namespace}: {answer:?}");
        }
    });
}

#[test]
fn results_can_only_be_sent_to_the_caller() {
    attacked(Limits::default(), async |address| {
        let mut peer = Raw::greeted(address, TARGET, "a").await;
        for id in 0..1000 {
            let message = raw::call_with(id, THE_STUB, raw::FETCH, |mut call| {
                call.reborrow().init_send_results_to().set_yourself(());
                call.init_params();
            });
            peer.say(&message).await;
            let answer = peer.answer_to(id).await.unwrap();
            let Answer::Exception(Type::Unimplemented) = answer else {
                panic!("{answer:?}");
            };
            peer.say(&raw::finish(id)).await;
        }
    });
}

#[test]
fn random_bytes_end_only_their_own_connection() {
    attacked(short(), async |address| {
        for seed in 0..200 {
            let mut random = Random::seeded(seed);
            let mut peer = Raw::connect(address).await;
            let bytes: Vec<u8> =
                (0..random.below(4000)).map(|_| random.below(256) as u8 & 0x83).collect();
            if peer.try_say(&bytes).await {
                peer.closed().await;
            }
        }
    });
}

#[test]
fn random_messages_end_at_most_their_own_connection() {
    attacked(short(), async |address| {
        for seed in 0..60 {
            let mut random = Random::seeded(seed);
            let namespace = [TARGET, TYPED_TARGET][random.below(2) as usize];
            let peer = Raw::greeted(address, namespace, "b").await;
            let bytes: Vec<u8> = (0..300).flat_map(|_| noise::message(&mut random)).collect();
            let (mut reader, mut writer) = peer.into_stream().into_split();
            let said = async {
                let said = tokio::io::AsyncWriteExt::write_all(&mut writer, &bytes).await;
                drop(writer);
                said
            };
            let heard = async { while raw::receive(&mut reader).await.is_some() {} };
            let _ = futures::join!(said, heard);
        }
    });
}

#[test]
fn a_message_that_does_not_end_ends_its_connection() {
    attacked(short(), async |address| {
        let whole = raw::fetch(1, THE_STUB, "http://do/echo", &[7; 20_000]);
        for part in [4, 8, 100, whole.len() - 1] {
            let mut peer = Raw::greeted(address, TARGET, "a").await;
            peer.say(&whole[..part]).await;
            peer.closed().await;
        }
        // A byte now and then does not put it off.
        let mut peer = Raw::greeted(address, TARGET, "a").await;
        let mut pace = tokio::time::interval(Duration::from_millis(5));
        for byte in whole.chunks(1) {
            pace.tick().await;
            if !peer.try_say(byte).await {
                return;
            }
        }
        panic!("the whole message was taken, byte by byte");
    });
}

#[test]
fn a_connection_without_a_first_message_is_closed() {
    attacked(short(), async |address| {
        let mut peers = Vec::new();
        for _ in 0..50 {
            peers.push(Raw::connect(address).await);
        }
        for mut peer in peers {
            peer.closed().await;
        }
    });
}

#[test]
fn a_message_too_large_ends_its_connection_and_says_so() {
    attacked(Limits::default(), async |address| {
        let mut peer = Raw::greeted(address, TARGET, "a").await;
        let message = raw::fetch(1, THE_STUB, "http://do/echo", &vec![7; 4 << 20]);
        peer.try_say(&message).await;
        let mut peer = Raw::greeted(address, TARGET, "a").await;
        // The beginning is enough, and leaves the server's last words unharmed by a reset.
        peer.say(&message[..4096]).await;
        let received = peer.receive().await.unwrap();
        let Ok(capnp_rpc::rpc_capnp::message::Abort(Ok(abort))) = raw::root(&received).which()
        else {
            panic!("{:?}", raw::root(&received));
        };
        let reason = abort.get_reason().unwrap().to_str().unwrap();
        assert!(reason.contains("exceeds the limit of 4194304 bytes"), "{reason}");
        peer.closed().await;
    });
}

#[test]
fn a_message_of_too_many_segments_ends_its_connection() {
    attacked(Limits::default(), async |address| {
        for count in [513_u32, 600, u32::MAX] {
            let mut peer = Raw::greeted(address, TARGET, "a").await;
            let mut table = (count.wrapping_sub(1)).to_le_bytes().to_vec();
            table.resize(4 + 4 * count.min(600) as usize, 0);
            peer.try_say(&table).await;
            peer.closed().await;
        }
    });
}

#[test]
fn params_nested_too_deep_fail_their_call_alone() {
    attacked(Limits::default(), async |address| {
        for (namespace, shard) in WAYS {
            let mut peer = greeted(address, namespace, shard).await;
            for (id, interface) in [(1, raw::FETCH.0), (2, 0xdead)] {
                peer.say(&noise::nested(id, THE_STUB, raw::Method(interface, 0), 5000)).await;
                let answer = peer.answer_to(id).await.unwrap();
                assert!(!matches!(answer, Answer::Response(..)), "{namespace} {shard}: {answer:?}");
            }
            peer.say(&raw::fetch(3, THE_STUB, "http://do/hi", &[])).await;
            let answer = peer.answer_to(3).await.unwrap();
            assert!(matches!(answer, Answer::Response(200, _)), "{namespace} {shard}: {answer:?}");
        }
    });
}

#[test]
fn params_that_point_many_times_to_one_place_fail_their_call_alone() {
    attacked(Limits::default(), async |address| {
        for (namespace, shard) in WAYS {
            let mut peer = greeted(address, namespace, shard).await;
            for (id, interface) in [(1, raw::FETCH.0), (2, 0xdead)] {
                // Copied, they would be 6.5 GB.
                peer.say(&noise::bomb(id, THE_STUB, raw::Method(interface, 0), 100_000)).await;
                let answer = peer.answer_to(id).await.unwrap();
                assert!(!matches!(answer, Answer::Response(..)), "{namespace} {shard}: {answer:?}");
            }
            peer.say(&raw::fetch(3, THE_STUB, "http://do/hi", &[])).await;
            let answer = peer.answer_to(3).await.unwrap();
            assert!(matches!(answer, Answer::Response(200, _)), "{namespace} {shard}: {answer:?}");
        }
    });
}

/// A request by its method, its url and its headers.
type Written = (&'static [u8], Vec<u8>, Vec<(&'static str, Vec<u8>)>);

fn bad_requests() -> Vec<(&'static str, Written)> {
    let url = || b"http://do/hi".to_vec();
    let many = |count, size| (0..count).map(|_| ("x", vec![b'v'; size])).collect();
    vec![
        ("method with a space", (b"BAD METHOD", url(), vec![])),
        ("empty method", (b"", url(), vec![])),
        ("method that is no text", (b"\xff\xfe", url(), vec![])),
        ("method that asks for a proxy", (b"CONNECT", url(), vec![])),
        ("relative url", (b"GET", b"/hi".to_vec(), vec![])),
        ("empty url", (b"GET", vec![], vec![])),
        ("url of another scheme", (b"GET", b"ftp://do/".to_vec(), vec![])),
        ("url that is no text", (b"GET", b"http://do/\xff".to_vec(), vec![])),
        ("url with a line break", (b"GET", b"http://do/a\r\nb".to_vec(), vec![])),
        ("long url", (b"GET", [&url()[..], &[b'x'; 16 << 10]].concat(), vec![])),
        ("header name with a space", (b"GET", url(), vec![("a b", vec![])])),
        ("empty header name", (b"GET", url(), vec![("", vec![])])),
        ("header value with a line break", (b"GET", url(), vec![("a", b"b\r\nc".to_vec())])),
        ("header value with a zero", (b"GET", url(), vec![("a", vec![0])])),
        ("too many headers", (b"GET", url(), many(257, 1))),
        ("too many bytes of headers", (b"GET", url(), many(200, 400))),
    ]
}

#[test]
fn a_request_out_of_form_or_bounds_is_refused_before_its_object() {
    attacked(Limits::default(), async |address| {
        for (namespace, shard) in WAYS {
            let mut peer = greeted(address, namespace, shard).await;
            for (id, (what, (method, url, headers))) in (0..).zip(bad_requests()) {
                let message = raw::request(id, THE_STUB, |mut request| {
                    request.set_method(capnp::text::Reader(method));
                    request.set_url(capnp::text::Reader(&url));
                    let mut list = request.init_headers(headers.len() as u32);
                    for (index, (name, value)) in (0..).zip(&headers) {
                        let mut header = list.reborrow().get(index);
                        header.set_name(*name);
                        header.set_value(value);
                    }
                });
                peer.say(&message).await;
                let answer = peer.answer_to(id).await.unwrap();
                let refused = Flags { overloaded: false, delivered: false };
                let Answer::Error(Kind::InvalidRequest, flags) = answer else {
                    panic!("{what} {namespace} {shard}: {answer:?}");
                };
                assert_eq!(flags, refused, "{what}");
            }
        }
    });
}

#[test]
fn a_body_of_another_length_than_it_says_is_an_error() {
    attacked(Limits::default(), async |address| {
        for (namespace, shard) in WAYS {
            let mut peer = greeted(address, namespace, shard).await;
            for (id, (declared, kind)) in
                (0..).zip([(2, Kind::InvalidRequest), (10, Kind::Truncated)])
            {
                peer.say(&raw::upload(id, THE_STUB, "http://do/count", id, Some(declared))).await;
                let asked = peer.asked().await.unwrap();
                let sink = asked.brought.unwrap();
                peer.say(&[raw::write(100, sink, b"abcd"), raw::end(101, sink)].concat()).await;
                let answer = peer.answer_to(id).await.unwrap();
                assert!(
                    matches!(&answer, Answer::Error(as_said, _) if *as_said == kind),
                    "{answer:?}"
                );
                peer.say(&[raw::returns(asked.id), raw::finish(100), raw::finish(101)].concat())
                    .await;
            }
        }
    });
}

#[test]
fn an_inline_body_of_another_length_than_it_says_is_an_error() {
    attacked(Limits::default(), async |address| {
        for (namespace, shard) in WAYS {
            let mut peer = greeted(address, namespace, shard).await;
            for (id, (declared, kind)) in
                (0..).zip([(2, Kind::InvalidRequest), (10, Kind::Truncated)])
            {
                let message = raw::request(id, THE_STUB, |mut request| {
                    request.set_url("http://do/count");
                    let mut body = request.init_body();
                    body.set_prefix(b"abcd");
                    body.init_length().set_bytes(declared);
                });
                peer.say(&message).await;
                let answer = peer.answer_to(id).await.unwrap();
                assert!(
                    matches!(&answer, Answer::Error(as_said, _) if *as_said == kind),
                    "{answer:?}"
                );
            }
        }
    });
}

#[test]
fn a_body_that_ends_takes_nothing_more() {
    attacked(Limits::default(), async |address| {
        for (namespace, shard) in WAYS {
            let mut peer = greeted(address, namespace, shard).await;
            peer.say(&raw::upload(1, THE_STUB, "http://do/count", 7, None)).await;
            let asked = peer.asked().await.unwrap();
            assert_eq!(asked.of, 7);
            let sink = asked.brought.unwrap();
            peer.say(&[raw::write(2, sink, b"abcd"), raw::end(3, sink)].concat()).await;
            peer.say(&[raw::write(4, sink, b"x"), raw::end(5, sink)].concat()).await;
            let mut refused = 0;
            let mut body = Vec::new();
            while body.is_empty() || refused < 2 {
                match raw::answer(&peer.receive().await.unwrap()) {
                    Some((1, Answer::Response(200, read))) => body = read,
                    Some((4 | 5, answer)) => {
                        assert!(matches!(answer, Answer::Exception(..)), "{answer:?}");
                        refused += 1;
                    }
                    other => drop(other),
                }
            }
            assert_eq!(body, b"4", "{namespace} {shard}");
        }
    });
}

#[test]
fn a_body_whose_source_fails_or_vanishes_is_truncated() {
    attacked(Limits::default(), async |address| {
        for (namespace, shard) in WAYS {
            let mut peer = greeted(address, namespace, shard).await;
            peer.say(&raw::upload(1, THE_STUB, "http://do/count", 7, None)).await;
            let asked = peer.asked().await.unwrap();
            let sink = asked.brought.unwrap();
            peer.say(&[raw::write(2, sink, b"abcd"), raw::throws(asked.id, "no more")].concat())
                .await;
            let answer = peer.answer_to(1).await.unwrap();
            assert!(matches!(answer, Answer::Error(Kind::Truncated, _)), "{answer:?}");
            // It returns without having ended.
            peer.say(&raw::upload(11, THE_STUB, "http://do/count", 8, None)).await;
            let asked = peer.asked().await.unwrap();
            let sink = asked.brought.unwrap();
            peer.say(&[raw::write(12, sink, b"abcd"), raw::returns(asked.id)].concat()).await;
            let answer = peer.answer_to(11).await.unwrap();
            assert!(matches!(answer, Answer::Error(Kind::Truncated, _)), "{answer:?}");
        }
    });
}

#[test]
fn a_body_that_floods_is_refused_beyond_the_bytes_a_connection_may_queue() {
    let limits = Limits { connection_queued_bytes_max: 1 << 20, ..Limits::default() };
    attacked(limits, async |address| {
        for (namespace, shard) in WAYS {
            let mut peer = greeted(address, namespace, shard).await;
            peer.say(&raw::upload(1, THE_STUB, "http://do/want", 7, None)).await;
            let asked = peer.asked().await.unwrap();
            let sink = asked.brought.unwrap();
            let piece = vec![7; 64 << 10];
            let (mut refused, mut taken) = (0, 0);
            for id in 100..200 {
                peer.say(&raw::write(id, sink, &piece)).await;
            }
            // What is over the bound is answered at once; what is within waits for a reader.
            while refused < 60 {
                match raw::answer(&peer.receive().await.unwrap()) {
                    Some((100..200, answer)) if overloaded(&answer) => refused += 1,
                    Some((100..200, _)) => taken += 1,
                    _ => {}
                }
            }
            assert!(taken < 20, "{namespace} {shard}: {taken} were taken");
        }
    });
}

#[test]
fn a_sink_that_never_returns_is_sent_no_more_than_its_window() {
    let limits = Limits::default();
    let window = limits.stream_window_bytes;
    attacked(limits, async |address| {
        for (namespace, shard) in WAYS {
            let mut peer = greeted(address, namespace, shard).await;
            let url = "http://do/stream?bytes=100000000&chunk=50000";
            peer.say(&raw::fetch(1, THE_STUB, url, &[])).await;
            let Some(source) = noise::exported(&mut peer, 1).await else {
                panic!("{namespace} {shard}: no body came");
            };
            peer.say(&noise::pump_to(2, source, 9)).await;
            let (mut bytes, mut rounds) = (0, 0);
            for round in 0..50 {
                peer.say(&raw::fetch(100 + round, THE_STUB, "http://do/hi", &[])).await;
                loop {
                    let received = peer.receive().await.unwrap();
                    if raw::asked(&received).is_some_and(|asked| asked.of == 9) {
                        bytes += raw::root(&received).total_size().unwrap().word_count as usize * 8;
                    }
                    if raw::answer(&received).is_some_and(|(id, _)| id == 100 + round) {
                        rounds += 1;
                        break;
                    }
                }
            }
            assert_eq!(rounds, 50);
            assert!(bytes <= window + 2 * 51_000, "{namespace} {shard}: {bytes} bytes came");
        }
    });
}

#[test]
fn a_body_that_never_ends_holds_up_nobody() {
    attacked(Limits::default(), async |address| {
        let mut peers = Vec::new();
        for (namespace, shard) in WAYS {
            let mut peer = greeted(address, namespace, shard).await;
            for id in 0..100 {
                peer.say(&raw::upload(id, THE_STUB, "http://do/count", id, None)).await;
            }
            for _ in 0..100 {
                let sink = peer.asked().await.unwrap().brought.unwrap();
                peer.say(&raw::write(1000 + sink, sink, b"more")).await;
            }
            peer.say(&raw::fetch(500, THE_STUB, "http://do/hi", &[])).await;
            peer.answer_to(500).await.unwrap();
            peers.push(peer);
        }
        served(&connect(address).await).await;
    });
}

#[test]
fn connections_beyond_the_limit_are_closed_and_a_place_that_is_free_is_given() {
    let limits = Limits { connections_max: 5, ..Limits::default() };
    attacked(limits, async |address| {
        let mut peers = Vec::new();
        for _ in 0..4 {
            peers.push(Raw::greeted(address, TARGET, "a").await);
        }
        for _ in 0..20 {
            let mut peer = Raw::connect(address).await;
            peer.closed().await;
        }
        for peer in &mut peers {
            peer.say(&raw::fetch(1, THE_STUB, "http://do/hi", &[])).await;
            peer.answer_to(1).await.unwrap();
        }
    });
}

#[test]
fn connections_that_come_and_go_leave_nothing_behind() {
    let limits = Limits { connections_max: 200, ..short() };
    attacked(limits, async |address| {
        for round in 0..1000_u32 {
            let mut peer = Raw::connect(address).await;
            match round % 4 {
                0 => {}
                1 => peer.say(&[0; 5]).await,
                2 => peer.say(&raw::hello(TARGET, "a")).await,
                _ => {
                    let hello = raw::hello(TARGET, "a");
                    let forever = raw::fetch(1, THE_STUB, "http://do/forever", &[]);
                    peer.say(&[hello, forever].concat()).await;
                }
            }
        }
    });
}

/// What the object's queue may hold of: events, bytes, or time.
fn queue_limits() -> [Limits; 3] {
    let base = Limits { critical_section_timeout: Duration::from_secs(3600), ..Limits::default() };
    [
        Limits { object_queue_events_max: 10, ..base.clone() },
        Limits { object_queue_bytes_max: 10 * 2000, ..base.clone() },
        Limits { object_queue_age_max: Duration::from_millis(100), ..base },
    ]
}

#[test]
fn an_object_s_queue_is_bounded_and_what_is_too_much_surely_did_not_run() {
    use crate::support::server::{self, PLAIN, TYPED};
    for (case, limits) in queue_limits().into_iter().enumerate() {
        run(async {
            let (_server, address) = server::start(2, limits).await;
            let client = Client::connect(&address).await.unwrap();
            for namespace in [PLAIN, TYPED] {
                for name in ["a", "b", "c"] {
                    let stub = client.namespace(namespace).get_by_name(name);
                    let closed = stub.fetch("http://do/critical?ms=3000000");
                    let mut waiting = Vec::new();
                    for _ in 0..15 {
                        let request = http::Request::post("http://do/note?n=1").body(vec![7; 1400]);
                        waiting.push(stub.fetch(request.unwrap()));
                    }
                    let shed = match case {
                        2 => waiting.as_mut_slice(),
                        _ => &mut waiting[11..],
                    };
                    for call in shed {
                        let error = call.await.unwrap_err();
                        assert_eq!(error.kind, Kind::Overloaded, "{error:?}");
                        assert!(error.overloaded && !error.delivered && !error.remote, "{error:?}");
                    }
                    // The section itself may have been in line when these came.
                    let mut first = waiting.iter_mut().take(9);
                    assert!(case == 2 || first.all(|call| call.now_or_never().is_none()));
                    assert!(closed.now_or_never().is_none(), "the section goes on");
                }
            }
            client.namespace(PLAIN).get_by_name("another").fetch("http://do/whoami").await.unwrap();
        });
    }
}
