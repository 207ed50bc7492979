//! The hibernatable WebSockets of objects: they belong to an object's container, and so outlive its activations.
//!
//! **Invariant:** of one WebSocket at most one event is in line or inside its object: events of it are handled one
//! after the other, in order. What it has not handled waits at its peer's end, and holds the peer back.
//! **Invariant:** a container that breaks drops the ends of its WebSockets; eviction and hibernation keep them.

use std::cell::{Cell, RefCell};
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::future::poll_fn;
use std::rc::{Rc, Weak};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures::task::AtomicWaker;

use super::container::{Container, Phase};
use super::event::Event;
use super::shard::Shard;
use crate::error::{Error, Result};
use crate::object::{Accepted, SOCKETS_MAX};
use crate::socket::{Text, WebSocket};

/// The hibernatable WebSockets of one object.
#[derive(Default)]
pub struct ObjectSockets {
    all: RefCell<ByNumber>,
    tagged: RefCell<HashMap<Rc<str>, ByNumber>>,
    auto_response: RefCell<Option<(Text, Text)>>,
}

type ByNumber = BTreeMap<u64, Rc<Accepted>>;

impl ObjectSockets {
    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.all.borrow().is_empty()
    }

    /// Returns those that are open, or those that have `tag`, in the order in which they were accepted.
    pub fn open(&self, tag: Option<&str>) -> Vec<Rc<Accepted>> {
        let open = |of: &ByNumber| {
            of.values().filter(|accepted| accepted.is_open()).cloned().collect::<Vec<_>>()
        };
        match tag {
            None => open(&self.all.borrow()),
            Some(tag) => self.tagged.borrow().get(tag).map(open).unwrap_or_default(),
        }
    }

    /// Returns the tags, each as the other WebSockets have it.
    fn shared(&self, tags: Box<[Rc<str>]>) -> Box<[Rc<str>]> {
        let tagged = self.tagged.borrow();
        let shared = |tag| tagged.get_key_value(&tag).map_or(tag, |(known, _)| known.clone());
        tags.into_iter().map(shared).collect()
    }

    fn insert(&self, accepted: &Rc<Accepted>) {
        self.all.borrow_mut().insert(accepted.id(), accepted.clone());
        let mut tagged = self.tagged.borrow_mut();
        for tag in accepted.tags() {
            tagged.entry(tag.clone()).or_default().insert(accepted.id(), accepted.clone());
        }
    }

    fn remove(&self, accepted: &Accepted) {
        self.all.borrow_mut().remove(&accepted.id());
        let mut tagged = self.tagged.borrow_mut();
        for tag in accepted.tags() {
            if let Entry::Occupied(mut with_tag) = tagged.entry(tag.clone()) {
                with_tag.get_mut().remove(&accepted.id());
                if with_tag.get().is_empty() {
                    with_tag.remove();
                }
            }
        }
    }

    /// Sets what is answered without the object.
    pub fn set_auto_response(&self, pair: Option<(Text, Text)>) {
        *self.auto_response.borrow_mut() = pair;
    }

    /// Returns what is answered without the object.
    pub fn auto_response(&self) -> Option<(Text, Text)> {
        self.auto_response.borrow().clone()
    }
}

/// All hibernatable WebSockets of a thread, by their numbers, and who waits to be looked at.
#[derive(Default)]
pub struct Sockets {
    ear: Arc<Ear>,
    places: RefCell<HashMap<u64, Place>>,
    count: Cell<u64>,
}

struct Place {
    container: Weak<Container>,
    accepted: Rc<Accepted>,
}

/// Hears from every thread which WebSockets have something to take.
#[derive(Default)]
struct Ear {
    /// At most one entry for a WebSocket that has rung since it was looked at.
    rung: Mutex<Vec<u64>>,
    waker: AtomicWaker,
}

/// Wakes the thread for one WebSocket.
struct Ring {
    ear: Arc<Ear>,
    number: u64,
}

impl Wake for Ring {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ear.rung.lock().unwrap_or_else(PoisonError::into_inner).push(self.number);
        self.ear.waker.wake();
    }
}

impl Ear {
    fn poll_rung(&self, context: &Context<'_>) -> Poll<Vec<u64>> {
        self.waker.register(context.waker());
        let rung = std::mem::take(&mut *self.rung.lock().unwrap_or_else(PoisonError::into_inner));
        if rung.is_empty() { Poll::Pending } else { Poll::Ready(rung) }
    }
}

/// Looks at the WebSockets that have something to take, for ever.
pub async fn listen(shard: Weak<Shard>) {
    let Some(ear) = shard.upgrade().map(|shard| shard.sockets().ear.clone()) else { return };
    loop {
        let rung = poll_fn(|context| ear.poll_rung(context)).await;
        let Some(shard) = shard.upgrade() else { return };
        for number in rung {
            let place = {
                let places = shard.sockets().places.borrow();
                places.get(&number).map(|place| (place.container.upgrade(), place.accepted.clone()))
            };
            if let Some((Some(container), accepted)) = place {
                container.listen(&accepted);
            }
        }
    }
}

