//! The gateway of one address.
//!
//! **Invariant:** an address that only this machine reaches may say more than one that others reach.

use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::request::Parts;

use super::access::Access;
use super::connection;
use super::failure::Messages;
use super::forwarded::Peer;
use super::origin::{Pages, is_relayed};
use super::routes::Routes;
use super::service::Visit;
use super::settings::GatewaySettings;
use super::watch::Watch;
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::listen::{Door, Place, Stream};
use crate::rfc6455::Budget;
use crate::runtime::{Namespaces, Shard};

/// What all gateways of a server share.
#[derive(Debug)]
pub(super) struct Gateway {
    pub(super) routes: Routes,
    settings: GatewaySettings,
    budget: OnceLock<Arc<Budget>>,
}

/// Who reaches an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Only this machine.
    Local,
    /// Other machines too.
    Wide,
}

/// Serves HTTP.
#[derive(Clone, Debug)]
pub struct GatewayDoor {
    gateway: Arc<Gateway>,
    reach: Reach,
}

impl GatewayDoor {
    /// Makes the door of an address that other machines may reach.
    ///
    /// # Errors
    /// *no such namespace* and *invalid request*, for what is exposed or routed and can't be; *invalid request* for
    /// an empty token.
    pub fn new(
        namespaces: &Namespaces,
        exposed: &[String],
        settings: GatewaySettings,
    ) -> Result<Self> {
        let routes = Routes::new(namespaces, exposed, &settings.routes)?;
        if settings.tokens.has_empty() {
            return Err(Error::invalid_request("a token of the gateway is empty"));
        }
        let gateway = Gateway { routes, settings, budget: OnceLock::new() };
        Ok(Self { gateway: Arc::new(gateway), reach: Reach::Wide })
    }

    /// Returns the door for an address of this reach.
    pub fn reached(&self, reach: Reach) -> Self {
        Self { gateway: self.gateway.clone(), reach }
    }

    /// Returns what all WebSockets may hold of messages that have not come whole.
    pub(super) fn budget(&self, limits: &Limits) -> Arc<Budget> {
        let budget = || Arc::new(Budget::new(limits.server_queued_bytes_max));
        self.gateway.budget.get_or_init(budget).clone()
    }

    /// Returns the routes.
    pub(super) fn routes(&self) -> &Routes {
        &self.gateway.routes
    }

    /// Returns who sends requests such as this one: only this machine, unless a proxy may send those of others.
    pub(super) fn reach(&self, head: &Parts) -> Reach {
        let is_direct = self.gateway.settings.trusted.is_empty() && !is_relayed(&head.headers);
        if is_direct { self.reach } else { Reach::Wide }
    }

    /// Returns whether messages of objects' errors are shown.
    pub(super) fn messages(&self, reach: Reach) -> Messages {
        let shown = self.gateway.settings.error_messages;
        match shown.unwrap_or(reach == Reach::Local) {
            true => Messages::Shown,
            false => Messages::Hidden,
        }
    }

    /// Returns whether there is an inspector.
    pub(super) fn has_inspector(&self) -> bool {
        self.gateway.settings.inspector.unwrap_or(true)
    }

    /// Returns whether the inspector's statements may change what is stored.
    pub(super) fn inspector_writes(&self) -> bool {
        self.gateway.settings.inspector_writes
    }

    /// Returns whose pages reach objects. No browser comes by a Unix socket.
    pub(super) fn pages(&self, reach: Reach, peer: &Peer) -> Pages<'_> {
        let settings = &self.gateway.settings;
        let origins = &settings.allowed_origins;
        match settings.asks_for_tokens() || reach == Reach::Wide || peer.is_unix() {
            true => Pages::All(origins),
            false => Pages::OfThisMachine(origins),
        }
    }

    /// Returns who may list and inspect.
    pub(super) fn access(&self, reach: Reach) -> Access<'_> {
        let settings = &self.gateway.settings;
        match (settings.asks_for_tokens(), reach) {
            (true, _) => Access::Bearers(&settings.tokens),
            (false, Reach::Local) => Access::Local,
            (false, Reach::Wide) => Access::Nobody,
        }
    }
}

impl Door for GatewayDoor {
    fn peer_timeout(&self, limits: &Limits) -> Duration {
        // To the system a client that pauses is as silent as one that is gone.
        limits.peer_timeout.max(limits.http_stall_timeout)
    }

    fn serve(&self, shard: &Rc<Shard>, stream: Stream, place: Place) {
        let peer = Peer::new(stream.peer(), &self.gateway.settings);
        let watch = Watch::new();
        let visit = Visit::new(shard.clone(), self.clone(), peer, watch.clone());
        tokio::task::spawn_local(connection::serve(stream, visit, watch, place));
    }
}
