//! The trait that an author implements.

use crate::error::{Error, Result};
use crate::message::{Request, Response};
use crate::object::{Env, Socket, State};
use crate::socket::{Closed, Message};
use crate::storage::object::Ringing;

/// A durable object: one live instance for an id in the whole system, on one thread.
///
/// Handlers take `&self` and may interleave where they wait, so state lives in `Cell`s and `RefCell`s
/// (no lock is needed, and no borrow may be held across an `.await`). Nothing need be `Send`.
///
/// ```
/// use std::cell::Cell;
/// use stubborn::{DurableObject, Env, Request, Response, Result, State, respond};
///
/// struct Counter(Cell<u64>);
///
/// impl DurableObject for Counter {
///     async fn new(_state: State, _env: Env) -> Result<Self> {
///         Ok(Self(Cell::new(0)))
///     }
///     async fn fetch(&self, _request: Request) -> Result<Response> {
///         self.0.set(self.0.get() + 1);
///         Ok(respond::text(self.0.get().to_string()))
///     }
/// }
/// let class = stubborn::Class::new::<Counter>();
/// assert!(class.name().ends_with("Counter"));
/// ```
pub trait DurableObject: Sized + 'static {
    /// Makes the object, when its first event arrives. No event enters before this returns.
    ///
    /// # Errors
    /// An error resets the object: it breaks the stubs whose calls were waiting.
    fn new(state: State, env: Env) -> impl Future<Output = Result<Self>>;

    /// Answers a request.
    ///
    /// The handler runs to its end even when its caller is gone: see [`RequestExt::signal`] to notice.
    ///
    /// # Errors
    /// The caller gets the error, marked `remote`. It does not break the stub.
    ///
    /// [`RequestExt::signal`]: crate::RequestExt::signal
    fn fetch(&self, request: Request) -> impl Future<Output = Result<Response>> {
        let _ = request;
        std::future::ready(Err(Error::unimplemented("the object does not serve fetch")))
    }

    /// Runs when the object's alarm rings: never early, and at least once, also after a restart.
    ///
    /// When it returns the alarm is over, unless it was set anew meanwhile. It has 15 minutes.
    ///
    /// # Errors
    /// After an error the alarm rings again, 2, 4, 8, 16, 32 and 64 s later (and up to a quarter more); then it is
    /// given up.
    fn alarm(&self, alarm: AlarmInfo) -> impl Future<Output = Result<()>> {
        let _ = alarm;
        std::future::ready(Err(Error::unimplemented("the object does not serve alarms")))
    }

    /// Takes a message of a hibernatable WebSocket, after its earlier ones were handled.
    ///
    /// # Errors
    /// An error is logged; the WebSocket stays open.
    fn web_socket_message(
        &self,
        socket: &Socket,
        message: Message,
    ) -> impl Future<Output = Result<()>> {
        let _ = (socket, message);
        std::future::ready(Err(Error::unimplemented("the object does not serve WebSockets")))
    }

    /// Runs when the peer of a hibernatable WebSocket has closed it, or the link to it was lost (code 1006). When
    /// this returns, the WebSocket is closed from this side too, and gone.
    ///
    /// # Errors
    /// An error is logged.
    fn web_socket_close(
        &self,
        socket: &Socket,
        closed: Closed,
    ) -> impl Future<Output = Result<()>> {
        let _ = (socket, closed);
        std::future::ready(Ok(()))
    }

    /// Runs instead where the peer broke a rule of the protocol (a message that is too large, text that is not
    /// UTF-8); the peer is told by a close frame. When this returns, the WebSocket is gone.
    ///
    /// # Errors
    /// An error is logged.
    fn web_socket_error(&self, socket: &Socket, error: Error) -> impl Future<Output = Result<()>> {
        let _ = (socket, error);
        std::future::ready(Ok(()))
    }

    /// Runs before the object leaves memory in an orderly way: evicted, or because the server stops.
    ///
    /// It has 10 s, and when the server stops no longer than that has. Tasks that it begins with
    /// [`State::wait_until`] run within its time. When the server stops, handlers and tasks that are under way have
    /// half of [`drain_timeout`](crate::Limits::drain_timeout) for themselves; then this runs beside them.
    ///
    /// It does not run before a reset or a crash: what must last belongs in storage.
    fn before_shutdown(&self) -> impl Future<Output = ()> {
        std::future::ready(())
    }
}

/// What an alarm's handler is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AlarmInfo {
    /// What the alarm was set to, in milliseconds since 1970.
    pub scheduled_ms: u64,
    /// How often the handler has failed for this alarm.
    pub retry_count: u32,
    /// Whether the alarm rings again after a try that failed, or that ended with the object's reset. A try that
    /// the end of the process cut short is not known of: where this is false, the handler may have run all the same.
    pub is_retry: bool,
}

impl AlarmInfo {
    /// Makes it of an alarm that rings.
    pub(crate) fn of(ringing: &Ringing) -> Self {
        let Ringing { scheduled_ms, retries, tries } = *ringing;
        Self { scheduled_ms, retry_count: retries, is_retry: tries.backoff > 0 }
    }
}
