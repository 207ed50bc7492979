//! An object with WebSockets, which does as it is told, and tells when it leaves memory.

use std::num::NonZeroUsize;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use stubborn::storage::memory::Memory;
use stubborn::{
    Class, Client, Closed, DurableObject, Env, Error, Limits, Message, Request, RequestExt,
    Response, Result, Server, Socket, State, Stub, WebSocket, respond,
};
use tokio::sync::watch;

/// The namespaces of the objects with WebSockets: one of a class with a typed interface, and one without.
pub(crate) const SOCKETS: &str = "SOCKETS";
pub(crate) const TYPED_SOCKETS: &str = "TYPED_SOCKETS";

/// The names of the objects that have left memory, in order.
static LEFT: LazyLock<watch::Sender<Vec<String>>> = LazyLock::new(|| watch::channel(vec![]).0);

/// Waits until the object of this name has left memory as often as that.
pub(crate) async fn has_left(name: &str, times: usize) {
    let mut left = LEFT.subscribe();
    let often = |left: &Vec<String>| left.iter().filter(|one| *one == name).count() >= times;
    left.wait_for(often).await.unwrap();
}

/// How long idle objects stay, in these tests.
pub(crate) fn hibernating() -> Limits {
    Limits { hibernate_after: Duration::from_millis(40), ..Limits::default() }
}

/// Starts a server of these objects.
pub(crate) async fn start(
    threads: usize,
    limits: Limits,
    store: Option<Memory>,
) -> (Server, String) {
    let mut builder = Server::builder()
        .namespace::<Wired>(SOCKETS)
        .class(
            TYPED_SOCKETS,
            Class::typed::<Wired, stubborn::demo_capnp::probe::Client>(),
            TYPED_SOCKETS,
        )
        .threads(NonZeroUsize::new(threads).unwrap())
        .limits(limits);
    if let Some(store) = store {
        builder = builder.store(Arc::new(store));
    }
    let server = builder.listen("127.0.0.1:0").unwrap().start().await.unwrap();
    let address = server.addresses()[0].to_string();
    (server, address)
}

/// Starts a server of one thread, and returns the stub of one object.
pub(crate) async fn object(name: &str, limits: Limits) -> (Server, Client, Stub) {
    let (server, address) = start(1, limits, None).await;
    let client = Client::connect(&address).await.unwrap();
    let stub = client.namespace(SOCKETS).get_by_name(name);
    (server, client, stub)
}

/// Opens a hibernatable WebSocket.
pub(crate) async fn open(stub: &Stub, tags: &str) -> WebSocket {
    let url = format!("http://do/accept?tags={tags}");
    let (response, socket) = stub.web_socket(url).await.unwrap();
    assert_eq!(response.status(), 101);
    socket
}

/// Says something, and returns the answer.
pub(crate) async fn ask(socket: &WebSocket, text: &str) -> String {
    socket.send(text).await.unwrap();
    hear(socket).await
}

/// Returns the next message.
pub(crate) async fn hear(socket: &WebSocket) -> String {
    socket.receive().await.unwrap().as_text().unwrap().to_owned()
}

/// The object.
pub(crate) struct Wired {
    state: State,
    env: Env,
    in_section: std::cell::Cell<bool>,
}

impl Drop for Wired {
    fn drop(&mut self) {
        let name = self.state.name().unwrap_or_default();
        LEFT.send_modify(|left| left.push(name.to_string()));
    }
}

impl stubborn::stubborn_capnp::stub::Server for Wired {}
impl stubborn::demo_capnp::probe::Server for Wired {}

impl DurableObject for Wired {
    async fn new(state: State, env: Env) -> Result<Self> {
        if state.storage().get::<String>("poison")?.is_some() {
            return Err("poisoned".into());
        }
        Ok(Self { state, env, in_section: std::cell::Cell::new(false) })
    }

    async fn fetch(&self, request: Request) -> Result<Response> {
        let uri = request.uri().clone();
        let query = uri.query().unwrap_or_default();
        let argument = query.split_once('=').map(|(_, value)| value).unwrap_or_default();
        match uri.path() {
            "/accept" => {
                assert!(request.is_upgrade());
                let tags: Vec<&str> = argument.split(',').filter(|tag| !tag.is_empty()).collect();
                let (client, server) = WebSocket::pair();
                self.state.accept_web_socket(server, &tags)?;
                Ok(respond::upgrade(client))
            }
            // Reads its end itself, and echoes.
            "/stream" => {
                let (client, server) = WebSocket::pair();
                self.state.wait_until(async move {
                    while let Ok(message) = server.receive().await {
                        if server.send(message).await.is_err() {
                            return;
                        }
                    }
                });
                Ok(respond::upgrade(client))
            }
            // Hands the request on to another object, and its answer back.
            "/proxy" => {
                let other = self.env.namespace(SOCKETS)?.get_by_name(argument);
                let mut onward = Request::default();
                *onward.uri_mut() = "http://do/accept?tags=".parse().unwrap();
                *onward.headers_mut() = request.headers().clone();
                other.fetch(onward).await
            }
            // Speaks with another object over a WebSocket of its own.
            "/dial" => {
                let other = self.env.namespace(SOCKETS)?.get_by_name(argument);
                let (_, socket) = other.web_socket("http://do/accept?tags=dialled").await?;
                self.state.storage().put("dialled", "yes")?;
                socket.send("whoami").await?;
                let answer = socket.receive().await.map_err(|closed| closed.to_string())?;
                socket.close(1000, "")?;
                Ok(respond::text(answer.as_text().unwrap_or_default()))
            }
            "/auto" => {
                self.state.set_auto_response(Some(("ping", "pong")))?;
                Ok(respond::text("set"))
            }
            "/open" => Ok(respond::text(self.state.web_sockets(None).len().to_string())),
            // Accepts more than it may, of which nobody holds the other end for long.
            "/many" => {
                let (mut clients, mut count) = (Vec::new(), 0);
                let error = loop {
                    let (client, server) = WebSocket::pair();
                    clients.push(client);
                    match self.state.accept_web_socket(server, &[]) {
                        Ok(_) => count += 1,
                        Err(error) => break error,
                    }
                };
                Ok(respond::text(format!("{count}, then {}", error.kind)))
            }
            "/refuse" => respond::status(403, "no"),
            "/hollow" => {
                let mut response = Response::default();
                *response.status_mut() = stubborn_client::http::StatusCode::SWITCHING_PROTOCOLS;
                Ok(response)
            }
            "/astray" => {
                let mut response = respond::upgrade(WebSocket::pair().0);
                *response.status_mut() = stubborn_client::http::StatusCode::OK;
                Ok(response)
            }
            _ => respond::status(404, "nothing here"),
        }
    }

