//! The body of an answer on its way out.
//!
//! **Invariant:** a call is under way until its answer's body was handed over or dropped.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::stall::Progress;
use super::watch::Call;
use crate::body::Body;
use crate::error::Error;

/// A body, and the call that it answers.
#[derive(Debug)]
pub(super) struct ReplyBody {
    body: Body,
    _call: Call,
    /// That of its stream; none over HTTP/1.1.
    progress: Option<Rc<Progress>>,
}

impl ReplyBody {
    /// Makes the body of the answer to `call`.
    pub(super) fn new(body: Body, call: Call, progress: Option<Rc<Progress>>) -> Self {
        // The first of it waits from now on.
        progress.iter().for_each(|progress| progress.wait());
        Self { body, _call: call, progress }
    }
}

impl http_body::Body for ReplyBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if let Some(progress) = &self.progress {
            match frame {
                Poll::Ready(Some(Ok(_))) => progress.wait(),
                _ => progress.taken(),
            }
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
