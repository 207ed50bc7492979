//! `PROBE`: an object that reflects, stores, and misbehaves on request.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use super::alarms::Alarms;
use super::query::{Complaint, Query, Refused, bad_request};
use super::{reflect, sql, stored, streams};
use crate::error::{Error, Result};
use crate::message::{self, Request, Response, response as respond};
use crate::object::{AlarmInfo, DurableObject, Env, RequestExt, Socket, State};
use crate::socket::{self, WebSocket};

/// An object for tests: it reflects, stores, and misbehaves on request. `GET /` tells what it can do.
///
/// Its name, where it begins so, tells its constructor to misbehave: `slow-constructor-200-x` takes
/// 200 ms, `bad-constructor` fails and `panic-constructor` panics.
///
/// What it stores by keys that begin with `~` is its own: `~alarm`, what its alarm is to do, and `~fired/`, how
/// it rang.
#[derive(Debug)]
pub struct Probe {
    state: State,
    env: Env,
    log: RefCell<Vec<String>>,
    log_bytes: Cell<usize>,
    alarms: Alarms,
}

impl DurableObject for Probe {
    async fn new(state: State, env: Env) -> Result<Self> {
        misconstruct(&state.name().unwrap_or_default()).await?;
        let alarms = Alarms::new(state.clone());
        let (log, log_bytes) = Default::default();
        Ok(Self { state, env, log, log_bytes, alarms })
    }

    async fn fetch(&self, request: Request) -> Result<Response> {
        let query = Query::of(&request);
        match self.answer(request, &query).await {
            Ok(response) => Ok(response),
            Err(Refused::Query(complaint)) => bad_request(complaint),
            Err(Refused::Failed(error)) => Err(error),
        }
    }

    async fn alarm(&self, alarm: AlarmInfo) -> Result<()> {
        self.alarms.ring(alarm).await
    }

    async fn web_socket_message(&self, socket: &Socket, message: socket::Message) -> Result<()> {
        socket.send(message)
    }
}

impl Probe {
    async fn answer(&self, request: Request, query: &Query) -> Result<Response, Refused> {
        let path = request.uri().path().to_owned();
        let storage = self.state.storage();
        Ok(match path.as_str() {
            "/echo" => reflect::echo(request).await?,
            "/whoami" => reflect::whoami(&self.state)?,
            "/status" => reflect::status(query)?,
            "/headers" => reflect::headers(query)?,
            "/log" => match query.text("n") {
                Some(n) => respond::text(self.append(n)?.to_string()),
                None => respond::json(&*self.log.borrow())?,
            },
            "/yield" => self.log_and_yield(query).await?,
            "/sleep" => sleep(query).await?,
            "/block" => self.block(query).await?,
            "/gone" => self.wait_for_nobody(&request, query).await?,
            "/stream" => streams::stream(&self.state, query)?,
            "/upload" => streams::upload(request, query).await?,
            "/put" => stored::put(storage, request, query).await?,
            "/get" => stored::get(&storage, query)?,
            "/list" => stored::list(&storage, query)?,
            "/delete" => stored::delete(&storage, query)?,
            "/delete-all" => {
                storage.delete_all()?;
                respond::text("deleted")
            }
            "/txn" => stored::transaction(&storage, request, query).await?,
            "/sync" => {
                storage.sync().await?;
                respond::text("synced")
            }
            "/bookmark" => stored::bookmark(&storage, query)?,
            "/restore" => stored::restore(&self.state, query).await?,
            "/sql" => sql::answer(&storage.sql(), request).await?,
            "/alarm" => self.alarms.set(query)?,
            "/alarms" => self.alarms.fired(query).await?,
            "/throw" => Err(Error::failed(query.text("message").unwrap_or("thrown")))?,
            "/panic" => misbehave(query.text("message").unwrap_or("asked to")),
            "/abort" => {
                self.state.abort(query.text("reason").unwrap_or("asked to"));
                respond::text("never seen: the object is gone")
            }
            "/socket" => self.accept(&request)?,
            "/call" => {
                let onward = Onward::of(request, query)?;
                if onward.leads_out(&self.state.namespace()) {
                    respond::status(403, "over HTTP, /call calls objects of this namespace only")?
                } else {
                    onward.call(&self.env).await?
                }
            }
            path => respond::status(404, format!("there is no {path} here but\n{PATHS}"))?,
        })
    }

    /// Accepts a WebSocket, which hears what it says.
    fn accept(&self, request: &Request) -> Result<Response> {
        if !request.is_upgrade() {
            return respond::status(426, "/socket is a WebSocket");
        }
        let (client, server) = WebSocket::pair();
        self.state.accept_web_socket(server, &[])?;
        Ok(respond::upgrade(client))
    }

    /// Appends to the log; returns how many came before.
    pub(super) fn append(&self, entry: &str) -> Result<usize> {
        let mut log = self.log.borrow_mut();
        let bytes = self.log_bytes.get() + size_of::<String>() + entry.len();
        if bytes > LOG_BYTES_MAX {
            return Err(Error::overloaded(format!("the log is full: {LOG_BYTES_MAX} bytes")));
        }
        self.log_bytes.set(bytes);
        log.push(entry.to_owned());
        Ok(log.len() - 1)
    }

    async fn log_and_yield(&self, query: &Query) -> Result<Response, Refused> {
        let position = self.append(query.required("n")?)?;
        tokio::task::yield_now().await;
        Ok(respond::text(position.to_string()))
    }

