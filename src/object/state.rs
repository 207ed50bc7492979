//! What an object knows of itself and can do to itself.

use std::fmt::Display;
use std::rc::Rc;

use futures::FutureExt;
use futures::future::LocalBoxFuture;

use super::interface::Line;
use super::socket::{Accepted, Socket, checked_auto_response, checked_tags};
use super::storage::Storage;
use crate::error::{Error, Result};
use crate::gate::{Outbox, Section};
use crate::id::ObjectId;
use crate::socket::{Text, WebSocket};
use crate::storage::object::ObjectStorage;

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

    /// Begins a critical section of whose code runs; none where it would nest too deep.
    fn begin_section(&self) -> Option<Section>;

    /// Returns the object's storage.
    ///
    /// # Errors
    /// *disconnected* where the object has left memory.
    fn storage(&self) -> Result<Rc<ObjectStorage>>;

    /// Returns what the object has said and not let out.
    fn outbox(&self) -> Rc<Outbox>;

    /// Makes the line of a capability to the object.
    ///
    /// # Errors
    /// *disconnected* where the object has left memory.
    fn line(&self) -> Result<Rc<dyn Line>>;

    /// Runs `task` beside the handlers and keeps the object in memory until it ends.
    fn wait_until(&self, task: LocalBoxFuture<'static, ()>);

    /// Keeps `end` as a hibernatable WebSocket.
    ///
    /// # Errors
    /// *overloaded* where the object has too many; *disconnected* where it has left memory.
    fn accept(&self, end: WebSocket, tags: Box<[Rc<str>]>) -> Result<Rc<Accepted>>;

    /// Returns the hibernatable WebSockets that are open, or those that have `tag`, in the order in which they were
    /// accepted.
    fn sockets(&self, tag: Option<&str>) -> Vec<Rc<Accepted>>;

    /// Sets what is answered without the object.
    fn set_auto_response(&self, pair: Option<(Text, Text)>);

    /// Returns what is answered without the object.
    fn auto_response(&self) -> Option<(Text, Text)>;

    /// Returns the milliseconds since 1970.
    fn now_ms(&self) -> u64;

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
    /// The handler that calls this runs no further than its next `.await`; what it returns is dropped. So is what it
    /// wrote since its last `.await`, and what the object said and did not let out yet. The reason is heard at once:
    /// it does not wait for what was written before, and should tell nothing of it.
    pub fn abort(&self, reason: impl Display) {
        self.control.reset(Error::failed(reason.to_string()).with_remote(true));
    }

    /// Returns the object's storage.
    pub fn storage(&self) -> Storage {
        Storage::new(self.control.clone())
    }

    /// Accepts `end` as a hibernatable WebSocket: what its peer sends reaches
    /// [`web_socket_message`](crate::DurableObject::web_socket_message), and it stays open while the object is out of
    /// memory. `tags` are what it is found by.
    ///
    /// ```
    /// # use stubborn::{Request, RequestExt, Response, Result, State, WebSocket, respond};
    /// async fn fetch(state: &State, request: Request) -> Result<Response> {
    ///     if !request.is_upgrade() {
    ///         return respond::status(426, "this is for WebSockets");
    ///     }
    ///     let (client, server) = WebSocket::pair();
    ///     state.accept_web_socket(server, &["member"])?;
    ///     Ok(respond::upgrade(client))
    /// }
    /// ```
    ///
    /// An end that is not accepted so can be used as it is, to send and to receive: then it keeps the object in
    /// memory until it is closed.
    ///
    /// # Errors
    /// *invalid request* for more than 10 tags, or one of over 256 characters; *overloaded* where the object has
    /// 32,768 WebSockets.
    pub fn accept_web_socket(&self, end: WebSocket, tags: &[&str]) -> Result<Socket> {
        let accepted = self.control.accept(end, checked_tags(tags)?)?;
        Ok(Socket::new(accepted, self.control.outbox()))
    }

    /// Returns the hibernatable WebSockets that are open, or those that have `tag`, in the order in which they were
    /// accepted.
    pub fn web_sockets(&self, tag: Option<&str>) -> Vec<Socket> {
        let outbox = self.control.outbox();
        let sockets = self.control.sockets(tag).into_iter();
        sockets.map(|accepted| Socket::new(accepted, outbox.clone())).collect()
    }

    /// Has every text message of a hibernatable WebSocket that is `request` be answered with `response`, without
    /// the object: it is neither woken nor told. None ends that. Survives hibernation, not a reset.
    ///
    /// # Errors
    /// *invalid request* where either has over 2 KiB.
    pub fn set_auto_response(&self, pair: Option<(&str, &str)>) -> Result<()> {
        let pair = pair.map(|(request, response)| checked_auto_response(request, response));
        self.control.set_auto_response(pair.transpose()?);
        Ok(())
    }

    /// Returns what is answered without the object: the request, and the response.
    pub fn auto_response(&self) -> Option<(Text, Text)> {
        self.control.auto_response()
    }

    /// Returns the milliseconds since 1970, by the clock that alarms go by. It may jump as the machine's clock
    /// is set; a test can drive it ([`ServerBuilder::clock`](crate::ServerBuilder::clock)).
    ///
    /// ```
    /// # use stubborn::{Result, State};
    /// fn remind_in_an_hour(state: &State) -> Result<()> {
    ///     state.storage().set_alarm(state.now_ms() + 3_600_000)
    /// }
    /// ```
    pub fn now_ms(&self) -> u64 {
        self.control.now_ms()
    }

    /// Runs `section` while nothing else of the object runs, and returns its result: no other event enters, and
    /// the handlers that are inside already do not go on. Sections run one after the other; one begun inside
    /// of another is part of it. It begins when the returned future is first polled.
    ///
    /// Nothing else of the object means its tasks too ([`wait_until`](Self::wait_until)), the writers of its bodies,
    /// and calls on its capabilities: a `section` that waits for one of these waits in vain.
    ///
    /// # Errors
    /// Never to the caller: where `section` fails, or takes over 30 s
    /// ([`critical_section_timeout`](crate::Limits::critical_section_timeout)), the object is reset, and the
    /// handler that waits here is dropped. The time is watched while the returned future is polled: one that is kept
    /// and not polled holds up the object for as long.
    ///
    /// # Cancel safety
    /// Dropping the future drops `section` and lets events in again.
    pub async fn block_concurrency_while<T>(&self, section: impl Future<Output = Result<T>>) -> T {
        let Some(critical) = self.control.begin_section() else {
            let text = "critical sections are nested too deep";
            self.control.reset(Error::failed(text).with_remote(true));
            return std::future::pending().await;
        };
        critical.entered().await;
        match run_within(&*self.control, "a critical section", &critical, section).await {
            Ok(value) => return value,
            Err(error) => self.control.reset(error.with_remote(true)),
        }
        std::future::pending().await
    }

    /// Returns what the runtime does for the object.
    pub(super) fn control(&self) -> &dyn Control {
        &*self.control
    }

    /// Runs `task` beside the handlers; the object stays in memory until it ends. (A task of
    /// [`tokio::task::spawn_local`] instead knows nothing of the object: it outlives a reset and eviction.)
    ///
    /// It first runs when the code that calls this waits or ends, and never before the constructor has returned: a
    /// constructor that waits for a task of its own waits in vain. It does not run during a critical section of others.
    /// A reset drops it. A panic in it resets the object.
    pub fn wait_until(&self, task: impl Future<Output = ()> + 'static) {
        self.control.wait_until(task.boxed_local());
    }
}

/// Runs `code` as that of a critical section that has been entered. Where it takes too long, the object is reset, and
/// this waits for ever: whatever waits here is dropped with the object.
pub(super) async fn run_within<T>(
    control: &dyn Control,
    what: &str,
    section: &Section,
    code: impl Future<Output = T>,
) -> T {
    let timeout = control.critical_section_timeout();
    if let Ok(value) = tokio::time::timeout(timeout, section.run(code)).await {
        return value;
    }
    let text = format!("{what} took over {timeout:?}; the object was reset");
    control.reset(Error::timeout(text));
    std::future::pending().await
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("State").field(&self.control.identity()).finish()
    }
}
