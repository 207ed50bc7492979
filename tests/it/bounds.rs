//! What is too long, too much or cut short is refused where it is, and costs nobody else anything.

use std::num::NonZeroUsize;

use stubborn::demo_capnp::probe;
use stubborn::runtime::Placement;
use stubborn::{Class, Client, Kind, Limits, Server};

use crate::support::raw::{self, Answer, On, Raw, THE_STUB};
use crate::support::run;
use crate::support::target::{Aim, TARGET};

const TYPED_TARGET: &str = "TYPED_TARGET";

async fn start(limits: Limits) -> (Server, String) {
    let server = Server::builder()
        .namespace::<Aim>(TARGET)
        .class(TYPED_TARGET, Class::typed::<Aim, probe::Client>(), TYPED_TARGET)
        .threads(NonZeroUsize::new(2).unwrap())
        .limits(limits)
        .listen("127.0.0.1:0")
        .unwrap()
        .start()
        .await
        .unwrap();
    let address = server.addresses()[0].to_string();
    (server, address)
}

async fn name_on(client: &Client, namespace: &str, shard: usize) -> String {
    for n in 0.. {
        let name = format!("name-{n}");
        let id = client.namespace(namespace).id_from_name(&name).await.unwrap();
        if Placement::new(2).shard(&id) == shard {
            return name;
        }
    }
    unreachable!("ids are spread evenly")
}

#[test]
fn a_body_of_which_a_piece_was_shed_is_never_taken_for_whole() {
    run(async {
        let limits = Limits { connection_calls_max: 3, ..Limits::default() };
        let (_server, address) = start(limits).await;
        let mut peer = Raw::greeted(&address, TARGET, "a").await;
        peer.say(&raw::upload(1, THE_STUB, "http://do/count", 7, None)).await;
        let asked = peer.asked().await.unwrap();
        let sink = asked.brought.unwrap();
        // Every place is taken when the second piece comes, and free again when the third does.
        peer.say(&raw::write(2, sink, b"one")).await;
        peer.answer_to(2).await.unwrap();
        let forever = |id| raw::fetch(id, THE_STUB, "http://do/forever", &[]);
        peer.say(&[forever(3), forever(4), raw::write(5, sink, b"two")].concat()).await;
        let shed = peer.answer_to(5).await.unwrap();
        assert!(matches!(shed, Answer::Exception(..)), "{shed:?}");
        peer.say(&[raw::finish(3), raw::finish(4)].concat()).await;
        peer.say(&[raw::write(6, sink, b"three"), raw::end(7, sink)].concat()).await;
        peer.say(&raw::returns(asked.id)).await;
        let answer = peer.answer_to(1).await.unwrap();
        assert!(matches!(answer, Answer::Error(Kind::Truncated, _)), "{answer:?}");
    });
}

#[test]
fn an_error_of_any_length_reaches_its_caller_and_leaves_the_connection() {
    run(async {
        let (_server, address) = start(Limits::default()).await;
        for namespace in [TARGET, TYPED_TARGET] {
            for name in ["a", "b", "c"] {
                let client = Client::connect(&address).await.unwrap();
                let stub = client.namespace(namespace).get_by_name(name);
                let error = stub.fetch("http://do/shout?bytes=9000000").await.unwrap_err();
                assert!(error.remote, "{error:.100?}");
                stub.fetch("http://do/hi").await.unwrap();
            }
        }
    });
}

#[test]
fn an_error_too_long_to_cross_threads_does_not_part_them_for_ever() {
    run(async {
        let (_server, address) = start(Limits::default()).await;
        let client = Client::connect(&address).await.unwrap();
        let near = name_on(&client, TARGET, 0).await;
        let far = name_on(&client, TYPED_TARGET, 1).await;
        let call = |path| {
            let url = format!("http://do/call?namespace={TYPED_TARGET}&name={far}&path={path}");
            client.namespace(TARGET).get_by_name(&near).fetch(url)
        };
        assert_eq!(call("hi").await.unwrap().status(), 200);
        drop(call("shout?bytes=9000000").await);
        let client = Client::connect(&address).await.unwrap();
        let url = format!("http://do/call?namespace={TYPED_TARGET}&name={far}&path=hi");
        let again = client.namespace(TARGET).get_by_name(&near).fetch(url).await;
        assert_eq!(again.unwrap().status(), 200);
    });
}

#[test]
fn a_page_of_a_listing_fits_into_a_message() {
    run(async {
        let (_server, address) = start(Limits::default()).await;
        let client = Client::connect(&address).await.unwrap();
        let namespace = client.namespace(TARGET);
        for n in 0..4500 {
            let stub = namespace.get_by_name(&format!("{}-{n}", "x".repeat(1000)));
            stub.fetch("http://do/hi").await.unwrap();
        }
        let (mut listed, mut cursor) = (0, None);
        loop {
            let page = namespace.list(10_000, cursor.as_deref()).await.unwrap();
            listed += page.objects.len();
            cursor = page.cursor;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(listed, 4500);
    });
}

#[test]
fn a_name_has_a_longest_length() {
    run(async {
        let (_server, address) = start(Limits::default()).await;
        let mut peer = Raw::greeted(&address, TARGET, "a").await;
        peer.say(&raw::by_name(1, &"x".repeat(3 << 20))).await;
        peer.say(&raw::fetch(2, On::Field(1), "http://do/hi", &[])).await;
        let answer = peer.answer_to(2).await.unwrap();
        assert!(matches!(answer, Answer::Error(Kind::InvalidRequest, _)), "{answer:?}");
    });
}
