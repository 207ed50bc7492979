//! A gateway on loopback, an object that does what only HTTP's clients can see, and those clients.

use std::cell::RefCell;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use stubborn::gateway::GatewaySettings;
use stubborn::{
    Body, DurableObject, Env, Error, Kind, Limits, Request, RequestExt, Response, Result, Server,
    ServerBuilder, State, demo, respond,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long a test waits for what must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// What `/endless` has written since the process began. One test looks at it.
pub(crate) static WRITTEN: AtomicU64 = AtomicU64::new(0);

/// An object that streams, fails, and logs what became of its callers.
pub(crate) struct Mirror {
    state: State,
    log: std::rc::Rc<RefCell<Vec<String>>>,
}

impl DurableObject for Mirror {
    async fn new(state: State, _env: Env) -> Result<Self> {
        Ok(Self { state, log: std::rc::Rc::default() })
    }

    async fn fetch(&self, request: Request) -> Result<Response> {
        let query = request.uri().query().unwrap_or_default().to_owned();
        match request.uri().path() {
            "/log" => Ok(respond::text(self.log.borrow().join(" "))),
            // Sends back what comes, while it comes.
            "/through" => Ok(Response::new(request.into_body())),
            // Writes for ever, without a length.
            "/endless" => {
                let (mut writer, body) = Body::pipe(64 << 10);
                let log = self.log.clone();
                self.state.wait_until(async move {
                    let chunk = Bytes::from(vec![b'x'; 16 << 10]);
                    while writer.write(chunk.clone()).await.is_ok() {
                        WRITTEN.fetch_add(chunk.len() as u64, Ordering::Relaxed);
                    }
                    log.borrow_mut().push("closed".to_owned());
                });
                Ok(Response::new(body))
            }
            // Is cut short after a few bytes.
            "/cut" => {
                let (mut writer, body) = Body::pipe(64);
                writer.write("some bytes".into()).await?;
                Ok(Response::new(body))
            }
            // Declares `?query` bytes and sends three.
            "/short" => {
                let (mut writer, body) = Body::pipe(64);
                writer.write("abc".into()).await?;
                writer.finish();
                let response = http::Response::builder().header("content-length", query);
                Ok(response.body(body)?)
            }
            // Keeps the body, and never reads it; ends when its caller has gone.
            "/keep" => {
                let signal = request.signal();
                let _kept = request;
                self.log.borrow_mut().push("keeps".to_owned());
                signal.gone().await;
                self.log.borrow_mut().push("gone".to_owned());
                Ok(respond::text("nobody hears this"))
            }
            "/read" => {
                self.log.borrow_mut().push("reads".to_owned());
                let read = request.into_body().bytes().await;
                let told = match &read {
                    Ok(bytes) => bytes.len().to_string(),
                    Err(error) => error.kind.as_str().to_owned(),
                };
                self.log.borrow_mut().push(told);
                Ok(respond::text(read?.len().to_string()))
            }
            "/fail" => Err(failure(&query)),
            "/hop" => Ok(http::Response::builder()
                .header("connection", "x-private, close")
                .header("x-private", "1")
                .header("keep-alive", "timeout=9")
                .header("x-kept", "1")
                .header("x-kept", "2")
                .body("hop".into())?),
            _ => respond::status(404, "nothing"),
        }
    }
}

fn failure(kind: &str) -> Error {
    let kind = Kind::ALL.into_iter().find(|known| known.as_str().replace(' ', "-") == kind);
    Error::new(kind.expect("a kind"), "a secret of the object")
}

/// Starts a gateway that exposes the demonstration and `MIRROR`, and hides `HIDDEN`.
pub(crate) async fn start(limits: Limits, settings: GatewaySettings) -> (Server, String) {
    start_with(|builder| builder.limits(limits).gateway(settings)).await
}

/// As [`start`], with more told to the builder.
pub(crate) async fn start_with(
    tell: impl FnOnce(ServerBuilder) -> ServerBuilder,
) -> (Server, String) {
    let builder = demo::expose(demo::namespaces(Server::builder()))
        .namespace::<Mirror>("MIRROR")
        .namespace::<Mirror>("HIDDEN")
        .expose("MIRROR")
        .threads(NonZeroUsize::new(2).unwrap());
    let server = tell(builder).http("127.0.0.1:0").unwrap().start().await.unwrap();
    let address = server.http_addresses()[0].to_string();
    (server, address)
}

/// As [`start`], with everything by default.
pub(crate) async fn started() -> (Server, String) {
    start(Limits::default(), GatewaySettings::default()).await
}

/// A connection on which a test says exactly what it wants.
pub(crate) struct Wire(pub(crate) TcpStream);

impl Wire {
    pub(crate) async fn open(address: &str) -> Self {
        Self(TcpStream::connect(address).await.unwrap())
    }

    /// Sends bytes. A server that has hung up doesn't mind.
    pub(crate) async fn say(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.0.write_all(bytes.as_ref()).await;
    }

    /// Reads until the server closes; tells whether it did so in order.
    pub(crate) async fn hear_all(&mut self) -> (String, bool) {
        let mut heard = Vec::new();
        let read = tokio::time::timeout(PATIENCE, self.0.read_to_end(&mut heard)).await;
        let orderly = read.expect("the server closes").is_ok();
        (String::from_utf8_lossy(&heard).into_owned(), orderly)
    }

    /// Reads until `end` has come.
    pub(crate) async fn hear_until(&mut self, end: &str) -> String {
        let mut heard = Vec::new();
        let reading = async {
            while !heard.ends_with(end.as_bytes()) {
                heard.push(self.0.read_u8().await.expect("the server goes on"));
            }
        };
        tokio::time::timeout(PATIENCE, reading).await.expect("the server answers");
        String::from_utf8(heard).unwrap()
    }
}

/// Says `bytes` on a connection of its own; returns all that is answered.
pub(crate) async fn exchange(address: &str, bytes: impl AsRef<[u8]>) -> String {
    let mut wire = Wire::open(address).await;
    wire.say(bytes).await;
    wire.hear_all().await.0
}

/// Returns the status of an answer, as it came.
pub(crate) fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
}

