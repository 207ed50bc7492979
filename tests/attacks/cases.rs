//! The attacks. Each leaves its connections open, so that what they cost can be seen.

use std::future::Future;
use std::pin::Pin;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::process::TYPED_TARGET;
use crate::support::raw::{self, On, Raw, THE_NAMESPACE, THE_STUB};
use crate::support::target::TARGET;
use crate::support::{Random, noise};

/// One attack.
pub(crate) struct Attack {
    pub(crate) name: &'static str,
    /// How many MiB more the server may need.
    pub(crate) mib_max: u32,
    pub(crate) run: fn(String, u32) -> Running,
}

type Running = Pin<Box<dyn Future<Output = Held>>>;

/// What keeps an attack up while it is looked at.
#[derive(Default)]
pub(crate) struct Held {
    _streams: Vec<TcpStream>,
    pub(crate) connections: u32,
}

impl Held {
    fn all(peers: impl IntoIterator<Item = Raw>) -> Self {
        Self { _streams: peers.into_iter().map(Raw::into_stream).collect(), connections: 0 }
    }
}

macro_rules! attacks {
    ($($name:literal, $mib_max:literal, $run:ident;)*) => {
        pub(crate) const CASES: &[Attack] = &[
            $(Attack { name: $name, mib_max: $mib_max, run: |address, scale| Box::pin($run(address, scale)) },)*
        ];
    };
}

attacks! {
    "64 MiB claimed, 50 connections", 16, claim_64;
    "4 MiB claimed, 50 connections", 16, claim_4;
    "50 k calls never answered", 128, never_answered;
    "calls never answered, 8 connections", 700, many_never_answered;
    "replies never read", 32, never_read;
    "held answers released, never read", 420, released;
    "100 k stubs never released", 160, never_released;
    "20 k answers never finished", 32, never_finished;
    "100 k namespaces never released", 160, namespaces;
    "100 k bootstraps", 64, bootstraps;
    "100 k results sent to yourself", 32, yourself;
    "names of 3 MiB, 50 of them", 32, names;
    "1,000 uploads nobody reads", 64, uploads;
    "1,000 downloads nobody reads", 64, downloads;
    "a sink flooded", 160, flood;
    "listings of long names", 700, listings;
    "10 k watchers of one object", 128, watchers;
    "random bytes", 32, random_bytes;
    "random messages", 64, random_messages;
    "bombs and deep nesting", 128, bombs;
    "5,000 connections that come and go", 64, storm;
    "9,500 idle connections", 512, idle;
}

/// Says all of `bytes`, and passes over what is answered, so that nobody waits for the other.
async fn converse(peer: Raw, bytes: Vec<u8>, answers: u32) -> TcpStream {
    let mut stream = peer.into_stream();
    let (mut reader, mut writer) = stream.split();
    let speak = async { writer.write_all(&bytes).await.unwrap() };
    let listen = async {
        let mut left = answers;
        while left > 0
            && let Some(received) = raw::receive(&mut reader).await
        {
            left -= u32::from(raw::answer(&received).is_some());
        }
    };
    futures::join!(speak, listen);
    stream
}

fn held(stream: TcpStream) -> Held {
    Held { _streams: vec![stream], connections: 0 }
}

async fn claim(address: &str, bytes: u32) -> Held {
    let mut peers = Vec::new();
    for _ in 0..50 {
        let mut peer = Raw::connect(address).await;
        peer.say(&[0, bytes / 8].map(u32::to_le_bytes).concat()).await;
        peers.push(peer);
    }
    Held::all(peers)
}

async fn claim_64(address: String, _: u32) -> Held {
    claim(&address, 64 << 20).await
}

async fn claim_4(address: String, _: u32) -> Held {
    claim(&address, (4 << 20) - 4096).await
}

async fn forever(address: &str, calls: u32) -> TcpStream {
    let peer = Raw::greeted(address, TARGET, "victim").await;
    let bytes =
        (0..calls).flat_map(|id| raw::fetch(id, THE_STUB, "http://do/forever", &[7; 20])).collect();
    // The default of `connection_calls_max` are let in, and answered never.
    converse(peer, bytes, calls.saturating_sub(16_384)).await
}

async fn never_answered(address: String, scale: u32) -> Held {
    held(forever(&address, 50_000 * scale).await)
}

async fn many_never_answered(address: String, scale: u32) -> Held {
    let mut streams = Vec::new();
    for _ in 0..8 * scale {
        streams.push(forever(&address, 16_384).await);
    }
    Held { _streams: streams, connections: 0 }
}

