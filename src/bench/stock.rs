//! The floor: an echo on capnp-rpc's own network, wired as its documentation says, and nothing else.
//!
//! Its messages are the contract's with only the body in them, and its bodies are not copied out.

use std::rc::Rc;

use bytes::Bytes;
use capnp_rpc::rpc_twoparty_capnp::Side;
use capnp_rpc::{RpcSystem, twoparty};
use futures::FutureExt;
use futures::future::LocalBoxFuture;
use tokio::net::{TcpListener, TcpStream};

use super::subject::{Line, Subject, announce, check_echo, parent_gone};
use crate::error::{Error, Result};
use crate::stubborn_capnp::{outcome, stub};

/// An echo on capnp-rpc alone.
pub struct Stock;

impl Subject for Stock {
    fn name(&self) -> &'static str {
        "stock"
    }

    fn serve(&self) -> LocalBoxFuture<'_, Result<()>> {
        async {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            announce(listener.local_addr()?)?;
            tokio::select! { outcome = accept(listener) => outcome, () = parent_gone() => Ok(()) }
        }
        .boxed_local()
    }

    fn connect<'a>(&'a self, address: &'a str) -> LocalBoxFuture<'a, Result<Rc<dyn Line>>> {
        async move {
            let stream = TcpStream::connect(address).await?;
            let mut system = RpcSystem::new(network(stream, Side::Client)?, None);
            let echo: stub::Client = system.bootstrap(Side::Server);
            let disconnector = Some(system.get_disconnector());
            tokio::task::spawn_local(async move { system.await.ok() });
            Ok(Rc::new(Calls { echo, disconnector }) as Rc<dyn Line>)
        }
        .boxed_local()
    }
}

async fn accept(listener: TcpListener) -> Result<()> {
    let echo: stub::Client = capnp_rpc::new_client(Echo);
    loop {
        let network = network(listener.accept().await?.0, Side::Server)?;
        let system = RpcSystem::new(network, Some(echo.clone().client));
        tokio::task::spawn_local(async move { system.await.ok() });
    }
}

type Reader = futures::io::BufReader<futures::io::ReadHalf<Stream>>;
type Stream = tokio_util::compat::Compat<TcpStream>;

fn network(stream: TcpStream, side: Side) -> Result<Box<twoparty::VatNetwork<Reader>>> {
    stream.set_nodelay(true)?;
    let stream = tokio_util::compat::TokioAsyncReadCompatExt::compat(stream);
    let (reader, writer) = futures::AsyncReadExt::split(stream);
    Ok(Box::new(twoparty::VatNetwork::new(
        futures::io::BufReader::new(reader),
        futures::io::BufWriter::new(writer),
        side,
        capnp::message::ReaderOptions::new(),
    )))
}

struct Calls {
    echo: stub::Client,
    /// Present until dropped.
    disconnector: Option<capnp_rpc::Disconnector<Side>>,
}

impl Line for Calls {
    fn call(&self, payload: &Bytes) -> LocalBoxFuture<'static, Result<()>> {
        let mut call = self.echo.fetch_request();
        call.get().init_body().set_prefix(payload);
        let (promise, payload) = (call.send().promise, payload.clone());
        async move {
            let answer = promise.await?;
            match answer.get()?.which()? {
                outcome::Response(response) => {
                    check_echo(response?.get_body()?.get_prefix()?, &payload)
                }
                outcome::Error(_) => Err(Error::failed("the echo failed")),
            }
        }
        .boxed_local()
    }
}

impl Drop for Calls {
    fn drop(&mut self) {
        if let Some(disconnector) = self.disconnector.take() {
            tokio::task::spawn_local(async move { disconnector.await.ok() });
        }
    }
}

struct Echo;

impl stub::Server for Echo {
    async fn fetch(
        self: Rc<Self>,
        params: stub::FetchParams,
        mut results: stub::FetchResults,
    ) -> Result<(), capnp::Error> {
        let prefix = params.get()?.get_body()?.get_prefix()?;
        results.get().init_response().init_body().set_prefix(prefix);
        Ok(())
    }
}
