//! A local capability whose calls end when their callers leave.
//!
//! **Invariant:** a call enters the guarded capability within `call`: the guard changes no order.

use capnp::Error;
use capnp::capability::{FromClientHook, Promise};
use capnp::private::capability::{ClientHook, ParamsHook, ResultsHook};

use super::call::Caller;
use super::settled::{Callee, settled};

/// Returns `client` so that a connection can cancel calls on it, and be rid of them: a cancelled call's
/// future is dropped, as ever, and then answered.
///
/// A capability that is served over a connection without it works, but each call on it that is cancelled
/// while it runs costs the connection an entry for good.
pub fn guard<C: FromClientHook>(client: C) -> C {
    settled(Guard(client.into_client_hook()))
}

struct Guard(Box<dyn ClientHook>);

impl Callee for Guard {
    fn call(
        &self,
        caller: Caller,
        interface: u64,
        method: u16,
        params: Box<dyn ParamsHook>,
        results: Box<dyn ResultsHook>,
    ) -> Promise<(), Error> {
        Promise::from_future(caller.until_left(self.0.call(interface, method, params, results)))
    }
}
