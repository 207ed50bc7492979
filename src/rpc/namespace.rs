//! Serves one namespace.

use std::rc::Rc;
use std::sync::Arc;

use super::connection::{Ticket, Tickets};
use super::forward::Forward;
use super::hook::{Route, StubHook};
use super::pair::Pairs;
use crate::error::{Error, Result};
use crate::id::ObjectId;
use crate::runtime::{self, Key, Lane, Listed, NamespaceConfig, Page, RemoteLane, Shard};
use crate::stub::{Referent, Target, wire};
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

    /// Makes the stub of the object at `address`, by the way that its class and its thread want.
    fn reach(
        &self,
        pairs: &Pairs,
        target: &Target,
        address: runtime::Address,
        ticket: Option<Ticket>,
    ) -> stub::Client {
        let (shard, config) = (&self.shard, self.config());
        let to = shard.placement().shard(&address.key.id);
        let here = to == shard.index();
        if !here && config.class().is_typed() {
            return Forward::client(pairs.stub(shard, to, config.name(), target), ticket);
        }
        let referent = Referent {
            namespace: config.name().to_owned(),
            id: address.key.id,
            name: address.name.as_deref().map(str::to_owned),
        };
        let route = if here {
            Route::Local(Lane::new(shard.clone(), address))
        } else {
            Route::Remote(RemoteLane::new(shard.clone(), to, address))
        };
        StubHook::client(route, referent, shard.limits().clone(), ticket)
    }
}

/// Serves one namespace to one connection, or to the objects of one shard. It is to be served by
/// [`Prompt`](super::prompt::Prompt): what is pipelined on a stub then reaches the stub at once.
pub struct NamespaceDoor {
    found: Result<Found>,
    pairs: Rc<Pairs>,
    stubs: Option<Tickets>,
    /// A namespace counts among the stubs of its connection.
    _ticket: Option<Ticket>,
}

impl NamespaceDoor {
    /// Makes the door of a namespace, or of one that was not found.
    ///
    /// # Errors
    /// *overloaded* where the connection holds as many as it may.
    pub fn new(found: Result<Found>, pairs: Rc<Pairs>, stubs: Option<Tickets>) -> Result<Self> {
        let ticket = stubs.as_ref().map(Tickets::take).transpose()?;
        Ok(Self { found, pairs, stubs, _ticket: ticket })
    }

    /// Returns the namespace.
    ///
    /// # Errors
    /// *no such namespace*.
    pub fn found(&self) -> Result<&Found> {
        self.found.as_ref().map_err(Clone::clone)
    }

    /// Makes a stub, at once. Where it can't refer to anything, its calls say why.
    ///
    /// # Errors
    /// *overloaded* where the connection holds as many stubs as it may.
    pub fn stub(&self, target: Result<&Target>) -> Result<stub::Client> {
        let ticket = self.stubs.as_ref().map(Tickets::take).transpose()?;
        let refusal = match target.and_then(|target| self.address(target).map(|at| (target, at))) {
            Ok((target, address)) => {
                return Ok(self.found()?.reach(&self.pairs, target, address, ticket));
            }
            Err(refusal) => refusal,
        };
        let namespace =
            self.found.as_ref().map_or(String::new(), |found| found.config().name().into());
        let limits = self.found.as_ref().map(|found| found.shard.limits().clone());
        let referent = Referent { namespace, id: ObjectId::from_bytes([0; 32]), name: None };
        Ok(StubHook::client(Route::Refused(refusal), referent, limits.unwrap_or_default(), ticket))
    }

    /// Returns where the object of `target` is.
    fn address(&self, target: &Target) -> Result<runtime::Address> {
        let found = self.found()?;
        let ids = found.config().ids();
        let (id, name) = match target {
            Target::Name(name) => {
                let (bytes, max) = (name.len(), found.shard.limits().name_bytes_max);
                if bytes > max {
                    let text = format!("a name of {bytes} bytes, of at most {max}");
                    return Err(Error::invalid_request(text));
                }
                let kept = (bytes <= runtime::NAME_BYTES_KEPT).then(|| Arc::from(name.as_str()));
                (ids.id_from_name(name), kept)
            }
            Target::Id(id) | Target::Existing(id) => {
                ids.check(id)?;
                (*id, None)
            }
        };
        let existing = matches!(target, Target::Existing(_));
        Ok(runtime::Address { key: Key { namespace: found.number, id }, name, existing })
    }
}

/// Reads an id that a caller gave.
fn target_of(id: &[u8], target: fn(ObjectId) -> Target) -> Result<Target> {
    ObjectId::try_from(id).map(target)
}

