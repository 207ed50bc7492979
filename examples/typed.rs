//! A typed interface: methods of the author's own beside `fetch`, and a capability passed each way.
//!
//! The interface is `Probe` of `schema/demo.capnp`, which extends the contract's `Stub`.

use std::cell::RefCell;
use std::rc::Rc;

use stubborn::demo_capnp::{listener, probe};
use stubborn::stubborn_capnp::stub;
use stubborn::{Class, DurableObject, Env, Result, Server, State};
use stubborn_client::Client;

struct Probe;

impl DurableObject for Probe {
    async fn new(_state: State, _env: Env) -> Result<Self> {
        Ok(Self)
    }
}

impl stub::Server for Probe {} // `fetch` and the like are answered by the server itself

impl probe::Server for Probe {
    /// Gives the caller's own capability back.
    async fn echo(
        self: Rc<Self>,
        params: probe::EchoParams,
        mut results: probe::EchoResults,
    ) -> capnp::Result<()> {
        results.get().set_listener(params.get()?.get_listener()?);
        Ok(())
    }

    /// Calls the caller back.
    async fn notify(
        self: Rc<Self>,
        params: probe::NotifyParams,
        _results: probe::NotifyResults,
    ) -> capnp::Result<()> {
        let (listener, count) = (params.get()?.get_listener()?, params.get()?.get_count());
        for n in 0..u64::from(count) {
            let mut call = listener.heard_request();
            call.get().set_n(n);
            call.send().promise.await?;
        }
        Ok(())
    }
}

#[derive(Clone, Default)]
struct Listener(Rc<RefCell<Vec<u64>>>);

impl listener::Server for Listener {
    async fn heard(
        self: Rc<Self>,
        params: listener::HeardParams,
        _results: listener::HeardResults,
    ) -> capnp::Result<()> {
        self.0.borrow_mut().push(params.get()?.get_n());
        Ok(())
    }
}

#[tokio::main(flavor = "local")]
pub(crate) async fn main() -> Result<()> {
    let class = Class::typed::<Probe, probe::Client>();
    let server = Server::builder().class("PROBE", class, "a secret").listen("127.0.0.1:0")?;
    let server = server.start().await?;
    let address = server.addresses().first().expect("it was told to listen");
    let client = Client::connect(&address.to_string()).await?;
    let probe: probe::Client = client.namespace("PROBE").get_by_name("typed").cast();

    let listener = Listener::default();
    let mut echo = probe.echo_request();
    echo.get().set_listener(capnp_rpc::new_client(listener.clone()));
    let mut notify = probe.notify_request();
    // Pipelined: what comes back is passed on before it has come.
    notify.get().set_listener(echo.send().pipeline.get_listener());
    notify.get().set_count(3);
    notify.send().promise.await?;
    assert_eq!(*listener.0.borrow(), [0, 1, 2]);
    Ok(())
}
