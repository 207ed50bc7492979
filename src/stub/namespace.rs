//! All objects of one class, as their users see them.

use std::rc::Rc;

use capnp::capability::FromClientHook;
#[cfg(feature = "server")]
use capnp::private::capability::ClientHook;

use super::client::Link;
use super::reference::Stub;
use super::wire;
use crate::error::Result;
use crate::gate::Outbox;
use crate::id::ObjectId;
use crate::limits::Limits;
use crate::stubborn_capnp::{error, id_outcome, namespace, namespace_info, stub};

/// Which object a stub is to refer to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The object with this id.
    Id(ObjectId),
    /// The object that this name leads to.
    Name(String),
    /// The object with this id, provided that it exists.
    Existing(ObjectId),
}

/// All objects of one class.
///
/// Making an id or a stub creates nothing; the first event creates the object. Dropping a namespace ends
/// nothing else.
#[derive(Clone)]
pub struct Namespace {
    client: namespace::Client,
    stubs: Rc<dyn Fn(&Target) -> stub::Client>,
    link: Option<Rc<Link>>,
    limits: Rc<Limits>,
    /// What the bodies of requests leave by, where an object sends them.
    outbox: Option<Rc<Outbox>>,
}

/// Leads a reference another way.
#[cfg(feature = "server")]
type Lead = Rc<dyn Fn(Box<dyn ClientHook>) -> Box<dyn ClientHook>>;

impl Namespace {
    /// Makes a namespace of a capability of another vat: stubs are pipelined.
    pub(crate) fn remote(client: namespace::Client, link: Rc<Link>, limits: Rc<Limits>) -> Self {
        let source = client.clone();
        let stubs = Rc::new(move |target: &Target| pipelined(&source, target));
        Self { client, stubs, link: Some(link), limits, outbox: None }
    }

    /// Makes a namespace of this vat: `stubs` makes stubs at once.
    #[cfg(feature = "server")]
    pub(crate) fn local(
        client: namespace::Client,
        stubs: Rc<dyn Fn(&Target) -> stub::Client>,
        limits: Rc<Limits>,
    ) -> Self {
        Self { client, stubs, link: None, limits, outbox: None }
    }

    /// Returns the same namespace for an object: its references go the way of `lead`, and the bodies that are
    /// sent by them leave by `outbox`.
    #[cfg(feature = "server")]
    pub(crate) fn led(self, outbox: Rc<Outbox>, lead: Lead) -> Self {
        let Self { client, stubs, link, limits, .. } = self;
        let client = namespace::Client::new(lead(client.into_client_hook()));
        let stubs = Rc::new(move |target: &Target| {
            stub::Client::new(lead(stubs(target).into_client_hook()))
        });
        Self { client, stubs, link, limits, outbox: Some(outbox) }
    }

    /// Returns the stub of the object with this id, at once; calls may be made straight away.
    ///
    /// There is always an object behind it. Where `id` is of another namespace, calls fail with
    /// *wrong namespace*.
    pub fn get(&self, id: ObjectId) -> Stub {
        self.stub(&Target::Id(id))
    }

    /// Returns the stub of the object that `name` leads to, at once. The object then knows its name.
    pub fn get_by_name(&self, name: &str) -> Stub {
        self.stub(&Target::Name(name.to_owned()))
    }

    /// Returns a stub whose calls fail with *no such object* where nothing was stored and nothing runs.
    pub fn get_existing(&self, id: ObjectId) -> Stub {
        self.stub(&Target::Existing(id))
    }

    /// Returns the stub of `target`, at once.
    pub fn stub(&self, target: &Target) -> Stub {
        let outbox = self.outbox.clone();
        Stub::new((self.stubs)(target), self.link.clone(), self.limits.clone(), outbox)
    }

    /// Asks for the id that belongs to `name`: always the same one.
    ///
    /// # Errors
    /// Where the server can't be reached.
    pub async fn id_from_name(&self, name: &str) -> Result<ObjectId> {
        let mut call = self.client.id_from_name_request();
        call.get().set_name(name);
        let answer = call.send().promise.await?;
        let answer = answer.get()?;
        failed(answer.has_error(), || answer.get_error())?;
        ObjectId::try_from(answer.get_id()?)
    }

    /// Parses 64 hex digits and proves that the id belongs to this namespace.
    ///
    /// # Errors
    /// *invalid id*, *wrong namespace*, or where the server can't be reached.
    pub async fn id_from_string(&self, text: &str) -> Result<ObjectId> {
        let mut call = self.client.id_from_string_request();
        call.get().set_text(text);
        let answer = call.send().promise.await?;
        match answer.get()?.which()? {
            id_outcome::Id(id) => ObjectId::try_from(id?),
            id_outcome::Error(error) => Err(wire::read_error(error?)?),
        }
    }

