//! Objects that reflect what reaches them, and misbehave on request.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use stubborn::demo_capnp::{listener, probe};
use stubborn::stubborn_capnp::stub;
use stubborn::{
    Body, DurableObject, Env, Request, RequestExt, Response, Result, State, Target, respond,
};

/// What both test objects do. Its name chooses how its constructor behaves.
pub(crate) struct Core {
    state: State,
    env: Env,
    log: RefCell<Vec<u64>>,
    lock: tokio::sync::Mutex<()>,
    gone: Cell<u64>,
}

impl Core {
    async fn new(state: State, env: Env) -> Result<Self> {
        let name = state.name().unwrap_or_default();
        if name.starts_with("slow") {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        if name.starts_with("bad") {
            return Err("the constructor failed as asked".into());
        }
        if name.starts_with("panicking") {
            panic!("the constructor panicked as asked");
        }
        Ok(Self {
            state,
            env,
            log: RefCell::default(),
            lock: tokio::sync::Mutex::default(),
            gone: Cell::new(0),
        })
    }

    fn note(&self, n: u64) -> usize {
        self.log.borrow_mut().push(n);
        self.log.borrow().len() - 1
    }

    async fn fetch(&self, mut request: Request) -> Result<Response> {
        let uri = request.uri().clone();
        let argument = |key: &str| {
            let pairs = uri.query().unwrap_or_default().split('&');
            pairs.filter_map(|pair| pair.split_once('=')).find(|(k, _)| *k == key).map(|(_, v)| v)
        };
        let number = |key: &str| argument(key).and_then(|v| v.parse::<u64>().ok()).unwrap_or(0);
        match uri.path() {
            // Notes its number at entry, then does as the query says.
            "/note" => {
                self.note(number("n"));
                match argument("then") {
                    Some("yield") => tokio::task::yield_now().await,
                    Some("sleep") => {
                        tokio::time::sleep(Duration::from_micros(number("n") % 300)).await
                    }
                    _ => {}
                }
                Ok(respond::text("noted"))
            }
            // Notes its number once it has a fair lock.
            "/lock" => {
                let guard = self.lock.lock().await;
                self.note(number("n"));
                if number("n").is_multiple_of(7) {
                    tokio::task::yield_now().await;
                }
                drop(guard);
                Ok(respond::text("noted"))
            }
            "/log" => {
                let log = self.log.borrow();
                Ok(respond::text(log.iter().map(u64::to_string).collect::<Vec<_>>().join(" ")))
            }
            "/whoami" => Ok(respond::text(format!(
                "{} {} {}",
                self.state.id(),
                self.state.name().unwrap_or_default(),
                self.state.activation()
            ))),
            "/sleep" => {
                tokio::time::sleep(Duration::from_millis(number("ms"))).await;
                Ok(respond::text("slept"))
            }
            "/forever" => std::future::pending().await,
            "/signal" => {
                let signal = request.signal();
                signal.gone().await;
                self.gone.set(self.gone.get() + 1);
                Ok(respond::text("nobody hears this"))
            }
            "/gone" => Ok(respond::text(self.gone.get().to_string())),
            "/throw" => Err(format!("thrown: {}", argument("message").unwrap_or_default()).into()),
            "/panic-later" => {
                tokio::task::yield_now().await;
                panic!("panicked as asked")
            }
            "/panic" => panic!("panicked as asked"),
            "/abort" => {
                self.state.abort("aborted as asked");
                Ok(respond::text("never seen"))
            }
            "/critical" => self.critical(number("ms"), argument("fail").is_some()).await,
            // Redirects to itself `n` times, then answers with its method.
            "/redirect" => match number("n") {
                0 => Ok(respond::text(request.method().as_str())),
                n => {
                    let status = number("status") as u16;
                    let mut response = respond::status(status, "elsewhere")?;
                    let to = format!("/redirect?status={status}&n={}", n - 1);
                    response.headers_mut().insert("location", to.parse().unwrap());
                    Ok(response)
                }
            },
            "/echo" => Ok(Response::new(std::mem::take(request.body_mut()))),
            "/count" => {
                let mut body = std::mem::take(request.body_mut());
                let mut bytes = 0;
                while let Some(chunk) = body.chunk().await {
                    bytes += chunk?.len() as u64;
                }
                Ok(respond::text(bytes.to_string()))
            }
            "/stream" => {
                Ok(Response::new(self.stream(number("bytes"), number("chunk"), number("cut"))))
            }
            "/call" => self.call(argument("namespace"), argument("name"), number("n")).await,
            path => respond::status(404, format!("nothing at {path}")),
        }
    }

    async fn critical(&self, ms: u64, fail: bool) -> Result<Response> {
        let section = async {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            if fail { Err("the critical section failed as asked".into()) } else { Ok(self.note(0)) }
        };
        let before = self.state.block_concurrency_while(section).await;
        Ok(respond::text(before.to_string()))
    }

    /// Streams `bytes` zeros; with `cut`, drops the writer after that many.
    fn stream(&self, bytes: u64, chunk: u64, cut: u64) -> Body {
        let (mut writer, body) = Body::pipe(64 << 10);
        self.state.wait_until(async move {
            let mut left = if cut > 0 { cut } else { bytes };
            while left > 0 {
                let size = left.min(chunk.max(1));
                if writer.write(Bytes::from(vec![0; size as usize])).await.is_err() {
                    return;
                }
                left -= size;
            }
            if cut == 0 {
                writer.finish();
            }
        });
        body
    }

    /// Makes `n` noted calls on another object, without waiting in between; awaits them in reverse.
    async fn call(&self, namespace: Option<&str>, name: Option<&str>, n: u64) -> Result<Response> {
        let namespace = self.env.namespace(namespace.unwrap_or_default())?;
        let stub = namespace.stub(&Target::Name(name.unwrap_or_default().to_owned()));
        if n == 0 {
            return stub.fetch("http://do/throw?message=far").await;
        }
        let mut calls = Vec::new();
        for n in 0..n {
            let call = stub.fetch(format!("http://do/note?n={n}"));
            if n % 5 != 4 {
                calls.push(call);
            }
        }
        for call in calls.into_iter().rev() {
            call.await?;
        }
        stub.fetch("http://do/log").await
    }
}

/// A test object that serves fetch alone.
pub(crate) struct Plain(Core);

impl DurableObject for Plain {
    async fn new(state: State, env: Env) -> Result<Self> {
        Ok(Self(Core::new(state, env).await?))
    }

