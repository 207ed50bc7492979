//! The bytes of one connection, on their way between its socket and hyper.
//!
//! **Invariant:** of a head that could be read in two ways hyper sees the beginning and then a byte that no
//! head may have: it answers 400 and ends the connection, after the answers that are due before.

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
    refused: bool,
}

impl Watched {
    /// Follows the requests of a connection of which `first` was read already.
    pub(super) fn new(inner: Stream, first: Bytes, framing: Framing, watch: Rc<Watch>) -> Self {
        Self { inner, first, framing, watch, refused: false }
    }

    /// Returns the connection.
    pub(super) fn into_inner(self) -> Stream {
        self.inner
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
        if self.refused {
            // hyper ends the connection once it comes to the bad byte.
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        let filled = self.fill(context, buffer);
        if filled.is_pending() && self.framing.is_in_body() {
            self.watch.starved();
        }
        ready!(filled)?;
        let fresh = buffer.filled().get(before..).unwrap_or_default();
        if let Err(Bad(at)) = self.framing.take(fresh) {
            self.refused = true;
            buffer.set_filled(before + at);
            buffer.put_slice(b"\0");
        }
        self.watch.heard(self.framing.is_in_head());
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
