//! A control for the tests of order: what they demand is not what capnp-rpc's own clients give.
//!
//! The same calls, a part of them cancelled, go to a server that capnp-rpc's `new_client` makes, pipelined on
//! an answer that comes late. If no disorder were seen there, the tests of order would see nothing.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use capnp_rpc::rpc_twoparty_capnp::Side;
use capnp_rpc::{RpcSystem, twoparty};
use futures::AsyncReadExt;
use futures::channel::oneshot;
use stubborn::demo_capnp::{listener, probe};
use stubborn::stubborn_capnp::stub;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::compat::TokioAsyncReadCompatExt;

use crate::support::network::{Network, Weather};
use crate::support::objects::Listener;
use crate::support::{Random, run};

/// Answers `echo` with a listener of its own, once it may.
struct Late {
    may: Cell<Option<oneshot::Receiver<()>>>,
    heard: Rc<RefCell<Vec<u64>>>,
}

impl stub::Server for Late {}

impl probe::Server for Late {
    /// Its answer says that everything before it has come.
    async fn log(
        self: Rc<Self>,
        _: probe::LogParams,
        _: probe::LogResults,
    ) -> Result<(), capnp::Error> {
        Ok(())
    }

    async fn echo(
        self: Rc<Self>,
        _: probe::EchoParams,
        mut results: probe::EchoResults,
    ) -> Result<(), capnp::Error> {
        let may = self.may.take().expect("it is asked once");
        may.await.expect("the caller stays");
        let heard = self.heard.clone();
        results.get().set_listener(capnp_rpc::new_client(Listener { heard }));
        Ok(())
    }
}

async fn serve(listening: TcpListener, late: Late) {
    let (stream, _) = listening.accept().await.unwrap();
    let server: probe::Client = capnp_rpc::new_client(late);
    system(stream, Side::Server, Some(server.client)).await.unwrap();
}

fn system(
    stream: TcpStream,
    side: Side,
    bootstrap: Option<capnp::capability::Client>,
) -> RpcSystem<Side> {
    stream.set_nodelay(true).unwrap();
    let (reader, writer) = stream.compat().split();
    let network = twoparty::VatNetwork::new(reader, writer, side, Default::default());
    RpcSystem::new(Box::new(network), bootstrap)
}

/// Returns what arrived of 1000 calls, a fifth of which were cancelled at once.
async fn arrived(seed: u64) -> Vec<u64> {
    let listening = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listening.local_addr().unwrap().to_string();
    let heard = Rc::new(RefCell::new(Vec::new()));
    let (answer, may) = oneshot::channel();
    let late = Late { may: Cell::new(Some(may)), heard: heard.clone() };
    tokio::task::spawn_local(serve(listening, late));
    let network = Network::to(&address, Weather::Gusty(seed)).await;
    let stream = TcpStream::connect(network.address()).await.unwrap();
    let mut system = system(stream, Side::Client, None);
    let client: probe::Client = system.bootstrap(Side::Server);
    tokio::task::spawn_local(system);
    let pipelined = client.echo_request().send().pipeline.get_listener();
    let mut random = Random::seeded(seed);
    let mut pending = Vec::new();
    let mut answer = Some(answer);
    for n in 0..1000 {
        let call = call(&pipelined, n);
        if !random.chance(20) {
            pending.push(call);
        }
        if n % 16 == 0 {
            tokio::task::yield_now().await;
        }
        // Half of the calls wait at the server when the answer comes.
        if n == 500
            && let Some(answer) = answer.take()
        {
            client.log_request().send().promise.await.unwrap();
            answer.send(()).unwrap();
        }
    }
    for call in pending {
        call.await.unwrap();
    }
    heard.take()
}

fn call(
    listener: &listener::Client,
    n: u64,
) -> capnp::capability::Promise<
    capnp::capability::Response<listener::heard_results::Owned>,
    capnp::Error,
> {
    let mut call = listener.heard_request();
    call.get().set_n(n);
    call.send().promise
}

#[test]
fn disorder_where_the_library_alone_makes_the_stub_is_seen() {
    let disorders = (1..=20).filter(|seed| !run(arrived(*seed)).is_sorted()).count();
    println!("{disorders} of 20 runs were out of order");
    assert!(disorders > 0, "none of 20 runs was out of order: what would these tests notice?");
}