    /// Lets nothing else happen for a while.
    async fn block(&self, query: &Query) -> Result<Response, Complaint> {
        let (ms, fails) = (query.number("ms")?.unwrap_or(0), query.flag("fail"));
        let section = async move {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            if fails {
                Err(Error::failed("the critical section was asked to fail"))
            } else {
                Ok(())
            }
        };
        self.state.block_concurrency_while(section).await;
        Ok(respond::text(format!("blocked {ms} ms")))
    }

    /// Waits until the caller has gone, and logs that; not for ever.
    async fn wait_for_nobody(&self, request: &Request, query: &Query) -> Result<Response, Refused> {
        let patience = Duration::from_millis(query.number("ms")?.unwrap_or(10_000));
        match tokio::time::timeout(patience, request.signal().gone()).await {
            Ok(()) => {
                self.append("gone")?;
                Ok(respond::text("gone"))
            }
            Err(_) => Ok(respond::text("still there")),
        }
    }
}

async fn sleep(query: &Query) -> Result<Response, Complaint> {
    let ms = query.number("ms")?.unwrap_or(0);
    tokio::time::sleep(Duration::from_millis(ms)).await;
    Ok(respond::text(format!("slept {ms} ms")))
}

/// A request to another object.
struct Onward {
    namespace: String,
    name: String,
    url: String,
    method: String,
    request: Request,
}

impl Onward {
    fn of(request: Request, query: &Query) -> Result<Self, Complaint> {
        Ok(Self {
            namespace: query.required("namespace")?.to_owned(),
            name: query.required("name")?.to_owned(),
            url: query.required("url")?.to_owned(),
            method: query.text("method").unwrap_or("GET").to_owned(),
            request,
        })
    }

    /// Returns whether it came over HTTP, to whose clients another namespace may be private.
    fn leads_out(&self, own: &str) -> bool {
        self.request.headers().contains_key("x-forwarded-proto") && self.namespace != own
    }

    /// Calls the other object and relays what it answers. An error passes on, flags and all.
    async fn call(self, env: &Env) -> Result<Response> {
        let stub = env.namespace(&self.namespace)?.get_by_name(&self.name);
        let (head, body) = self.request.into_parts();
        let mut request = Request::new(body);
        *request.method_mut() = http::Method::from_bytes(self.method.as_bytes())
            .map_err(|_| Error::invalid_request(format!("method {:?} is none", self.method)))?;
        *request.uri_mut() = message::parse_url(&self.url)?;
        *request.headers_mut() = head.headers;
        stub.fetch(request).await
    }
}

/// Does in the constructor what the object's name says.
async fn misconstruct(name: &str) -> Result<()> {
    if let Some(rest) = name.strip_prefix("slow-constructor-") {
        let ms = rest.split('-').next().unwrap_or_default();
        let ms = ms.parse().map_err(|_| format!("{name:?} does not say how many ms"))?;
        tokio::time::sleep(Duration::from_millis(ms)).await;
    } else if name.starts_with("bad-constructor") {
        return Err(Error::failed(format!("the constructor of {name:?} fails")));
    } else if name.starts_with("panic-constructor") {
        misbehave("in the constructor")
    }
    Ok(())
}

#[expect(clippy::panic, reason = "whoever asks for it gets it")]
fn misbehave(message: &str) -> ! {
    panic!("{message}")
}

/// Bytes that a log may have.
const LOG_BYTES_MAX: usize = 64 << 20;

const PATHS: &str = r#"/echo                           the request as JSON
/log?n=TEXT                     appends TEXT; answers how many came before
/log                            what was appended, as JSON
/yield?n=TEXT                   as /log?n=TEXT, then yields once
/sleep?ms=N                     answers after N ms
/gone?ms=N                      waits N ms for its caller to go, and logs "gone"
/stream?bytes=N&chunk=N         answers N bytes, in chunks
/upload?delay_ms=N&stop_after=N reads the body, slowly or in part; answers its size and SHA-256
/status?code=N                  answers that status
/headers?set=NAME:VALUE         answers these headers
/whoami                         id, name, namespace and activation, as JSON
/socket                         a WebSocket that says what it hears
/call?namespace=&name=&url=     calls another object, with &method= and the body; over HTTP, of this namespace
/block?ms=N                     lets nothing else in for N ms; &fail fails then
/put?key=&value=                stores texts, of as many pairs; &unconfirmed; or the body by a key
/get?key=                       a value; of several keys, as /list
/list?prefix=&limit=            [key, value] as JSON; &start= &start_after= &end= &reverse
/delete?key=                    deletes keys; answers how many there were
/delete-all                     deletes everything
/txn?key=&value=&fail=TEXT      stores, and runs a body as /sql does, in a transaction that fails;
                                &await_ms=N keeps it open
/sync                           answers when everything is durable
/sql                            runs the body, {"sql": "", "bindings": []}; bytes are {"hex": ""}
/bookmark                       a bookmark of now; &at_ms=N of then
/restore?to=BOOKMARK            goes back and resets itself; &stay goes back at the next start
/alarm                          what the alarm is set to, as JSON; ?clear clears it
/alarm?in_ms=N                  sets it; &fail=N fails N times, &abort resets, &again_ms=N sets it anew
/alarms?wait=N                  how it rang, as JSON, once it has rung N times; for &ms=N at most
/throw?message=TEXT             fails
/panic?message=TEXT             panics
/abort?reason=TEXT              resets itself
"#;