    async fn web_socket_message(&self, socket: &Socket, message: Message) -> Result<()> {
        let Some(text) = message.as_text() else { return socket.send(message) };
        assert!(!self.in_section.get(), "{text} entered a critical section");
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        match word {
            "whoami" => socket.send(self.state.activation().to_string()),
            "tags" => socket.send(socket.tags().collect::<Vec<_>>().join(",")),
            "attach" => {
                socket.set_attachment(rest)?;
                socket.send("attached")
            }
            "attach-bytes" => {
                let value = "x".repeat(rest.parse().unwrap());
                socket.send(socket.set_attachment(&value).is_ok().to_string())
            }
            "auto-bytes" => {
                let text = "x".repeat(rest.parse().unwrap());
                let sides = [("", text.as_str()), (text.as_str(), "")];
                let set = sides.map(|pair| self.state.set_auto_response(Some(pair)).is_ok());
                self.state.set_auto_response(None)?;
                socket.send(format!("{set:?}"))
            }
            "section" => {
                let section = async {
                    self.in_section.set(true);
                    for _ in 0..100 {
                        tokio::task::yield_now().await;
                    }
                    self.in_section.set(false);
                    Ok(())
                };
                self.state.block_concurrency_while(section).await;
                self.state.web_sockets(None).iter().try_for_each(|one| one.send("section over"))
            }
            "attachment" => socket.send(socket.attachment::<String>()?.unwrap_or_default()),
            "stamp" => socket.send(socket.auto_response_timestamp().is_some().to_string()),
            "close" => {
                let (code, reason) = rest.split_once(' ').unwrap_or((rest, ""));
                socket.close(code.parse().unwrap(), reason)
            }
            "put" => {
                self.state.storage().put(rest, "stored")?;
                socket.send(format!("stored {rest}"))
            }
            "abort" => {
                self.state.abort("asked to");
                socket.send("never seen")
            }
            "panic" => panic!("asked to"),
            "fail" => Err("asked to".into()),
            "yield" => {
                for _ in 0..rest.len() % 5 {
                    tokio::task::yield_now().await;
                }
                socket.send(rest)
            }
            "count" => {
                let tag = (!rest.is_empty()).then_some(rest);
                socket.send(self.state.web_sockets(tag).len().to_string())
            }
            "shout" => self.state.web_sockets(None).iter().try_for_each(|one| one.send(rest)),
            "flood" => {
                let chunk = "x".repeat(1 << 20);
                let sent = (0..64).take_while(|_| socket.send(chunk.as_str()).is_ok()).count();
                let error = socket.send(chunk).unwrap_err();
                self.state.web_sockets(Some("witness")).iter().try_for_each(|witness| {
                    witness.send(format!("{sent} sent, then {}", error.kind))
                })
            }
            _ => socket.send(message),
        }
    }

    async fn web_socket_close(&self, socket: &Socket, closed: Closed) -> Result<()> {
        let text = format!("closed {} {} {}", closed.code, closed.reason, closed.was_clean);
        let others = self.state.web_sockets(Some("witness"));
        others.iter().filter(|one| *one != socket).try_for_each(|one| one.send(text.as_str()))
    }

    async fn web_socket_error(&self, socket: &Socket, error: Error) -> Result<()> {
        let others = self.state.web_sockets(Some("witness"));
        let mut others = others.iter().filter(|one| *one != socket);
        others.try_for_each(|one| one.send(format!("error {}", error.message)))
    }
}

/// Where an object sends: hears how it closes.
#[derive(Clone)]
pub(crate) struct Heard(watch::Sender<Option<u16>>);

impl Default for Heard {
    fn default() -> Self {
        Self(watch::channel(None).0)
    }
}

impl Heard {
    /// Waits until it is closed, with this code.
    pub(crate) async fn closed(&self, code: u16) {
        let mut closed = self.0.subscribe();
        assert_eq!(*closed.wait_for(Option::is_some).await.unwrap(), Some(code));
    }
}

impl stubborn::stubborn_capnp::web_socket::Server for Heard {
    async fn close(
        self: std::rc::Rc<Self>,
        params: stubborn::stubborn_capnp::web_socket::CloseParams,
        _: stubborn::stubborn_capnp::web_socket::CloseResults,
    ) -> Result<(), capnp::Error> {
        self.0.send_replace(Some(params.get()?.get_code()));
        Ok(())
    }
}
