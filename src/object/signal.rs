//! Tells a handler that its caller has gone.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};

use crate::message::{self, Request};

/// Whether the caller of a request still waits for the response.
///
/// A handler runs on when its caller has gone (it may have written already); one that does long work for
/// nobody's sake can look here and stop.
#[derive(Clone, Debug, Default)]
pub struct Signal(Arc<Mutex<Flag>>);

#[derive(Debug, Default)]
struct Flag {
    gone: bool,
    wakers: Vec<Waker>,
}

impl Signal {
    /// Returns whether the caller has gone.
    pub fn is_gone(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).gone
    }

    /// Waits until the caller has gone.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn gone(&self) {
        poll_fn(|context| {
            let mut flag = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if flag.gone {
                return Poll::Ready(());
            }
            if !flag.wakers.iter().any(|waker| waker.will_wake(context.waker())) {
                flag.wakers.push(context.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }

    /// Says that the caller has gone.
    pub(crate) fn raise(&self) {
        let wakers = {
            let mut flag = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            flag.gone = true;
            std::mem::take(&mut flag.wakers)
        };
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// What a handler can ask of a request beyond what [`http::Request`] holds.
pub trait RequestExt {
    /// Returns the signal that tells when the caller has gone.
    fn signal(&self) -> Signal;

    /// Returns whether it asks for a WebSocket: then [`respond::upgrade`](crate::respond::upgrade) opens one.
    fn is_upgrade(&self) -> bool;
}

impl RequestExt for Request {
    fn signal(&self) -> Signal {
        self.extensions().get::<Signal>().cloned().unwrap_or_default()
    }

    fn is_upgrade(&self) -> bool {
        message::is_upgrade(self)
    }
}