/// What a good client gets.
pub(crate) struct Answer {
    pub(crate) head: http::response::Parts,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn status(&self) -> u16 {
        self.head.status.as_u16()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.text).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// A client of either protocol.
pub(crate) enum Http {
    One(hyper::client::conn::http1::SendRequest<Body>),
    Two(hyper::client::conn::http2::SendRequest<Body>),
}

impl Http {
    pub(crate) async fn one(address: &str) -> Self {
        let io = TokioIo::new(TcpStream::connect(address).await.unwrap());
        let (sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        tokio::spawn(connection);
        Self::One(sender)
    }

    pub(crate) async fn two(address: &str) -> Self {
        let io = TokioIo::new(TcpStream::connect(address).await.unwrap());
        let builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
        let (sender, connection) = builder.handshake(io).await.unwrap();
        tokio::spawn(connection);
        Self::Two(sender)
    }

    /// Sends a request; returns the answer once its head has come. HTTP/1.1 wants the answers read in turn.
    pub(crate) async fn send(
        &mut self,
        method: &str,
        path: &str,
        body: Body,
    ) -> hyper::Result<http::Response<Incoming>> {
        let request = http::Request::builder().method(method);
        let request = match self {
            Self::One(_) => request.uri(path).header("host", "localhost"),
            Self::Two(_) => request.uri(format!("http://localhost{path}")),
        };
        let request = request.body(body).unwrap();
        match self {
            Self::One(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
            Self::Two(sender) => sender.send_request(request).await,
        }
    }

    /// Sends a request and reads all of the answer.
    pub(crate) async fn ask(&mut self, method: &str, path: &str) -> Answer {
        self.ask_with(method, path, Body::empty()).await
    }

    /// As [`ask`](Self::ask), with a body.
    pub(crate) async fn ask_with(&mut self, method: &str, path: &str, body: Body) -> Answer {
        let response = self.send(method, path, body).await.unwrap();
        let (head, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        Answer { head, text: String::from_utf8(bytes.to_vec()).unwrap() }
    }
}

/// Asks with one request on a connection of its own, with these headers.
pub(crate) async fn get(address: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    let io = TokioIo::new(TcpStream::connect(address).await.unwrap());
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    tokio::spawn(connection);
    let mut request = http::Request::get(path);
    if !headers.iter().any(|(name, _)| *name == "host") {
        request = request.header("host", address);
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::<Bytes>::default()).unwrap();
    let (head, body) = sender.send_request(request).await.unwrap().into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    Answer { head, text: String::from_utf8(bytes.to_vec()).unwrap() }
}

/// Asks the mirror `name` for its log until that ends so.
pub(crate) async fn logged(address: &str, name: &str, log: &str) {
    let mut client = Http::one(address).await;
    let mut last = String::new();
    let asking = async {
        while !last.ends_with(log) {
            last = client.ask("GET", &format!("/MIRROR/{name}/log")).await.text;
        }
    };
    let asked = tokio::time::timeout(PATIENCE, asking).await;
    assert!(asked.is_ok(), "{name} did not log {log:?} but {last:?}");
}