async fn never_read(address: String, scale: u32) -> Held {
    let peer = Raw::greeted(&address, TARGET, "victim").await;
    let mut stream = peer.into_stream();
    let calls: Vec<u8> = (0..20_000 * scale)
        .flat_map(|id| raw::fetch(id, THE_STUB, "http://do/echo", &[7; 2000]))
        .collect();
    // It is heard no more after some of them: what follows would wait for ever.
    let mut other = Raw::greeted(&address, TARGET, "victim").await;
    let served = async {
        for id in 0..2000 {
            other.say(&raw::fetch(id, THE_STUB, "http://do/hi", &[])).await;
            other.answer_to(id).await.unwrap();
        }
    };
    tokio::select! { biased;
        _ = stream.write_all(&calls) => {}
        () = served => {}
    }
    held(stream)
}

async fn released(address: String, scale: u32) -> Held {
    let mut peer = Raw::greeted(&address, TARGET, "victim").await;
    let hold: Vec<u8> = (0..2000 * scale)
        .flat_map(|id| raw::fetch(id, THE_STUB, "http://do/hold?bytes=200000", &[]))
        .collect();
    peer.say(&hold).await;
    let mut other = Raw::greeted(&address, TARGET, "victim").await;
    peer.say(&raw::fetch(900_000, THE_STUB, "http://do/release", &[])).await;
    for id in 0..200 {
        other.say(&raw::fetch(id, THE_STUB, "http://do/hi", &[])).await;
        other.answer_to(id).await.unwrap();
    }
    Held::all([peer, other])
}

async fn never_released(address: String, scale: u32) -> Held {
    let peer = Raw::greeted(&address, TARGET, "victim").await;
    let count = 100_000 * scale;
    let bytes = (0..count).flat_map(|id| raw::by_name(id, &format!("name-{id}"))).collect();
    held(converse(peer, bytes, count).await)
}

async fn never_finished(address: String, scale: u32) -> Held {
    let peer = Raw::greeted(&address, TARGET, "victim").await;
    let count = 20_000 * scale;
    let bytes = (0..count)
        .flat_map(|id| raw::fetch(id, THE_STUB, "http://do/echo", &[7; 20_000]))
        .collect();
    held(converse(peer, bytes, count).await)
}

async fn namespaces(address: String, scale: u32) -> Held {
    let peer = Raw::greeted(&address, TARGET, "victim").await;
    let count = 100_000 * scale;
    let bytes = (0..count).flat_map(|id| raw::namespace_of(id, TARGET)).collect();
    held(converse(peer, bytes, count).await)
}

async fn bootstraps(address: String, scale: u32) -> Held {
    let peer = Raw::greeted(&address, TARGET, "victim").await;
    let count = 100_000 * scale;
    let bytes = (0..count)
        .flat_map(|id| raw::encoded(|message| message.init_bootstrap().set_question_id(id)))
        .collect();
    held(converse(peer, bytes, count).await)
}

async fn yourself(address: String, scale: u32) -> Held {
    let peer = Raw::greeted(&address, TARGET, "victim").await;
    let count = 100_000 * scale;
    let bytes = (0..count)
        .flat_map(|id| {
            let call = raw::call_with(id, THE_STUB, raw::FETCH, |mut call| {
                call.reborrow().init_send_results_to().set_yourself(());
                call.init_params();
            });
            [call, raw::finish(id)].concat()
        })
        .collect();
    held(converse(peer, bytes, count).await)
}

async fn names(address: String, scale: u32) -> Held {
    let mut peer = Raw::greeted(&address, TARGET, "victim").await;
    for id in 0..50 * scale {
        let name = format!("{id}-{}", "x".repeat(3 << 20));
        peer.say(
            &[raw::by_name(id, &name), raw::fetch(10_000 + id, On::Field(id), "http://do/hi", &[])]
                .concat(),
        )
        .await;
        peer.answer_to(10_000 + id).await.unwrap();
    }
    Held::all([peer])
}

async fn uploads(address: String, scale: u32) -> Held {
    let mut peer = Raw::greeted(&address, TARGET, "victim").await;
    for id in 0..1000 * scale {
        // The object keeps the body, and the server asks for none of it.
        peer.say(&raw::upload(id, THE_STUB, "http://do/keep", id, None)).await;
        peer.answer_to(id).await.unwrap();
    }
    Held::all([peer])
}

async fn downloads(address: String, scale: u32) -> Held {
    let mut peer = Raw::greeted(&address, TARGET, "victim").await;
    for id in 0..1000 * scale {
        let url = "http://do/stream?bytes=1000000000&chunk=60000";
        peer.say(&raw::fetch(id, THE_STUB, url, &[])).await;
        noise::exported(&mut peer, id).await.unwrap();
    }
    Held::all([peer])
}