    /// Asks for a new random id, which no name leads to.
    ///
    /// # Errors
    /// Where the server can't be reached.
    pub async fn new_unique_id(&self) -> Result<ObjectId> {
        let answer = self.client.new_unique_id_request().send().promise.await?;
        let answer = answer.get()?;
        failed(answer.has_error(), || answer.get_error())?;
        ObjectId::try_from(answer.get_id()?)
    }

    /// Lists up to `limit` objects that exist, ordered by id, from after `cursor`.
    ///
    /// # Errors
    /// *invalid request* where `limit` is not 1 to 10,000 or `cursor` came from elsewhere.
    pub async fn list(&self, limit: u32, cursor: Option<&str>) -> Result<Page> {
        let mut call = self.client.list_request();
        call.get().set_limit(limit);
        if let Some(cursor) = cursor {
            call.get().set_cursor(cursor);
        }
        let answer = call.send().promise.await?;
        let answer = answer.get()?;
        failed(answer.has_error(), || answer.get_error())?;
        let mut objects = Vec::with_capacity(answer.get_objects()?.len() as usize);
        for object in answer.get_objects()? {
            objects.push(ObjectInfo {
                id: ObjectId::try_from(object.get_id()?)?,
                name: if object.has_name() { Some(object.get_name()?.to_string()?) } else { None },
                has_stored_data: object.get_has_stored_data(),
            });
        }
        let cursor =
            if answer.has_cursor() { Some(answer.get_cursor()?.to_string()?) } else { None };
        Ok(Page { objects, cursor })
    }

    /// Asks for its name and class.
    ///
    /// # Errors
    /// *no such namespace* where the server has none of that name.
    pub async fn about(&self) -> Result<NamespaceInfo> {
        let answer = self.client.about_request().send().promise.await?;
        let answer = answer.get()?;
        failed(answer.has_error(), || answer.get_error())?;
        NamespaceInfo::read(answer.get_info()?)
    }
}

/// Returns the error that an answer holds, where it holds one.
fn failed<'a>(
    is_some: bool,
    error: impl FnOnce() -> capnp::Result<error::Reader<'a>>,
) -> Result<()> {
    if is_some { Err(wire::read_error(error()?)?) } else { Ok(()) }
}

/// Asks for the stub of `target`, and returns it at once.
///
/// Calls go by way of the question until its answer has come, and to the stub itself from then on: the
/// server looks for each of the former in the answer, which it has to keep for them.
fn pipelined(namespace: &namespace::Client, target: &Target) -> stub::Client {
    match target {
        Target::Id(id) => {
            let mut call = namespace.get_request();
            call.get().set_id(id.as_bytes());
            let pipeline = call.send().pipeline;
            keep_until_resolved(pipeline.get_stub(), pipeline)
        }
        Target::Name(name) => {
            let mut call = namespace.get_by_name_request();
            call.get().set_name(name.as_str());
            let pipeline = call.send().pipeline;
            keep_until_resolved(pipeline.get_stub(), pipeline)
        }
        Target::Existing(id) => {
            let mut call = namespace.get_existing_request();
            call.get().set_id(id.as_bytes());
            let pipeline = call.send().pipeline;
            keep_until_resolved(pipeline.get_stub(), pipeline)
        }
    }
}

/// Only a pipeline that lives resolves the capabilities that it gave.
fn keep_until_resolved(stub: stub::Client, pipeline: impl Sized + 'static) -> stub::Client {
    if let Some(resolved) = stub.as_client_hook().when_more_resolved() {
        tokio::task::spawn_local(async move {
            // Where it fails, so do the calls.
            let _ = resolved.await;
            drop(pipeline);
        });
    }
    stub
}

/// A namespace, as listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceInfo {
    /// Its name.
    pub name: String,
    /// The class of its objects.
    pub class: String,
}

impl NamespaceInfo {
    pub(crate) fn read(from: namespace_info::Reader<'_>) -> Result<Self> {
        Ok(Self { name: from.get_name()?.to_string()?, class: from.get_class()?.to_string()? })
    }
}

/// An object, as listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Its id.
    pub id: ObjectId,
    /// Its name, where it was ever reached by one.
    pub name: Option<String>,
    /// Whether its storage holds anything.
    pub has_stored_data: bool,
}

/// One page of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The objects, ordered by id.
    pub objects: Vec<ObjectInfo>,
    /// Where the next page begins; none after the last one.
    pub cursor: Option<String>,
}
