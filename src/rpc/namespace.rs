//! Serves one namespace.

use std::rc::Rc;
use std::sync::Arc;

use futures::channel::oneshot;

use super::connection::Tickets;
use super::forward::Forward;
use super::hook::{Referent, Route, StubHook};
use super::pair::Pairs;
use crate::error::{Error, Result};
use crate::id::ObjectId;
use crate::runtime::{self, Key, Lane, Listed, NamespaceConfig, RemoteLane, Shard};
use crate::stub::{Target, wire};
use crate::stubborn_capnp::{namespace, stub};

/// Objects on one page of a listing, at most.
const LIST_MAX: u32 = 10_000;

/// A namespace that exists, seen from a shard.
pub struct Found {
    /// The shard of the caller, which need not be the object's.
    pub shard: Rc<Shard>,
    /// The namespace's number.
    pub number: usize,
}

impl Found {
    fn config(&self) -> &NamespaceConfig {
        self.shard.namespaces().at(self.number)
    }
}

/// Serves one namespace to one connection, or to the objects of one shard. It is to be served by
/// [`Prompt`](super::prompt::Prompt): what is pipelined on a stub then reaches the stub at once.
pub struct NamespaceDoor {
    found: Result<Found>,
    pairs: Rc<Pairs>,
    stubs: Option<Tickets>,
}

impl NamespaceDoor {
    /// Makes the door of a namespace, or of one that was not found.
    pub fn new(found: Result<Found>, pairs: Rc<Pairs>, stubs: Option<Tickets>) -> Self {
        Self { found, pairs, stubs }
    }

    /// Returns the namespace.
    ///
    /// # Errors
    /// *no such namespace*.
    pub fn found(&self) -> Result<&Found> {
        self.found.as_ref().map_err(Clone::clone)
    }

    /// Makes a stub, at once. Where it can't refer to anything, its calls say why.
    pub fn stub(&self, target: &Target) -> stub::Client {
        self.route(target).unwrap_or_else(|error| {
            let namespace = match &self.found {
                Ok(found) => found.config().name().to_owned(),
                Err(_) => String::new(),
            };
            let id = ObjectId::from_bytes([0; 32]);
            let limits = self.found.as_ref().map(|found| found.shard.limits().clone());
            let referent = Referent { namespace, id, name: None };
            StubHook::client(Route::Refused(error), referent, limits.unwrap_or_default(), None)
        })
    }

    fn route(&self, target: &Target) -> Result<stub::Client> {
        let found = self.found()?;
        let (shard, config) = (&found.shard, found.config());
        let ticket = self.stubs.as_ref().map(Tickets::take).transpose()?;
        let (id, name) = match target {
            Target::Name(name) => (config.ids().id_from_name(name), Some(name.as_str())),
            Target::Id(id) | Target::Existing(id) => {
                config.ids().check(id)?;
                (*id, None)
            }
        };
        let to = shard.placement().shard(&id);
        let here = to == shard.index();
        if !here && config.class().is_typed() {
            let onward = self.pairs.stub(shard, to, config.name(), target);
            return Ok(Forward::client(onward, ticket));
        }
        let address = runtime::Address {
            key: Key { namespace: found.number, id },
            name: name.map(Arc::from),
            existing: matches!(target, Target::Existing(_)),
        };
        let route = if here {
            Route::Local(Lane::new(shard.clone(), address))
        } else {
            Route::Remote(RemoteLane::new(shard.clone(), to, address))
        };
        let name = name.map(str::to_owned);
        let referent = Referent { namespace: config.name().to_owned(), id, name };
        Ok(StubHook::client(route, referent, shard.limits().clone(), ticket))
    }

    /// Asks every shard for its objects, and merges them. One more than `limit` tells whether there is more.
    async fn gather(&self, limit: usize, after: Option<ObjectId>) -> Result<Vec<Listed>> {
        let found = self.found()?;
        let number = found.number;
        let asked: Vec<_> = (0..found.shard.placement().shards())
            .map(|index| {
                let (reply, answer) = oneshot::channel();
                found.shard.run_on(index, move |shard| {
                    let _ = reply.send(shard.registry().list(number, after, limit + 1));
                });
                answer
            })
            .collect();
        let mut objects = Vec::new();
        for answer in asked {
            let stopped = |_| Error::disconnected("the server has stopped");
            objects.append(&mut answer.await.map_err(stopped)?);
        }
        objects.sort_unstable_by_key(|object| object.id);
        objects.truncate(limit + 1);
        Ok(objects)
    }
}

