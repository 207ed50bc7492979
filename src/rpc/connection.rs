//! One connection: a vat of its own on the thread of a shard.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use capnp_rpc::RpcSystem;
use capnp_rpc::rpc_twoparty_capnp::Side;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use super::bootstrap::Bootstrap;
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::listen::{Door, Place, Stream};
use crate::runtime::Shard;
use crate::vat::{Account, Network, Traffic};

/// The door of connections that speak the contract. The calls of all of them count in one account.
#[derive(Debug)]
pub struct RpcDoor {
    account: Arc<Account>,
}

impl RpcDoor {
    /// Makes the door.
    pub fn new(account: Arc<Account>) -> Self {
        Self { account }
    }
}

impl Door for RpcDoor {
    fn serve(&self, shard: &Rc<Shard>, stream: Stream, place: Place) {
        match stream {
            Stream::Tcp(stream) => {
                let (reader, writer) = stream.into_split();
                serve(shard, reader, writer, self.account.clone(), place);
            }
            Stream::Unix(stream) => {
                let (reader, writer) = stream.into_split();
                serve(shard, reader, writer, self.account.clone(), place);
            }
        }
    }
}

/// Serves the contract over a stream until it closes, or the server says farewell.
fn serve<R, W>(shard: &Rc<Shard>, reader: R, writer: W, account: Arc<Account>, place: Place)
where
    R: AsyncRead + Unpin + 'static,
    W: AsyncWrite + Unpin + 'static,
{
    let limits = shard.limits().clone();
    let stubs = Tickets::new(limits.connection_stubs_max);
    let (system, traffic) = system(shard, reader, writer, limits, Some(account), Some(stubs));
    tokio::task::spawn_local(async move {
        tokio::select! {
            outcome = system => if let Err(error) = outcome {
                tracing::debug!(%error, "a connection ended");
            },
            () = answered(&place.farewell, &traffic) => tracing::debug!("a connection was let go"),
        }
    });
}

/// Waits for the farewell, then until every call is answered and every answer is written.
async fn answered(farewell: &CancellationToken, traffic: &Traffic) {
    farewell.cancelled().await;
    while traffic.calls_in_flight() > 0 || traffic.output_bytes() > 0 {
        tokio::time::sleep(LOOK_AGAIN_AFTER).await;
    }
}

/// How often a connection that is to end is looked at.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(1);

/// Serves the contract to another shard of this node.
pub fn serve_shard<R, W>(shard: &Rc<Shard>, reader: R, writer: W, limits: Limits)
where
    R: AsyncRead + Unpin + 'static,
    W: AsyncWrite + Unpin + 'static,
{
    let (system, _) = system(shard, reader, writer, Rc::new(limits), None, None);
    tokio::task::spawn_local(async move { system.await.ok() });
}

fn system<R, W>(
    shard: &Rc<Shard>,
    reader: R,
    writer: W,
    limits: Rc<Limits>,
    account: Option<Arc<Account>>,
    stubs: Option<Tickets>,
) -> (RpcSystem<Side>, Rc<Traffic>)
where
    R: AsyncRead + Unpin + 'static,
    W: AsyncWrite + Unpin + 'static,
{
    let (network, traffic) = Network::new(reader, writer, Side::Server, limits, account);
    let bootstrap = Bootstrap::client(shard.clone(), stubs);
    (RpcSystem::new(Box::new(network), Some(bootstrap.client)), traffic)
}

/// Counts the stubs that one connection holds.
#[derive(Clone)]
pub struct Tickets {
    given: Rc<Cell<usize>>,
    max: usize,
}

impl Tickets {
    fn new(max: usize) -> Self {
        Self { given: Rc::default(), max }
    }

    /// Counts one stub more, until the ticket is dropped.
    ///
    /// # Errors
    /// *overloaded* where the connection holds too many.
    pub fn take(&self) -> Result<Ticket> {
        if self.given.get() >= self.max {
            let max = self.max;
            return Err(Error::overloaded(format!(
                "this connection holds {max} stubs, the most it may"
            )));
        }
        self.given.set(self.given.get() + 1);
        Ok(Ticket(self.given.clone()))
    }
}

/// One stub that a connection holds.
pub struct Ticket(Rc<Cell<usize>>);

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}