async fn flood(address: String, scale: u32) -> Held {
    let mut peer = Raw::greeted(&address, TARGET, "victim").await;
    peer.say(&raw::upload(1, THE_STUB, "http://do/want", 7, None)).await;
    let sink = peer.asked().await.unwrap().brought.unwrap();
    let count = 2000 * scale;
    let piece = vec![7; 64 << 10];
    let mut stream = peer.into_stream();
    let (mut reader, mut writer) = stream.split();
    let speak = async {
        for id in 100..100 + count {
            writer.write_all(&raw::write(id, sink, &piece)).await.unwrap();
        }
    };
    let listen = async {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(1..) = reader.read(&mut buffer).await {}
    };
    tokio::select! { () = speak => {}, () = listen => {} }
    held(stream)
}

async fn listings(address: String, scale: u32) -> Held {
    let mut peer = Raw::greeted(&address, TARGET, "victim").await;
    let long = "x".repeat(1000);
    for id in (0..3000).map(|n| 3 * n) {
        let fetch = raw::fetch(id + 1, On::Field(id), "http://do/hi", &[]);
        peer.say(&[raw::by_name(id, &format!("{long}-{id}")), fetch].concat()).await;
        peer.answer_to(id + 1).await.unwrap();
        peer.say(&[raw::finish(id), raw::finish(id + 1)].concat()).await;
    }
    let lists: Vec<u8> = (0..200 * scale)
        .flat_map(|id| {
            raw::call(100_000 + id, THE_NAMESPACE, raw::LIST, |params| {
                use stubborn::stubborn_capnp::namespace::list_params;
                params.get_content().init_as::<list_params::Builder<'_>>().set_limit(10_000);
            })
        })
        .collect();
    peer.say(&lists).await;
    peer.receive().await.unwrap();
    Held::all([peer])
}

async fn watchers(address: String, _: u32) -> Held {
    let peer = Raw::greeted(&address, TARGET, "victim").await;
    let hi = raw::fetch(0, THE_STUB, "http://do/hi", &[]);
    let watch = |id| {
        raw::call(id, THE_STUB, raw::BROKEN, |params| {
            params
                .get_content()
                .init_as::<stubborn::stubborn_capnp::stub::broken_params::Builder<'_>>();
        })
    };
    let after = raw::fetch(20_000, THE_STUB, "http://do/hi", &[]);
    let bytes = [hi, (1..10_000).flat_map(watch).collect(), after].concat();
    held(converse(peer, bytes, 2).await)
}

async fn random_bytes(address: String, scale: u32) -> Held {
    for seed in 0..500 * scale {
        let mut random = Random::seeded(seed.into());
        let mut peer = Raw::connect(&address).await;
        let bytes: Vec<u8> = (0..4000).map(|_| random.below(256) as u8 & 0x83).collect();
        peer.try_say(&bytes).await;
    }
    Held::default()
}

async fn random_messages(address: String, scale: u32) -> Held {
    for seed in 0..100 * scale {
        let mut random = Random::seeded(seed.into());
        let namespace = [TARGET, TYPED_TARGET][random.below(2) as usize];
        let peer = Raw::greeted(&address, namespace, "victim").await;
        let bytes: Vec<u8> = (0..1000).flat_map(|_| noise::message(&mut random)).collect();
        let (mut reader, mut writer) = peer.into_stream().into_split();
        let speak = async {
            let spoken = writer.write_all(&bytes).await;
            drop(writer);
            spoken.ok()
        };
        let listen = async { while raw::receive(&mut reader).await.is_some() {} };
        futures::join!(speak, listen);
    }
    Held::default()
}

async fn bombs(address: String, scale: u32) -> Held {
    let mut peers = Vec::new();
    for namespace in [TARGET, TYPED_TARGET] {
        for name in ["a", "b", "c"] {
            let mut peer = Raw::greeted(&address, namespace, name).await;
            for id in 0..20 * scale {
                let method = raw::Method([raw::FETCH.0, 0xdead][id as usize % 2], 0);
                let message = match id % 4 {
                    0 | 1 => noise::bomb(id, THE_STUB, method, 100_000),
                    _ => noise::nested(id, THE_STUB, method, 5000),
                };
                peer.say(&message).await;
                peer.answer_to(id).await.unwrap();
            }
            peers.push(peer);
        }
    }
    Held::all(peers)
}

async fn storm(address: String, scale: u32) -> Held {
    for n in 0..5000 * scale {
        let mut peer = Raw::connect(&address).await;
        peer.say(&raw::hello(TARGET, "victim")).await;
        // Faster than they are accepted, the system itself would hold them back by a second.
        if n % 64 == 0 {
            peer.receive().await.unwrap();
        }
    }
    Held::default()
}

async fn idle(address: String, _: u32) -> Held {
    let mut peers = Vec::new();
    for _ in 0..9500 {
        let mut peer = Raw::connect(&address).await;
        peer.say(&raw::hello(TARGET, "victim")).await;
        if peers.len() % 64 == 0 {
            peer.receive().await.unwrap();
        }
        peers.push(peer);
    }
    let connections = peers.len() as u32;
    Held { connections, ..Held::all(peers) }
}
