//! The bytes of one connection, on their way between its socket and hyper.
//!
//! **Invariant:** of a head that could be read in two ways hyper sees the beginning and then a byte that no
//! head may have: it answers 400 and ends the connection, after the answers that are due before. Of such a body it
//! sees the beginning, and then an error.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::framing::{Bad, Framing};
use super::watch::Watch;
use crate::listen::Stream;

/// A connection that is followed and watched.
#[derive(Debug)]
pub(super) struct Watched {
    inner: Stream,
    /// What came first, and was read to tell the protocol.
    first: Bytes,
    framing: Framing,
    watch: Rc<Watch>,
    refused: Option<Refused>,
}

/// What hyper sees behind a part that was refused.
#[derive(Debug)]
struct Refused {
    /// Bytes that no head may have. It looks at a head again only once that is complete.
    rest: &'static [u8],
    in_body: bool,
}

impl Refused {
    fn new(in_body: bool) -> Self {
        let rest: &[u8] = if in_body { b"" } else { b"\0\r\n\r\n" };
        Self { rest, in_body }
    }

    fn fill(&mut self, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let (now, rest) = self.rest.split_at(self.rest.len().min(buffer.remaining()));
        buffer.put_slice(now);
        self.rest = rest;
        match (now, self.in_body) {
            ([], true) => {
                let told = "a newline without a carriage return in front";
                Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, told)))
            }
            // It ends the connection once it comes to the bad bytes.
            ([], false) => Poll::Pending,
            _ => Poll::Ready(Ok(())),
        }
    }
}

impl Watched {
    /// Follows the requests of a connection of which `first` was read already.
    pub(super) fn new(inner: Stream, first: Bytes, framing: Framing, watch: Rc<Watch>) -> Self {
        Self { inner, first, framing, watch, refused: None }
    }

    /// Returns the connection, and what was read of it and given to nobody.
    pub(super) fn into_parts(self) -> (Stream, Bytes) {
        (self.inner, self.first)
    }

    fn fill(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.inner).poll_read(context, buffer);
        }
        let bytes = self.first.len().min(buffer.remaining());
        buffer.put_slice(self.first.get(..bytes).unwrap_or_default());
        self.first.advance(bytes);
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(refused) = &mut self.refused {
            return refused.fill(buffer);
        }
        let before = buffer.filled().len();
        let filled = self.fill(context, buffer);
        if filled.is_pending() && self.framing.is_in_body() {
            self.watch.starved();
        }
        ready!(filled)?;
        let fresh = buffer.filled().get(before..).unwrap_or_default();
        let taken = self.framing.take(fresh);
        self.watch.heard(self.framing.is_in_head());
        if let Err(Bad { at, in_body }) = taken {
            buffer.set_filled(before + at);
            let refused = self.refused.insert(Refused::new(in_body));
            if !in_body || at == 0 {
                return refused.fill(buffer);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl Watched {
    fn note<T>(&self, written: &Poll<io::Result<T>>) {
        match written {
            Poll::Ready(_) => self.watch.moved(),
            Poll::Pending => self.watch.stuck(),
        }
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.note(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(context, slices);
        self.note(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}
