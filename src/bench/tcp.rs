//! The floor below the floor: an echo of frames over TCP, each a length of 4 bytes and that many bytes.
//!
//! Writes are batched on both sides as far as there is something to write, with no delay to wait for more.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use bytes::Bytes;
use futures::FutureExt;
use futures::channel::oneshot;
use futures::future::LocalBoxFuture;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use super::subject::{Line, Subject, announce, check_echo, parent_gone};
use crate::error::{Error, Result};

/// An echo over TCP.
pub struct Tcp;

/// What is read at a time, and what is written at least.
const BUFFER_BYTES: usize = 64 << 10;

impl Subject for Tcp {
    fn name(&self) -> &'static str {
        "tcp"
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
            stream.set_nodelay(true)?;
            let (reader, writer) = stream.into_split();
            let wire = Rc::new(Wire::default());
            let reading = spawn(read(reader, wire.clone()));
            spawn(write(writer, wire.clone()));
            Ok(Rc::new(Calls { wire, reading }) as Rc<dyn Line>)
        }
        .boxed_local()
    }
}

fn spawn(future: impl Future<Output = Result<()>> + 'static) -> tokio::task::AbortHandle {
    tokio::task::spawn_local(future).abort_handle()
}

async fn accept(listener: TcpListener) -> Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        spawn(echo(stream));
    }
}

async fn echo(stream: TcpStream) -> Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::with_capacity(BUFFER_BYTES, reader);
    let (mut frame, mut out) = (Vec::new(), Vec::new());
    while !reader.fill_buf().await?.is_empty() {
        read_frame(&mut reader, &mut frame).await?;
        push_frame(&frame, &mut out);
        if reader.buffer().is_empty() || out.len() >= BUFFER_BYTES {
            writer.write_all(&out).await?;
            out.clear();
        }
    }
    Ok(())
}

async fn read_frame(reader: &mut BufReader<OwnedReadHalf>, frame: &mut Vec<u8>) -> Result<()> {
    let length = reader.read_u32().await?;
    frame.resize(usize::try_from(length)?, 0);
    reader.read_exact(frame).await?;
    Ok(())
}

fn push_frame(frame: &[u8], out: &mut Vec<u8>) {
    let length = u32::try_from(frame.len()).expect("bodies here have a few MiB at most");
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(frame);
}

/// What calls, the reader and the writer of one connection share.
#[derive(Default)]
struct Wire {
    out: RefCell<Vec<u8>>,
    changed: Notify,
    closed: Cell<bool>,
    waiting: RefCell<VecDeque<(Bytes, oneshot::Sender<Result<()>>)>>,
}

struct Calls {
    wire: Rc<Wire>,
    reading: tokio::task::AbortHandle,
}

impl Drop for Calls {
    fn drop(&mut self) {
        self.reading.abort();
        self.wire.closed.set(true);
        self.wire.changed.notify_one();
    }
}

impl Line for Calls {
    fn call(&self, payload: &Bytes) -> LocalBoxFuture<'static, Result<()>> {
        let (reply, answer) = oneshot::channel();
        push_frame(payload, &mut self.wire.out.borrow_mut());
        self.wire.waiting.borrow_mut().push_back((payload.clone(), reply));
        self.wire.changed.notify_one();
        async move { answer.await.map_err(|_| Error::disconnected("the echo ended"))? }
            .boxed_local()
    }
}

async fn read(reader: OwnedReadHalf, wire: Rc<Wire>) -> Result<()> {
    let mut reader = BufReader::with_capacity(BUFFER_BYTES, reader);
    let mut frame = Vec::new();
    while read_frame(&mut reader, &mut frame).await.is_ok() {
        let next = wire.waiting.borrow_mut().pop_front();
        let Some((payload, reply)) = next else { break };
        let _ = reply.send(check_echo(&frame, &payload));
    }
    // Whoever waits still is told by the loss of its reply.
    wire.waiting.take();
    Ok(())
}

async fn write(mut writer: OwnedWriteHalf, wire: Rc<Wire>) -> Result<()> {
    let mut batch = Vec::new();
    while !wire.closed.get() {
        std::mem::swap(&mut batch, &mut wire.out.borrow_mut());
        if batch.is_empty() {
            wire.changed.notified().await;
        } else {
            writer.write_all(&batch).await?;
            batch.clear();
        }
    }
    Ok(())
}
