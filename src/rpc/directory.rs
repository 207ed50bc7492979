//! Finds namespaces: for connections, and for the node's own objects.

use std::rc::{Rc, Weak};

use super::connection::Tickets;
use super::namespace::{Found, NamespaceDoor};
use super::pair::Pairs;
use super::prompt::Prompt;
use crate::error::Result;
use crate::object::Directory;
use crate::runtime::{Doors, Shard};
use crate::stub::{Namespace, Target};
use crate::stubborn_capnp::namespace;

/// Gives each shard a directory that makes stubs as connections get them.
#[derive(Debug, Default)]
pub struct RpcDoors;

impl Doors for RpcDoors {
    fn directory(&self, shard: &Rc<Shard>) -> Rc<dyn Directory> {
        Rc::new(RpcDirectory::new(shard, None))
    }
}

/// Finds namespaces on one shard.
pub struct RpcDirectory {
    shard: Weak<Shard>,
    pairs: Rc<Pairs>,
    stubs: Option<Tickets>,
}

impl RpcDirectory {
    /// Makes a directory for the objects of `shard`, or for one of its connections.
    pub fn new(shard: &Rc<Shard>, stubs: Option<Tickets>) -> Self {
        Self { shard: Rc::downgrade(shard), pairs: Rc::default(), stubs }
    }

    fn door(&self, name: &str) -> Result<Rc<NamespaceDoor>> {
        let found = match self.shard.upgrade() {
            Some(shard) => shard.namespaces().find(name).map(|number| Found { shard, number }),
            None => Err(crate::Error::disconnected("the server has stopped")),
        };
        let (pairs, stubs) = (self.pairs.clone(), self.stubs.clone());
        Ok(Rc::new(NamespaceDoor::new(found, pairs, stubs)?))
    }

    /// Returns the namespace called `name` as a capability. One that does not exist says so when called.
    ///
    /// # Errors
    /// *overloaded* where the connection holds as many capabilities as it may.
    pub fn capability(&self, name: &str) -> Result<namespace::Client> {
        Ok(Prompt::client(self.door(name)?))
    }
}

impl Directory for RpcDirectory {
    fn namespace(&self, name: &str) -> Result<Namespace> {
        let door = self.door(name)?;
        let limits = door.found()?.shard.limits().clone();
        let client = Prompt::client(door.clone());
        let stubs = Rc::new(move |target: &Target| {
            door.stub(Ok(target)).expect("the objects of this node hold any number of stubs")
        });
        Ok(Namespace::local(client, stubs, limits))
    }
}
