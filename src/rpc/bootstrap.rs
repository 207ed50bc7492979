//! What a connection begins with.

use std::rc::Rc;

use super::connection::Tickets;
use super::directory::RpcDirectory;
use super::prompt::Prompt;
use crate::contract::REVISION;
use crate::runtime::Shard;
use crate::stubborn_capnp::server;

/// The bootstrap capability of one connection.
pub struct Bootstrap {
    shard: Rc<Shard>,
    directory: RpcDirectory,
}

impl Bootstrap {
    /// Makes the bootstrap of a connection that may hold as many stubs as `stubs` says.
    pub fn client(shard: Rc<Shard>, stubs: Option<Tickets>) -> server::Client {
        let directory = RpcDirectory::new(&shard, stubs);
        Prompt::client(Rc::new(Self { shard, directory }))
    }
}

impl server::Server for Bootstrap {
    async fn namespace(
        self: Rc<Self>,
        params: server::NamespaceParams,
        mut results: server::NamespaceResults,
    ) -> Result<(), capnp::Error> {
        let name = params.get()?.get_name()?.to_str()?;
        results.get().set_namespace(self.directory.capability(name)?);
        results.set_pipeline()
    }

    async fn list_namespaces(
        self: Rc<Self>,
        _params: server::ListNamespacesParams,
        mut results: server::ListNamespacesResults,
    ) -> Result<(), capnp::Error> {
        let all = self.shard.namespaces().all();
        let count = u32::try_from(all.len()).unwrap_or(u32::MAX);
        let mut list = results.get().init_namespaces(count);
        for (index, namespace) in (0..count).zip(all) {
            let mut entry = list.reborrow().get(index);
            entry.set_name(namespace.name());
            entry.set_class(namespace.class().name());
        }
        Ok(())
    }

    async fn about(
        self: Rc<Self>,
        _params: server::AboutParams,
        mut results: server::AboutResults,
    ) -> Result<(), capnp::Error> {
        let mut about = results.get();
        about.set_name(env!("CARGO_PKG_NAME"));
        about.set_version(env!("CARGO_PKG_VERSION"));
        about.set_contract(REVISION);
        about.set_run(self.shard.run_id().as_str());
        Ok(())
    }
}