/// Reads an id that a caller gave, or the error that its stub will say.
fn target_of(id: &[u8], target: fn(ObjectId) -> Target) -> Result<Target> {
    ObjectId::try_from(id).map(target)
}

impl NamespaceDoor {
    fn stub_of(&self, target: Result<Target>) -> stub::Client {
        match target {
            Ok(target) => self.stub(&target),
            Err(error) => {
                let id = ObjectId::from_bytes([0; 32]);
                let referent = Referent { namespace: String::new(), id, name: None };
                StubHook::client(Route::Refused(error), referent, Rc::default(), None)
            }
        }
    }
}

impl namespace::Server for NamespaceDoor {
    async fn get(
        self: Rc<Self>,
        params: namespace::GetParams,
        mut results: namespace::GetResults,
    ) -> Result<(), capnp::Error> {
        let target = target_of(params.get()?.get_id()?, Target::Id);
        results.get().set_stub(self.stub_of(target));
        results.set_pipeline()
    }

    async fn get_by_name(
        self: Rc<Self>,
        params: namespace::GetByNameParams,
        mut results: namespace::GetByNameResults,
    ) -> Result<(), capnp::Error> {
        let name = params.get()?.get_name()?.to_string()?;
        results.get().set_stub(self.stub(&Target::Name(name)));
        results.set_pipeline()
    }

    async fn get_existing(
        self: Rc<Self>,
        params: namespace::GetExistingParams,
        mut results: namespace::GetExistingResults,
    ) -> Result<(), capnp::Error> {
        let target = target_of(params.get()?.get_id()?, Target::Existing);
        results.get().set_stub(self.stub_of(target));
        results.set_pipeline()
    }

    async fn id_from_name(
        self: Rc<Self>,
        params: namespace::IdFromNameParams,
        mut results: namespace::IdFromNameResults,
    ) -> Result<(), capnp::Error> {
        let name = params.get()?.get_name()?.to_str()?;
        let id = self.found()?.config().ids().id_from_name(name);
        results.get().set_id(id.as_bytes());
        Ok(())
    }

    async fn id_from_string(
        self: Rc<Self>,
        params: namespace::IdFromStringParams,
        mut results: namespace::IdFromStringResults,
    ) -> Result<(), capnp::Error> {
        let text = params.get()?.get_text()?.to_str()?;
        let parsed = self.found().and_then(|found| found.config().ids().id_from_string(text));
        match parsed {
            Ok(id) => results.get().set_id(id.as_bytes()),
            Err(error) => wire::write_error(results.get().init_error(), &error),
        }
        Ok(())
    }

    async fn new_unique_id(
        self: Rc<Self>,
        _params: namespace::NewUniqueIdParams,
        mut results: namespace::NewUniqueIdResults,
    ) -> Result<(), capnp::Error> {
        let found = self.found()?;
        let id = found.config().ids().new_unique_id(found.shard.entropy().bytes());
        results.get().set_id(id.as_bytes());
        Ok(())
    }

    async fn list(
        self: Rc<Self>,
        params: namespace::ListParams,
        mut results: namespace::ListResults,
    ) -> Result<(), capnp::Error> {
        let params = params.get()?;
        let limit = params.get_limit();
        if !(1..=LIST_MAX).contains(&limit) {
            let text = format!("limit {limit} is not 1 to {LIST_MAX}");
            return Err(Error::invalid_request(text).into());
        }
        let after = if params.has_cursor() {
            let cursor = params.get_cursor()?.to_str()?;
            let parsed = cursor.parse::<ObjectId>();
            Some(
                parsed
                    .map_err(|_| Error::invalid_request(format!("`{cursor}` is not a cursor")))?,
            )
        } else {
            None
        };
        let mut objects = self.gather(limit as usize, after).await?;
        let more = objects.len() > limit as usize;
        objects.truncate(limit as usize);
        let mut answer = results.get();
        if let Some(last) = objects.last().filter(|_| more) {
            answer.set_cursor(last.id.to_string().as_str());
        }
        let count = u32::try_from(objects.len()).unwrap_or(LIST_MAX);
        let mut list = answer.init_objects(count);
        for (index, object) in (0..count).zip(&objects) {
            let mut entry = list.reborrow().get(index);
            entry.set_id(object.id.as_bytes());
            if let Some(name) = &object.name {
                entry.set_name(name.as_str());
            }
        }
        Ok(())
    }

    async fn about(
        self: Rc<Self>,
        _params: namespace::AboutParams,
        mut results: namespace::AboutResults,
    ) -> Result<(), capnp::Error> {
        let config = self.found()?.config();
        results.get().set_name(config.name());
        results.get().set_class(config.class().name());
        Ok(())
    }
}
