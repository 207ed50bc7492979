//! The subjects that are this program: an object that echoes, hosted and called through the public API.

use std::cell::Cell;
use std::num::NonZeroUsize;
use std::rc::Rc;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::LocalBoxFuture;

use super::subject::{Line, Subject, announce, check_echo, parent_gone};
use crate::error::{Error, Result};
use crate::id::NamespaceKey;
use crate::message::{Request, Response};
use crate::object::{DurableObject, Env, State};
use crate::runtime::Placement;
use crate::server::Server;
use crate::stub::{Client, Stub};

/// A server of one thread: objects live where their connections are.
pub struct SameShard;

/// A server of two threads, each of whose objects is called from a connection of the other thread.
///
/// A server gives its connections to its shards in turn, beginning with shard 0, and nobody else connects
/// to this one: connection number `n` is on shard `n % 2`. Where an object lives follows from its name.
#[derive(Default)]
pub struct OtherShard {
    connections: Cell<usize>,
}

const NAMESPACE: &str = "ECHO";
const SHARDS: usize = 2;

impl Subject for SameShard {
    fn name(&self) -> &'static str {
        "same-shard"
    }

    fn serve(&self) -> LocalBoxFuture<'_, Result<()>> {
        serve(self.threads()).boxed_local()
    }

    fn connect<'a>(&'a self, address: &'a str) -> LocalBoxFuture<'a, Result<Rc<dyn Line>>> {
        connect(address, "echo".to_owned()).boxed_local()
    }
}

impl Subject for OtherShard {
    fn name(&self) -> &'static str {
        "other-shard"
    }

    fn threads(&self) -> usize {
        SHARDS
    }

    fn serve(&self) -> LocalBoxFuture<'_, Result<()>> {
        serve(self.threads()).boxed_local()
    }

    fn connect<'a>(&'a self, address: &'a str) -> LocalBoxFuture<'a, Result<Rc<dyn Line>>> {
        let number = self.connections.get();
        self.connections.set(number + 1);
        connect(address, name_on((number + 1) % SHARDS)).boxed_local()
    }
}

/// Returns the name of an object that lives on `shard`.
fn name_on(shard: usize) -> String {
    // The ids of a namespace are derived from its name where nothing else is said.
    let (key, placement) = (NamespaceKey::new(NAMESPACE), Placement::new(SHARDS));
    let mut names = (0u64..).map(|number| format!("echo-{number}"));
    let name = names.find(|name| placement.shard(&key.id_from_name(name)) == shard);
    name.expect("ids are spread over all shards")
}

async fn serve(threads: usize) -> Result<()> {
    let threads = NonZeroUsize::new(threads).unwrap_or(NonZeroUsize::MIN);
    let builder = Server::builder().namespace::<Echo>(NAMESPACE).listen("127.0.0.1:0")?;
    let server = builder.threads(threads).start().await?;
    let address = server.addresses().first();
    announce(address.ok_or_else(|| Error::failed("the server listens nowhere"))?)?;
    parent_gone().await;
    server.stop().await;
    Ok(())
}

async fn connect(address: &str, object: String) -> Result<Rc<dyn Line>> {
    let stub = Client::connect(address).await?.namespace(NAMESPACE).get_by_name(&object);
    Ok(Rc::new(Calls { stub, url: http::Uri::from_static("http://do/") }))
}

struct Calls {
    stub: Stub,
    url: http::Uri,
}

impl Line for Calls {
    fn call(&self, payload: &Bytes) -> LocalBoxFuture<'static, Result<()>> {
        let mut request = http::Request::new(payload.clone());
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = self.url.clone();
        let (fetch, payload) = (self.stub.fetch(request), payload.clone());
        async move { check_echo(&fetch.await?.into_body().bytes().await?, &payload) }.boxed_local()
    }
}

/// Answers with the body that it gets.
struct Echo;

impl DurableObject for Echo {
    async fn new(_state: State, _env: Env) -> Result<Self> {
        Ok(Self)
    }

    async fn fetch(&self, request: Request) -> Result<Response> {
        Ok(Response::new(request.into_body()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_found_for_every_shard() {
        let key = NamespaceKey::new(NAMESPACE);
        for shard in 0..SHARDS {
            let id = key.id_from_name(&name_on(shard));
            assert_eq!(Placement::new(SHARDS).shard(&id), shard);
        }
    }
}