impl Container {
    /// Keeps `end` as a hibernatable WebSocket.
    ///
    /// # Errors
    /// *overloaded* where there are too many.
    pub fn accept(
        self: &Rc<Self>,
        shard: &Rc<Shard>,
        end: WebSocket,
        tags: Box<[Rc<str>]>,
    ) -> Result<Rc<Accepted>> {
        if self.sockets().all.borrow().len() >= SOCKETS_MAX {
            let text = format!("the object has {SOCKETS_MAX} WebSockets, the most it may");
            return Err(Error::overloaded(text));
        }
        let sockets = shard.sockets();
        let number = sockets.count.get() + 1;
        sockets.count.set(number);
        let waker = Waker::from(Arc::new(Ring { ear: sockets.ear.clone(), number }));
        let tags = self.sockets().shared(tags);
        let accepted = Accepted::new(number, end, tags, waker, shard.limits());
        let place = Place { container: Rc::downgrade(self), accepted: accepted.clone() };
        sockets.places.borrow_mut().insert(number, place);
        self.sockets().insert(&accepted);
        self.listen(&accepted);
        Ok(accepted)
    }

    /// Looks whether a WebSocket has something to take: what is answered automatically is, the rest is put
    /// in line.
    fn listen(self: &Rc<Self>, accepted: &Rc<Accepted>) {
        let Some(shard) = self.shard() else { return };
        if self.is_broken() || accepted.set_busy(true) {
            return;
        }
        let auto_response = self.sockets().auto_response();
        for _ in 0..AUTO_RESPONSES_PER_TURN {
            if !accepted.is_ready() {
                accepted.set_busy(false);
                return;
            }
            match &auto_response {
                Some((request, response)) if accepted.take_text(request) => {
                    self.auto_respond(&shard, accepted, response.clone());
                }
                _ => return self.line_up(&shard, accepted),
            }
        }
        self.listen_again(accepted, Duration::ZERO);
    }

    /// Answers without the object, but behind what it has said.
    fn auto_respond(&self, shard: &Shard, accepted: &Rc<Accepted>, response: Text) {
        let now_ms = shard.storages().rules().clock.unix_ms();
        let interior = self.interior();
        let outbox = interior.as_ref().map(|interior| &*interior.outbox);
        accepted.auto_respond(response, now_ms, outbox);
    }

    /// Puts an event of a WebSocket in line, and brings the object into memory where it is not.
    fn line_up(self: &Rc<Self>, shard: &Rc<Shard>, accepted: &Rc<Accepted>) {
        if shard.refusal().is_some() {
            return;
        }
        let full = (self.phase() == Phase::Absent).then(|| shard.no_room()).flatten();
        if full.or_else(|| shard.storage_is_behind()).is_some() {
            return self.listen_again(accepted, LISTEN_AGAIN_AFTER);
        }
        self.put_in_line(Event::Socket { accepted: accepted.clone() }, shard);
    }

    /// Looks again after `delay`: other tasks of the thread get their turn, or the thread has room by then.
    fn listen_again(self: &Rc<Self>, accepted: &Rc<Accepted>, delay: Duration) {
        let (container, accepted) = (Rc::downgrade(self), accepted.clone());
        tokio::task::spawn_local(async move {
            tokio::time::sleep(delay).await;
            if let Some(container) = container.upgrade() {
                container.heard(&accepted);
            }
        });
    }

    /// Notes that no event of a WebSocket is under way any more, and looks for the next.
    pub fn heard(self: &Rc<Self>, accepted: &Rc<Accepted>) {
        accepted.set_busy(false);
        self.listen(accepted);
    }

    /// Drops a WebSocket that has ended.
    pub fn forget_socket(self: &Rc<Self>, accepted: &Accepted) {
        self.sockets().remove(accepted);
        accepted.drop_end();
        let Some(shard) = self.shard() else { return };
        shard.sockets().places.borrow_mut().remove(&accepted.id());
        if self.phase() == Phase::Absent {
            shard.registry().forget_unused(self);
        }
    }

    /// Drops all its WebSockets, because it is broken.
    pub fn drop_sockets(&self) {
        let open = self.sockets().all.take();
        drop(self.sockets().tagged.take());
        let shard = self.shard();
        for (number, accepted) in open {
            if let Some(shard) = &shard {
                shard.sockets().places.borrow_mut().remove(&number);
            }
            accepted.drop_end();
        }
    }

    /// Tells the peers of its WebSockets that the server goes away.
    pub fn close_sockets(&self, reason: &str) {
        self.sockets().all.borrow().values().for_each(|accepted| accepted.go_away(reason));
    }
}

/// Automatic answers to one WebSocket before other tasks of the thread get their turn.
const AUTO_RESPONSES_PER_TURN: usize = 64;
/// How long a WebSocket waits whose object has no room in memory.
const LISTEN_AGAIN_AFTER: Duration = Duration::from_millis(50);
