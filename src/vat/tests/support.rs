//! A server, a client, and a peer that speaks in single messages.
//!
//! **Invariant:** nothing here is random but for a seed.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use capnp::message::{Builder, HeapAllocator, Reader, ReaderOptions};
use capnp::serialize::OwnedSegments;
use capnp_rpc::RpcSystem;
use capnp_rpc::rpc_capnp::{call, exception, message, return_};
use capnp_rpc::rpc_twoparty_capnp::Side;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};

use crate::demo_capnp::{listener, probe};
use crate::limits::Limits;
use crate::stubborn_capnp::stub;
use crate::vat::{Account, Network, Traffic};

/// What `log` waits for when it is called with this number: for ever.
pub(super) const NEVER: u64 = u64::MAX;
/// The methods of `Probe` that are called raw.
pub(super) const LOG: u16 = 0;
pub(super) const NOTIFY: u16 = 2;

/// Runs `test` on a shard of its own whose time passes only when nothing else can happen.
pub(super) fn run(test: impl Future<Output = ()>) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    tokio::task::LocalSet::new().block_on(&runtime.unwrap(), test);
}

/// Lets everything that is ready happen.
pub(super) async fn settle() {
    tokio::time::sleep(Duration::from_nanos(1)).await;
}

/// The object that the tests call.
#[derive(Default)]
pub(super) struct Subject {
    pub(super) log: RefCell<Vec<u64>>,
    pub(super) held: RefCell<Vec<listener::Client>>,
}

impl stub::Server for Subject {
    /// Returns the body.
    async fn fetch(
        self: Rc<Self>,
        params: stub::FetchParams,
        mut results: stub::FetchResults,
    ) -> Result<(), capnp::Error> {
        let body = params.get()?.get_body()?.get_prefix()?;
        results.get().init_response().init_body().set_prefix(body);
        Ok(())
    }
}

impl probe::Server for Subject {
    async fn log(
        self: Rc<Self>,
        params: probe::LogParams,
        mut results: probe::LogResults,
    ) -> Result<(), capnp::Error> {
        let n = params.get()?.get_n();
        self.log.borrow_mut().push(n);
        if n == NEVER {
            std::future::pending::<()>().await;
        }
        results.get().set_position(n);
        Ok(())
    }

    /// Returns the listener that it was given; where there is none, after a turn, one of its own.
    async fn echo(
        self: Rc<Self>,
        params: probe::EchoParams,
        mut results: probe::EchoResults,
    ) -> Result<(), capnp::Error> {
        let listener = if params.get()?.has_listener() {
            params.get()?.get_listener()?
        } else {
            tokio::task::yield_now().await;
            crate::vat::guard(capnp_rpc::new_client(Ear::default()))
        };
        results.get().set_listener(listener);
        Ok(())
    }

    /// Calls `heard` of what it holds, and of the listener.
    async fn notify(
        self: Rc<Self>,
        params: probe::NotifyParams,
        _: probe::NotifyResults,
    ) -> Result<(), capnp::Error> {
        let params = params.get()?;
        let listener = params.get_listener()?;
        self.held.borrow_mut().push(listener.clone());
        for n in 0..params.get_count() {
            let mut request = listener.heard_request();
            request.get().set_n(n.into());
            request.send().promise.await?;
        }
        Ok(())
    }

    async fn note(self: Rc<Self>, params: probe::NoteParams) -> Result<(), capnp::Error> {
        let n = params.get()?.get_n();
        if n == NEVER {
            std::future::pending::<()>().await;
        }
        self.log.borrow_mut().push(n);
        Ok(())
    }
}

/// A capability of the client's, which tells when the server has let go of it.
#[derive(Default)]
pub(super) struct Ear {
    pub(super) heard: Rc<Cell<u64>>,
    pub(super) dropped: Rc<Cell<bool>>,
}

impl listener::Server for Ear {
    async fn heard(
        self: Rc<Self>,
        _: listener::HeardParams,
        _: listener::HeardResults,
    ) -> Result<(), capnp::Error> {
        self.heard.set(self.heard.get() + 1);
        Ok(())
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        self.dropped.set(true);
    }
}

/// Serves a subject on `stream`.
pub(super) fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    limits: Limits,
    account: Option<Arc<Account>>,
) -> (Rc<Traffic>, Rc<Subject>) {
    let subject = Rc::new(Subject::default());
    let bootstrap = capnp_rpc::new_client_from_rc(Rc::clone(&subject));
    (serve_client(stream, limits, account, bootstrap), subject)
}

/// Serves a capability on `stream`.
pub(super) fn serve_client(
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    limits: Limits,
    account: Option<Arc<Account>>,
    bootstrap: probe::Client,
) -> Rc<Traffic> {
    let (reader, writer) = tokio::io::split(stream);
    let (network, traffic) = Network::new(reader, writer, Side::Server, Rc::new(limits), account);
    tokio::task::spawn_local(RpcSystem::new(Box::new(network), Some(bootstrap.client)));
    traffic
}

