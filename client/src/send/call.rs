//! A call under way, as its caller holds it on whatever thread.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::FutureExt;
use futures::channel::oneshot;

use super::shared::Shared;
use crate::{Error, Response, Result};

/// A call under way. It was posted when it was made; awaiting it only waits for its answer.
///
/// Dropping it takes the call back where it has not been sent yet. One that was sent is cancelled, which
/// does not stop a handler that has begun.
#[must_use = "what was called is dropped with its call"]
pub struct Call<T>(State<T>);

/// A fetch under way.
pub type Fetch = Call<Response>;

enum State<T> {
    Failed(Option<Error>),
    Waiting(oneshot::Receiver<Result<T>>, Arc<Shared>),
}

impl<T> Call<T> {
    /// Makes a call that could not be posted.
    pub(super) fn failed(error: Error) -> Self {
        Self(State::Failed(Some(error)))
    }

    pub(super) fn waiting(answer: oneshot::Receiver<Result<T>>, shared: Arc<Shared>) -> Self {
        Self(State::Waiting(answer, shared))
    }
}

impl<T> Unpin for Call<T> {}

impl<T> Future for Call<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            State::Failed(error) => {
                Poll::Ready(Err(error.take().expect("a future is not polled after its end")))
            }
            State::Waiting(answer, shared) => answer.poll_unpin(context).map(|answer| {
                // Without an answer the owner is gone, and the call may have been sent.
                answer.unwrap_or_else(|_| Err(shared.gone().with_delivered(true)))
            }),
        }
    }
}

impl<T> fmt::Debug for Call<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").finish_non_exhaustive()
    }
}
