//! A server of the test objects, on loopback.

use std::num::NonZeroUsize;

use stubborn::{Class, Client, Limits, Server};

use super::objects::{Listener, Plain, Typed};

/// The namespaces of the test objects.
pub(crate) const PLAIN: &str = "PLAIN";
pub(crate) const TYPED: &str = "TYPED";

/// Starts a server on a free port.
pub(crate) async fn start(threads: usize, limits: Limits) -> (Server, String) {
    let builder = Server::builder()
        .namespace::<Plain>(PLAIN)
        .class(TYPED, Class::typed::<Typed, stubborn::demo_capnp::probe::Client>(), TYPED)
        .threads(NonZeroUsize::new(threads).unwrap())
        .limits(limits)
        .listen("127.0.0.1:0")
        .unwrap();
    let server = builder.start().await.unwrap();
    let address = server.addresses()[0].to_string();
    (server, address)
}

/// Starts a server, and connects to it.
pub(crate) async fn connected(threads: usize) -> (Server, Client) {
    let (server, address) = start(threads, Limits::default()).await;
    let client = Client::connect(&address).await.unwrap();
    (server, client)
}

pub(crate) use stubborn::demo_capnp::listener;

/// Makes a reference of the caller's own, which notes what it hears.
pub(crate) fn listener() -> (listener::Client, std::rc::Rc<std::cell::RefCell<Vec<u64>>>) {
    let heard = std::rc::Rc::default();
    let client = stubborn::capability(Listener { heard: std::rc::Rc::clone(&heard) });
    (client, heard)
}