/// Connects to what `stream` leads to.
pub(super) fn connect(
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    limits: Limits,
) -> (probe::Client, Rc<Traffic>) {
    let (reader, writer) = tokio::io::split(stream);
    let (network, traffic) = Network::new(reader, writer, Side::Client, Rc::new(limits), None);
    let mut system = RpcSystem::new(Box::new(network), None);
    let client = system.bootstrap(Side::Server);
    tokio::task::spawn_local(system);
    (client, traffic)
}

/// A client of a server, both ours.
pub(super) struct Pair {
    pub(super) client: probe::Client,
    pub(super) client_traffic: Rc<Traffic>,
    pub(super) server_traffic: Rc<Traffic>,
    pub(super) subject: Rc<Subject>,
}

pub(super) fn pair(limits: Limits) -> Pair {
    let (near, far) = tokio::io::duplex(64 << 10);
    let (server_traffic, subject) = serve(far, limits, None);
    let (client, client_traffic) = connect(near, Limits::default());
    Pair { client, client_traffic, server_traffic, subject }
}

/// Calls `log` and returns what it answers.
pub(super) async fn log(client: &probe::Client, n: u64) -> Result<u64, capnp::Error> {
    let mut request = client.log_request();
    request.get().set_n(n);
    Ok(request.send().promise.await?.get()?.get_position())
}

/// A peer that says exactly what a test wants.
pub(super) struct Raw {
    pub(super) stream: DuplexStream,
}

pub(super) type Received = Reader<OwnedSegments>;

impl Raw {
    /// Connects to a new server through a pipe that holds `bytes`.
    pub(super) fn new(limits: Limits, bytes: usize) -> (Self, Rc<Traffic>, Rc<Subject>) {
        let (near, far) = tokio::io::duplex(bytes);
        let (traffic, subject) = serve(far, limits, None);
        (Self { stream: near }, traffic, subject)
    }

    /// As `new`, and takes the bootstrap capability (export 0) by question 1000.
    pub(super) async fn greeted(limits: Limits) -> (Self, Rc<Traffic>, Rc<Subject>) {
        let (mut raw, traffic, subject) = Self::new(limits, 1 << 20);
        raw.send(|message| message.init_bootstrap().set_question_id(1000)).await;
        raw.receive().await;
        (raw, traffic, subject)
    }

    pub(super) async fn send(&mut self, fill: impl FnOnce(message::Builder<'_>)) {
        let bytes = encoded(fill);
        self.stream.write_all(&bytes).await.unwrap();
    }

    /// Calls a method of export 0.
    pub(super) async fn call(
        &mut self,
        id: u32,
        method: u16,
        fill: impl FnOnce(call::Builder<'_>),
    ) {
        self.send(|message| {
            let mut call = message.init_call();
            call.set_question_id(id);
            call.set_interface_id(<probe::Client as capnp::traits::HasTypeId>::TYPE_ID);
            call.set_method_id(method);
            call.reborrow().init_target().set_imported_cap(0);
            call.reborrow().init_params();
            fill(call);
        })
        .await;
    }

    pub(super) async fn log(&mut self, id: u32, n: u64) {
        self.call(id, LOG, |call| {
            let params = call.get_params().unwrap().get_content();
            params.init_as::<probe::log_params::Builder<'_>>().set_n(n);
        })
        .await;
    }

    pub(super) async fn finish(&mut self, id: u32) {
        self.send(|message| message.init_finish().set_question_id(id)).await;
    }

    pub(super) async fn receive(&mut self) -> Received {
        let mut table = vec![0; 8];
        self.stream.read_exact(&mut table).await.unwrap();
        let number =
            |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        let count = number(&table, 0) as usize + 1;
        table.resize((4 + 4 * count).next_multiple_of(8), 0);
        self.stream.read_exact(&mut table[8..]).await.unwrap();
        let words: u32 = (0..count).map(|index| number(&table, 4 + 4 * index)).sum();
        let header = table.len();
        table.resize(header + words as usize * 8, 0);
        self.stream.read_exact(&mut table[header..]).await.unwrap();
        capnp::serialize::read_message(&table[..], ReaderOptions::new()).unwrap()
    }

    /// Receives a return, and tells how it ended.
    pub(super) async fn answer(&mut self) -> (u32, Result<(), (exception::Type, String)>) {
        let received = self.receive().await;
        let Ok(message::Return(Ok(answer))) = root(&received).which() else {
            panic!("not a return: {:?}", root(&received));
        };
        let outcome = match answer.which().unwrap() {
            return_::Exception(exception) => {
                let exception = exception.unwrap();
                let reason = exception.get_reason().unwrap().to_string().unwrap();
                Err((exception.get_type().unwrap(), reason))
            }
            _ => Ok(()),
        };
        (answer.get_answer_id(), outcome)
    }
}

pub(super) fn root(received: &Received) -> message::Reader<'_> {
    received.get_root().unwrap()
}

pub(super) fn encoded(fill: impl FnOnce(message::Builder<'_>)) -> Vec<u8> {
    let mut message = Builder::new(HeapAllocator::new());
    fill(message.init_root());
    capnp::serialize::write_message_to_words(&message)
}

/// A stream that counts what is written, and how often.
pub(super) struct Counting<S> {
    pub(super) stream: S,
    pub(super) writes: Rc<Cell<usize>>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Counting<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counting<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.writes.set(self.writes.get() + 1);
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
