//! Which classes there are, by the short names that a configuration says.

use super::{Counter, Kv, Probe, Room};
use crate::demo_capnp::probe;
use crate::object::Class;
use crate::server::ServerBuilder;

/// A class of the demonstration.
#[derive(Clone, Copy, Debug)]
pub struct DemoClass {
    /// What a configuration calls it.
    pub name: &'static str,
    /// The namespace that it has where nothing is configured.
    pub namespace: &'static str,
    /// Makes the class.
    pub class: fn() -> Class,
}

/// The classes of the demonstration.
pub const DEMO: [DemoClass; 4] = [
    DemoClass { name: "Counter", namespace: "COUNTER", class: Class::new::<Counter> },
    DemoClass { name: "Kv", namespace: "KV", class: Class::new::<Kv> },
    DemoClass { name: "Room", namespace: "ROOM", class: Class::new::<Room> },
    DemoClass { name: "Probe", namespace: "PROBE", class: Class::typed::<Probe, probe::Client> },
];

/// Adds the namespaces `COUNTER`, `KV`, `ROOM` and `PROBE`. Their ids are derived from their names.
pub fn namespaces(builder: ServerBuilder) -> ServerBuilder {
    DEMO.iter().fold(builder, |builder, demo| {
        builder.class(demo.namespace, (demo.class)(), demo.namespace)
    })
}

/// Serves those namespaces over HTTP.
pub fn expose(builder: ServerBuilder) -> ServerBuilder {
    DEMO.iter().fold(builder, |builder, demo| builder.expose(demo.namespace))
}
