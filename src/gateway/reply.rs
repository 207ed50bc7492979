//! The body of an answer on its way out.
//!
//! **Invariant:** a call is under way until its answer's body was handed over or dropped.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::watch::Call;
use crate::body::Body;
use crate::error::Error;

/// A body, and the call that it answers.
#[derive(Debug)]
pub(super) struct ReplyBody {
    body: Body,
    _call: Call,
}

impl ReplyBody {
    /// Makes the body of the answer to `call`.
    pub(super) fn new(body: Body, call: Call) -> Self {
        Self { body, _call: call }
    }
}

impl http_body::Body for ReplyBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
