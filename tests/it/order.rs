//! Calls made on one stub are delivered in the order in which they were made.
//!
//! Each case runs over real TCP through a network that delays and re-chunks at random, many times, each
//! time from another seed. A failure prints the case and the seed.

use stubborn::demo_capnp::probe;
use stubborn::runtime::Placement;
use stubborn::{Client, Limits, Namespace, Stub};

use crate::support::network::{Network, Weather};
use crate::support::server::{self, PLAIN, TYPED};
use crate::support::{Random, run};

/// Runs of each case. The nightly script asks for more.
fn runs() -> u64 {
    std::env::var("STUBBORN_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(20)
}

/// Calls of each run.
fn calls() -> u64 {
    std::env::var("STUBBORN_CALLS").ok().and_then(|calls| calls.parse().ok()).unwrap_or(10_000)
}

#[derive(Clone, Copy)]
struct Case {
    namespace: &'static str,
    /// Begins the object's name: `slow` ones take 200 ms to construct.
    object: &'static str,
    /// Which of two threads the object lives on; the connection is on thread 0.
    shard: usize,
    path: &'static str,
    /// The share of calls that are typed, in percent.
    typed: u64,
    /// The share of calls that the caller cancels at once, in percent.
    cancelled: u64,
    /// Whether the answers are awaited in reverse.
    reverse: bool,
    /// Whether some calls carry bodies of up to 1 MiB.
    large: bool,
    /// Whether the stub is known to be settled before the first call.
    settled: bool,
}

const BASE: Case = Case {
    namespace: PLAIN,
    object: "quick",
    shard: 0,
    path: "note",
    typed: 0,
    cancelled: 0,
    reverse: false,
    large: false,
    settled: false,
};

/// Finds a name whose object lives on `shard` of two.
async fn name_on(namespace: &Namespace, prefix: &str, shard: usize) -> String {
    for n in 0.. {
        let name = format!("{prefix}-{n}");
        let id = namespace.id_from_name(&name).await.unwrap();
        if Placement::new(2).shard(&id) == shard {
            return name;
        }
    }
    unreachable!("ids are spread evenly")
}

type Pending = futures::future::LocalBoxFuture<'static, ()>;

/// Makes call number `n`; the returned future is its answer.
fn call(stub: &Stub, n: u64, case: &Case, random: &mut Random) -> Pending {
    // One call in 200 is large, the others small: the mean stays bounded.
    let size = match case.large && random.chance(1) && random.chance(50) {
        true => random.below(1 << 20) as usize,
        false => random.below(200) as usize,
    };
    if random.chance(case.typed) {
        let typed: probe::Client = stub.cast();
        let mut request = typed.log_request();
        request.get().set_n(n);
        request.get().set_payload(&vec![7; size.min(64 << 10)]);
        let promise = request.send().promise;
        return Box::pin(async move { drop(promise.await.unwrap()) });
    }
    let url =
        format!("http://do/{}?n={n}&then={}", case.path, ["", "yield", "sleep"][(n % 3) as usize]);
    let request = http::Request::post(url).body(vec![7u8; size]).unwrap();
    let answer = stub.fetch(request);
    Box::pin(async move { assert_eq!(answer.await.unwrap().status(), 200) })
}

async fn run_once(case: &Case, seed: u64) {
    let mut random = Random::seeded(seed);
    let (server, address) = server::start(2, Limits::default()).await;
    let network = Network::to(&address, Weather::Gusty(seed)).await;
    let finder = Client::connect(&address).await.unwrap();
    let name = name_on(&finder.namespace(case.namespace), case.object, case.shard).await;
    // Connections alternate between the two threads: the third is on thread 0 again.
    let _spare = Client::connect(&address).await.unwrap();
    let client = Client::connect(network.address()).await.unwrap();
    let stub = client.namespace(case.namespace).get_by_name(&name);
    if case.settled {
        stub.fetch("http://do/whoami").await.unwrap();
    }
    let mut expected = Vec::new();
    let mut pending = Vec::new();
    for n in 0..calls() {
        let answer = call(&stub, n, case, &mut random);
        if random.chance(case.cancelled) {
            continue;
        }
        expected.push(n);
        pending.push(answer);
        // Bodies queue in this process: let them leave now and then.
        if n % 64 == 63 {
            tokio::task::yield_now().await;
        }
        if pending.len() >= 4096 && !case.reverse {
            for answer in pending.drain(..) {
                answer.await;
            }
        }
    }
    if case.reverse {
        pending.reverse();
    }
    for answer in pending {
        answer.await;
    }
    let log = stub.fetch("http://do/log").await.unwrap().into_body().text().await.unwrap();
    let arrived: Vec<u64> = log.split_whitespace().map(|n| n.parse().unwrap()).collect();
    assert!(arrived.is_sorted(), "seed {seed}: out of order: {:?}", first_disorder(&arrived));
    let arrived: std::collections::HashSet<u64> = arrived.into_iter().collect();
    let lost: Vec<_> = expected.iter().filter(|n| !arrived.contains(n)).take(5).collect();
    assert!(lost.is_empty(), "seed {seed}: lost {lost:?}");
    drop(server);
}

fn first_disorder(arrived: &[u64]) -> Option<&[u64]> {
    arrived.windows(4).find(|window| !window.is_sorted())
}

fn check(case: Case) {
    for seed in 1..=runs() {
        run(run_once(&case, seed));
    }
}

#[test]
fn fetches_on_a_settled_stub_arrive_in_order() {
    check(Case { settled: true, ..BASE });
}

#[test]
fn fetches_pipelined_on_a_new_stub_arrive_in_order() {
    check(BASE);
}

#[test]
fn fetches_awaited_in_reverse_arrive_in_order() {
    check(Case { reverse: true, settled: true, ..BASE });
}

#[test]
fn fetches_of_which_a_fifth_is_cancelled_arrive_in_order() {
    check(Case { cancelled: 20, ..BASE });
}

#[test]
fn fetches_to_a_cold_object_with_a_slow_constructor_arrive_in_order() {
    check(Case { object: "slow", cancelled: 20, ..BASE });
}

#[test]
fn fetches_of_all_sizes_arrive_in_order() {
    check(Case { large: true, cancelled: 20, ..BASE });
}

#[test]
fn fetches_to_handlers_that_take_a_fair_lock_first_arrive_in_order() {
    check(Case { path: "lock", cancelled: 20, ..BASE });
}

#[test]
fn fetches_to_an_object_on_another_thread_arrive_in_order() {
    check(Case { shard: 1, object: "slow", cancelled: 20, reverse: true, ..BASE });
}

#[test]
fn fetches_and_typed_calls_on_one_stub_keep_one_order() {
    check(Case { namespace: TYPED, typed: 50, large: true, ..BASE });
}

#[test]
fn mixed_calls_with_cancellations_to_a_cold_object_keep_one_order() {
    check(Case {
        namespace: TYPED,
        object: "slow",
        typed: 50,
        cancelled: 20,
        reverse: true,
        ..BASE
    });
}

#[test]
fn mixed_calls_with_cancellations_to_another_thread_keep_one_order() {
    check(Case { namespace: TYPED, object: "slow", shard: 1, typed: 50, cancelled: 20, ..BASE });
}

/// The caller passes a reference of its own, which comes back: calls made before and after it is known to
/// be the caller's own must not overtake each other (an embargo).
async fn echoed(shard: usize, cancelled: u64, reverse: bool, seed: u64) {
    let (server, address) = server::start(2, Limits::default()).await;
    let network = Network::to(&address, Weather::Gusty(seed)).await;
    let finder = Client::connect(&address).await.unwrap();
    let name = name_on(&finder.namespace(TYPED), "quick", shard).await;
    let _spare = Client::connect(&address).await.unwrap();
    let client = Client::connect(network.address()).await.unwrap();
    let typed: probe::Client = client.namespace(TYPED).get_by_name(&name).cast();
    let (own, heard) = server::listener();
    let mut request = typed.echo_request();
    request.get().set_listener(own);
    let echoed = request.send();
    let back = echoed.pipeline.get_listener();
    let mut random = Random::seeded(seed);
    let mut promise = Some(echoed.promise);
    let mut pending = Vec::new();
    for n in 0..1000 {
        let mut call = back.heard_request();
        call.get().set_n(n);
        let answer = call.send().promise;
        if !random.chance(cancelled) {
            pending.push(answer);
        }
        // Half-way, the reference settles while calls are under way.
        if n == 300 + random.below(200)
            && let Some(promise) = promise.take()
        {
            promise.await.unwrap();
        }
        if n % 16 == 0 {
            tokio::task::yield_now().await;
        }
    }
    if reverse {
        pending.reverse();
    }
    for answer in pending {
        answer.await.unwrap();
    }
    let heard = heard.borrow();
    assert!(heard.is_sorted(), "seed {seed}: out of order: {:?}", first_disorder(&heard));
    drop(server);
}

#[test]
fn calls_on_an_echoed_reference_of_the_callers_own_arrive_in_order() {
    for seed in 1..=runs() {
        run(echoed(0, 0, false, seed));
    }
}

#[test]
fn calls_on_an_echoed_reference_awaited_in_reverse_arrive_in_order() {
    for seed in 1..=runs() {
        run(echoed(0, 20, true, seed));
    }
}

#[test]
fn calls_on_a_reference_echoed_through_another_thread_arrive_in_order() {
    for seed in 1..=runs() {
        run(echoed(1, 20, true, seed));
    }
}

#[test]
fn calls_of_an_object_on_a_callers_reference_arrive_in_order() {
    run(async {
        let (_server, client) = server::connected(2).await;
        for n in 0..4 {
            let typed: probe::Client =
                client.namespace(TYPED).get_by_name(&format!("quick-{n}")).cast();
            let (own, heard) = server::listener();
            let mut request = typed.notify_request();
            request.get().set_listener(own);
            request.get().set_count(500);
            request.send().promise.await.unwrap();
            assert_eq!(*heard.borrow(), (0..500).collect::<Vec<_>>());
        }
    });
}

#[test]
fn calls_from_object_to_object_arrive_in_order() {
    run(async {
        let (_server, client) = server::connected(2).await;
        for target in [PLAIN, TYPED] {
            for n in 0..runs() {
                let stub = client.namespace(PLAIN).get_by_name(&format!("caller-{n}"));
                let url = format!("http://do/call?namespace={target}&name=slow-{n}&n=500");
                let log = stub.fetch(url).await.unwrap().into_body().text().await.unwrap();
                let arrived: Vec<u64> =
                    log.split_whitespace().map(|n| n.parse().unwrap()).collect();
                assert!(arrived.is_sorted(), "{target} {n}: {:?}", first_disorder(&arrived));
                assert!(arrived.len() >= 400, "{target} {n}: {}", arrived.len());
            }
        }
    });
}

#[test]
fn a_streaming_method_holds_back_the_calls_behind_it_on_its_stub_alone() {
    run(async {
        let (_server, client) = server::connected(1).await;
        let stub = client.namespace(TYPED).get_by_name("quick");
        let typed: probe::Client = stub.cast();
        for n in 0..300 {
            if n % 3 == 0 {
                let answer = stub.fetch(format!("http://do/note?n={n}"));
                drop(answer.await.unwrap());
            } else {
                let mut request = typed.note_request();
                request.get().set_n(n);
                request.send().await.unwrap();
            }
        }
        let log = stub.fetch("http://do/log").await.unwrap().into_body().text().await.unwrap();
        let arrived: Vec<u64> = log.split_whitespace().map(|n| n.parse().unwrap()).collect();
        assert_eq!(arrived, (0..300).collect::<Vec<_>>());
    });
}