    async fn fetch(&self, request: Request) -> Result<Response> {
        self.0.fetch(request).await
    }
}

/// A test object that serves a typed interface too.
pub(crate) struct Typed(Core);

impl DurableObject for Typed {
    async fn new(state: State, env: Env) -> Result<Self> {
        Ok(Self(Core::new(state, env).await?))
    }

    async fn fetch(&self, request: Request) -> Result<Response> {
        self.0.fetch(request).await
    }
}

impl stub::Server for Typed {}

impl probe::Server for Typed {
    async fn log(
        self: Rc<Self>,
        params: probe::LogParams,
        mut results: probe::LogResults,
    ) -> Result<(), capnp::Error> {
        let before = self.0.note(params.get()?.get_n());
        results.get().set_position(before as u64);
        Ok(())
    }

    async fn echo(
        self: Rc<Self>,
        params: probe::EchoParams,
        mut results: probe::EchoResults,
    ) -> Result<(), capnp::Error> {
        results.get().set_listener(params.get()?.get_listener()?);
        Ok(())
    }

    async fn notify(
        self: Rc<Self>,
        params: probe::NotifyParams,
        _results: probe::NotifyResults,
    ) -> Result<(), capnp::Error> {
        let listener = params.get()?.get_listener()?;
        let mut calls = Vec::new();
        for n in 0..params.get()?.get_count() {
            let mut call = listener.heard_request();
            call.get().set_n(n.into());
            calls.push(call.send().promise);
        }
        for call in calls.into_iter().rev() {
            call.await?;
        }
        Ok(())
    }

    async fn note(self: Rc<Self>, params: probe::NoteParams) -> Result<(), capnp::Error> {
        self.0.note(params.get()?.get_n());
        if params.get()?.get_n() == u64::MAX {
            std::future::pending::<()>().await;
        }
        tokio::task::yield_now().await;
        Ok(())
    }

    async fn fail(
        self: Rc<Self>,
        params: probe::FailParams,
        _results: probe::FailResults,
    ) -> Result<(), capnp::Error> {
        Err(capnp::Error::failed(params.get()?.get_message()?.to_string()?))
    }
}

/// A caller's own object: notes what it hears.
pub(crate) struct Listener {
    pub(crate) heard: Rc<RefCell<Vec<u64>>>,
}

impl listener::Server for Listener {
    async fn heard(
        self: Rc<Self>,
        params: listener::HeardParams,
        _results: listener::HeardResults,
    ) -> Result<(), capnp::Error> {
        self.heard.borrow_mut().push(params.get()?.get_n());
        Ok(())
    }
}
