//! A server for the tests of the client: one class, which reflects and misbehaves on request.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use stubborn::demo_capnp::probe;
use stubborn::stubborn_capnp::stub;
use stubborn::{
    Class, DurableObject, Env, Error, Request, Response, Result, Server, State, respond,
};

/// Starts a server of two threads on a free port, with the namespace `PROBE`.
pub(crate) async fn server() -> Server {
    let class = Class::typed::<Probe, probe::Client>();
    let server = Server::builder().class("PROBE", class, "PROBE").listen("127.0.0.1:0").unwrap();
    server.threads(2.try_into().unwrap()).start().await.unwrap()
}

struct Probe {
    state: State,
    log: RefCell<Vec<u64>>,
    count: Cell<u64>,
}

impl DurableObject for Probe {
    async fn new(state: State, _env: Env) -> Result<Self> {
        Ok(Self { state, log: RefCell::default(), count: Cell::new(0) })
    }

    async fn fetch(&self, request: Request) -> Result<Response> {
        let query = request.uri().query().unwrap_or_default().to_owned();
        let value = query.split_once('=').map(|(_, value)| value);
        match (request.uri().path(), value) {
            ("/log", Some(n)) => self.log.borrow_mut().push(n.parse()?),
            ("/log", None) => {
                let log: Vec<_> = self.log.borrow().iter().map(u64::to_string).collect();
                return Ok(respond::text(log.join(" ")));
            }
            ("/count", _) => {
                self.count.set(self.count.get() + 1);
                return Ok(respond::text(self.count.get().to_string()));
            }
            ("/echo", _) => return Ok(Response::new(request.into_body())),
            ("/text", _) => return Ok(respond::text(request.into_body().text().await?)),
            ("/throw", message) => return Err(Error::failed(message.unwrap_or_default())),
            ("/abort", reason) => self.state.abort(reason.unwrap_or_default()),
            ("/never", _) => std::future::pending().await,
            (path, _) => return respond::status(404, path),
        }
        Ok(respond::text(""))
    }
}

impl stub::Server for Probe {}

impl probe::Server for Probe {
    async fn log(
        self: Rc<Self>,
        params: probe::LogParams,
        mut results: probe::LogResults,
    ) -> capnp::Result<()> {
        let position = self.log.borrow().len();
        self.log.borrow_mut().push(params.get()?.get_n());
        results.get().set_position(position as u64);
        Ok(())
    }

    async fn echo(
        self: Rc<Self>,
        params: probe::EchoParams,
        mut results: probe::EchoResults,
    ) -> capnp::Result<()> {
        results.get().set_listener(params.get()?.get_listener()?);
        Ok(())
    }

    async fn notify(
        self: Rc<Self>,
        params: probe::NotifyParams,
        _results: probe::NotifyResults,
    ) -> capnp::Result<()> {
        let listener = params.get()?.get_listener()?;
        for n in 0..u64::from(params.get()?.get_count()) {
            let mut heard = listener.heard_request();
            heard.get().set_n(n);
            heard.send().promise.await?;
        }
        Ok(())
    }
}