/// Takes of a page what fits into a message, at least one; returns whether some are left.
fn fit(objects: &mut Vec<Listed>, message_bytes_max: usize) -> bool {
    /// What an object takes beside its name, in a message.
    const OBJECT_BYTES: usize = 96;
    let mut left = message_bytes_max / 2;
    let fitting = objects.iter().take_while(|object| {
        let bytes = OBJECT_BYTES + object.name.as_ref().map_or(0, String::len);
        let fits = bytes <= left;
        left = left.saturating_sub(bytes);
        fits
    });
    let count = fitting.count().max(1);
    let more = objects.len() > count;
    objects.truncate(count);
    more
}

impl NamespaceDoor {
    /// Lists a page, and says where the next one begins.
    async fn page(&self, limit: u32, cursor: Option<&str>) -> Result<Page> {
        if !(1..=LIST_MAX).contains(&limit) {
            let text = format!("limit {limit} is not 1 to {LIST_MAX}");
            return Err(Error::invalid_request(text));
        }
        let parse = |cursor: &str| {
            let wrong = |_| Error::invalid_request(format!("`{cursor:.100}` is not a cursor"));
            cursor.parse::<ObjectId>().map_err(wrong)
        };
        let after = cursor.map(parse).transpose()?;
        let found = self.found()?;
        let mut page = runtime::gather(&found.shard, found.number, limit as usize, after).await?;
        if fit(&mut page.objects, found.shard.limits().message_bytes_max) {
            page.next = page.objects.last().map(|last| last.id);
        }
        Ok(page)
    }

    fn new_unique_id(&self) -> Result<ObjectId> {
        let found = self.found()?;
        Ok(found.config().ids().new_unique_id(found.shard.entropy().bytes()))
    }
}

impl namespace::Server for NamespaceDoor {
    async fn get(
        self: Rc<Self>,
        params: namespace::GetParams,
        mut results: namespace::GetResults,
    ) -> Result<(), capnp::Error> {
        let target = target_of(params.get()?.get_id()?, Target::Id);
        results.get().set_stub(self.stub(target.as_ref().map_err(Clone::clone))?);
        results.set_pipeline()
    }

    async fn get_by_name(
        self: Rc<Self>,
        params: namespace::GetByNameParams,
        mut results: namespace::GetByNameResults,
    ) -> Result<(), capnp::Error> {
        let name = params.get()?.get_name()?.to_string()?;
        results.get().set_stub(self.stub(Ok(&Target::Name(name)))?);
        results.set_pipeline()
    }

    async fn get_existing(
        self: Rc<Self>,
        params: namespace::GetExistingParams,
        mut results: namespace::GetExistingResults,
    ) -> Result<(), capnp::Error> {
        let target = target_of(params.get()?.get_id()?, Target::Existing);
        results.get().set_stub(self.stub(target.as_ref().map_err(Clone::clone))?);
        results.set_pipeline()
    }

    async fn id_from_name(
        self: Rc<Self>,
        params: namespace::IdFromNameParams,
        mut results: namespace::IdFromNameResults,
    ) -> Result<(), capnp::Error> {
        let name = params.get()?.get_name()?.to_str()?;
        match self.found() {
            Ok(found) => results.get().set_id(found.config().ids().id_from_name(name).as_bytes()),
            Err(error) => wire::write_error(results.get().init_error(), &error),
        }
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
        match NamespaceDoor::new_unique_id(&self) {
            Ok(id) => results.get().set_id(id.as_bytes()),
            Err(error) => wire::write_error(results.get().init_error(), &error),
        }
        Ok(())
    }

    async fn list(
        self: Rc<Self>,
        params: namespace::ListParams,
        mut results: namespace::ListResults,
    ) -> Result<(), capnp::Error> {
        let params = params.get()?;
        let cursor = match params.has_cursor() {
            true => Some(params.get_cursor()?.to_str()?),
            false => None,
        };
        let page = self.page(params.get_limit(), cursor).await;
        let mut answer = results.get();
        let Page { objects, next } = match page {
            Ok(page) => page,
            Err(error) => {
                wire::write_error(answer.init_error(), &error);
                return Ok(());
            }
        };
        if let Some(next) = next {
            answer.set_cursor(next.to_string().as_str());
        }
        let count = u32::try_from(objects.len()).unwrap_or(LIST_MAX);
        let mut list = answer.init_objects(count);
        for (index, object) in (0..count).zip(&objects) {
            let mut entry = list.reborrow().get(index);
            entry.set_id(object.id.as_bytes());
            if let Some(name) = &object.name {
                entry.set_name(name.as_str());
            }
            entry.set_has_stored_data(object.has_stored_data);
        }
        Ok(())
    }

    async fn about(
        self: Rc<Self>,
        _params: namespace::AboutParams,
        mut results: namespace::AboutResults,
    ) -> Result<(), capnp::Error> {
        match self.found() {
            Ok(found) => {
                let mut info = results.get().init_info();
                info.set_name(found.config().name());
                info.set_class(found.config().class().name());
            }
            Err(error) => wire::write_error(results.get().init_error(), &error),
        }
        Ok(())
    }
}
