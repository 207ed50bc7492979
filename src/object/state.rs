//! What an object knows of itself and can do to itself.

use std::fmt::Display;
use std::rc::Rc;

use futures::FutureExt;
use futures::future::LocalBoxFuture;

use crate::error::{Error, Result};
use crate::id::ObjectId;

/// What an object is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The namespace's name.
    pub namespace: Rc<str>,
    /// The object's id.
    pub id: ObjectId,
    /// Its name, once it was reached by one (of at most 1,024 bytes).
    pub name: Option<Rc<str>>,
    /// Tells this instance from others: a later instance of the object has a higher number.
    pub activation: u64,
}

/// What the runtime does for an object.
pub trait Control {
    /// Returns what the object is called.
    fn identity(&self) -> Identity;

    /// Resets the object: its memory goes, its stubs break with `reason`.
    fn reset(&self, reason: Error);

    /// Closes the input gate until the returned guard is dropped.
    fn close_gate(&self) -> Box<dyn std::any::Any>;

    /// Runs `task` beside the handlers and keeps the object in memory until it ends.
    fn wait_until(&self, task: LocalBoxFuture<'static, ()>);

    /// How long a critical section may take.
    fn critical_section_timeout(&self) -> std::time::Duration;
}

/// What an object knows of itself and can do to itself. Cheap to clone; one of an object that was reset
/// does nothing any more.
#[derive(Clone)]
pub struct State {
    control: Rc<dyn Control>,
}

impl State {
    /// Makes the state of an object that `control` runs.
    pub(crate) fn new(control: Rc<dyn Control>) -> Self {
        Self { control }
    }

    /// Returns the object's id.
    pub fn id(&self) -> ObjectId {
        self.control.identity().id
    }

    /// Returns the object's name, once it was reached by one.
    ///
    /// None where it was only ever reached by its id, and for names over 1,024 bytes.
    pub fn name(&self) -> Option<Rc<str>> {
        self.control.identity().name
    }

    /// Returns the name of the object's namespace.
    pub fn namespace(&self) -> Rc<str> {
        self.control.identity().namespace
    }

    /// Returns what tells this instance from others in this process: a later instance of the object has a
    /// higher number.
    pub fn activation(&self) -> u64 {
        self.control.identity().activation
    }

    /// Resets the object: what it holds in memory goes, and its stubs break with `reason`.
    ///
    /// The handler that calls this runs no further than its next `.await`; what it returns is dropped.
    pub fn abort(&self, reason: impl Display) {
        self.control.reset(Error::failed(reason.to_string()).with_remote(true));
    }

    /// Runs `section` while no other event enters the object, and returns its result. The gate closes when the
    /// returned future is first polled.
    ///
    /// # Errors
    /// Never to the caller: where `section` fails, or takes over 30 s, the object is reset, and the
    /// handler that waits here is dropped.
    ///
    /// # Cancel safety
    /// Dropping the future drops `section` and lets events in again.
    pub async fn block_concurrency_while<T>(&self, section: impl Future<Output = Result<T>>) -> T {
        let gate = self.control.close_gate();
        let timeout = self.control.critical_section_timeout();
        let error = match tokio::time::timeout(timeout, section).await {
            Ok(Ok(value)) => {
                drop(gate);
                return value;
            }
            Ok(Err(error)) => error.with_remote(true),
            Err(_) => Error::timeout(format!(
                "a critical section took over {timeout:?}; the object was reset"
            )),
        };
        self.control.reset(error);
        std::future::pending().await
    }

    /// Runs `task` beside the handlers; the object stays in memory until it ends. (A task of
    /// [`tokio::task::spawn_local`] instead knows nothing of the object: it outlives a reset and eviction.)
    ///
    /// A reset drops it. A panic in it resets the object.
    pub fn wait_until(&self, task: impl Future<Output = ()> + 'static) {
        self.control.wait_until(task.boxed_local());
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("State").field(&self.control.identity()).finish()
    }
}
