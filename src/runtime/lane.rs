//! A stub's end: the path on which its calls keep their order.
//!
//! **Invariant:** a lane binds to the object's container at its first call and never to another. So a stub
//! whose object was reset stays broken, and one that was never used is not.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use futures::channel::oneshot;

use super::container::{Container, Phase, add_watcher};
use super::event::{Answer, Event, TypedReply};
use super::registry::Key;
use super::shard::{LaneKey, Parcel, Shard};
use crate::error::{Error, Kind};
use crate::message::Request;
use crate::object::{Line, TypedCall};

/// Which object a lane leads to, and how it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The object.
    pub key: Key,
    /// The name it was asked for by.
    pub name: Option<Arc<str>>,
    /// Whether it must exist already.
    pub existing: bool,
}

/// The end of one stub, on its object's own thread.
pub struct Lane {
    shard: Rc<Shard>,
    address: Address,
    container: RefCell<Option<Rc<Container>>>,
    /// Watchers of a lane that is not bound yet.
    watchers: RefCell<Vec<oneshot::Sender<Error>>>,
}

impl Lane {
    /// Makes the end of a stub of an object that lives on this thread.
    pub fn new(shard: Rc<Shard>, address: Address) -> Rc<Self> {
        let (container, watchers) = Default::default();
        Rc::new(Self { shard, address, container, watchers })
    }

    /// Puts an event in line for the object. Order is decided here, before anything waits.
    pub fn send(self: &Rc<Self>, event: Event) {
        let container = match self.bind() {
            Ok(container) => container,
            Err(error) => return event.fail(error),
        };
        match container.broken() {
            Some(reason) => event.fail(reason.with_delivered(false)),
            None => container.push(event, Some(self)),
        }
    }

    /// Has `watcher` told when the stub breaks.
    pub fn watch(&self, watcher: oneshot::Sender<Error>) {
        match &*self.container.borrow() {
            Some(container) => container.watch(watcher),
            None => {
                add_watcher(&mut self.watchers.borrow_mut(), watcher);
            }
        }
    }

    fn bind(&self) -> Result<Rc<Container>, Error> {
        if let Some(container) = &*self.container.borrow() {
            return Ok(container.clone());
        }
        if let Some(error) = self.shard.refusal() {
            return Err(error);
        }
        let registry = self.shard.registry();
        if self.address.existing
            && !registry.contains(&self.address.key)
            && self.shard.record(&self.shard.object_key(self.address.key))?.is_none()
        {
            let id = self.address.key.id;
            return Err(Error::new(Kind::NoSuchObject, format!("object {id} does not exist")));
        }
        let container = registry.container(self.address.key, &self.shard);
        if let Some(name) = &self.address.name {
            container.learn_name(name);
        }
        self.watchers.take().into_iter().for_each(|watcher| container.watch(watcher));
        *self.container.borrow_mut() = Some(container.clone());
        Ok(container)
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        if let Some(container) = self.container.take()
            && container.phase() == Phase::Absent
        {
            self.shard.registry().forget_unused(&container);
        }
    }
}

/// The line of a capability that an object made to itself, for as long as it is in memory.
pub struct OwnLine {
    /// Bound to the object's container.
    lane: Rc<Lane>,
    /// The activation that made it.
    activation: u64,
}

impl OwnLine {
    /// Makes one to the present activation of `container`; none where its thread has ended.
    pub fn of(container: &Rc<Container>) -> Option<Rc<dyn Line>> {
        let shard = container.shard()?;
        let address = Address { key: container.key(), name: None, existing: false };
        let lane = Lane::new(shard, address);
        *lane.container.borrow_mut() = Some(container.clone());
        Some(Rc::new(Self { lane, activation: container.activation() }))
    }
}

impl Line for OwnLine {
    fn call(&self, call: TypedCall, reply: TypedReply) {
        let event = Event::Typed { call, reply };
        let container = self.lane.container.borrow().clone();
        match container.is_some_and(|container| container.activation() == self.activation) {
            true => self.lane.send(event),
            false => event.fail(self.gone()),
        }
    }

    fn gone(&self) -> Error {
        let container = self.lane.container.borrow();
        let reason = container.as_ref().and_then(|container| container.broken());
        let left = || Error::disconnected("the object has left memory");
        reason.unwrap_or_else(left).with_delivered(false)
    }
}

/// The near end of a stub whose object lives on another thread.
///
/// Only what can change threads goes by it: fetches, not references.
pub struct RemoteLane {
    shard: Rc<Shard>,
    key: LaneKey,
    to: usize,
    address: Address,
    opened: Cell<bool>,
}

impl RemoteLane {
    /// Makes the near end of a stub of an object that lives on shard `to`.
    pub fn new(shard: Rc<Shard>, to: usize, address: Address) -> Self {
        let key = shard.new_lane_key();
        Self { shard, key, to, address, opened: Cell::new(false) }
    }

    /// Puts a request in line for the object. Order is decided here, before anything waits.
    pub fn fetch(&self, request: Box<Request>, answer: Answer) {
        if !self.shard.has_room(self.to) {
            let error = Error::overloaded("too many calls wait for the object's thread");
            // Whoever waited may have gone meanwhile.
            return drop(answer.send(Err(error)));
        }
        let parcel = Parcel::Fetch { lane: self.key, address: self.opening(), request, answer };
        self.shard.post(self.to, parcel);
        self.opened.set(true);
    }

    /// Has `watcher` told when the stub breaks.
    pub fn watch(&self, watcher: oneshot::Sender<Error>) {
        let parcel = Parcel::Watch { lane: self.key, address: self.opening(), watcher };
        self.shard.post(self.to, parcel);
        self.opened.set(true);
    }

    fn opening(&self) -> Option<Box<Address>> {
        (!self.opened.get()).then(|| Box::new(self.address.clone()))
    }
}

impl Drop for RemoteLane {
    fn drop(&mut self) {
        if self.opened.get() {
            self.shard.post(self.to, Parcel::Close { lane: self.key });
        }
    }
}
