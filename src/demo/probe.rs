//! `PROBE`: an object that reflects, and misbehaves on request.

use std::cell::RefCell;
use std::time::Duration;

use super::query::{Complaint, Query, bad_request};
use super::{reflect, streams};
use crate::error::{Error, Result};
use crate::message::{self, Request, Response, response as respond};
use crate::object::{DurableObject, Env, RequestExt, State};

/// An object for tests: it reflects, and misbehaves on request. `GET /` tells what it can do.
///
/// Its name, where it begins so, tells its constructor to misbehave: `slow-constructor-200-x` takes
/// 200 ms, `bad-constructor` fails and `panic-constructor` panics.
#[derive(Debug)]
pub struct Probe {
    state: State,
    env: Env,
    log: RefCell<Vec<String>>,
}

impl DurableObject for Probe {
    async fn new(state: State, env: Env) -> Result<Self> {
        misconstruct(&state.name().unwrap_or_default()).await?;
        Ok(Self { state, env, log: RefCell::default() })
    }

    async fn fetch(&self, request: Request) -> Result<Response> {
        let query = Query::of(&request);
        match self.answer(request, &query).await? {
            Ok(response) => Ok(response),
            Err(complaint) => bad_request(complaint),
        }
    }
}

impl Probe {
    /// Answers, or complains of the query.
    async fn answer(&self, request: Request, query: &Query) -> Result<Result<Response, Complaint>> {
        let path = request.uri().path().to_owned();
        Ok(match path.as_str() {
            "/echo" => Ok(reflect::echo(request).await?),
            "/whoami" => Ok(reflect::whoami(&self.state)?),
            "/status" => reflect::status(query),
            "/headers" => reflect::headers(query),
            "/log" => match query.text("n") {
                Some(n) => Ok(respond::text(self.append(n)?.to_string())),
                None => Ok(respond::json(&*self.log.borrow())?),
            },
            "/yield" => self.log_and_yield(query).await?,
            "/sleep" => sleep(query).await,
            "/gone" => self.wait_for_nobody(&request, query).await?,
            "/stream" => streams::stream(&self.state, query),
            "/upload" => streams::upload(request, query).await?,
            "/throw" => Err(Error::failed(query.text("message").unwrap_or("thrown")))?,
            "/panic" => misbehave(query.text("message").unwrap_or("asked to")),
            "/abort" => {
                self.state.abort(query.text("reason").unwrap_or("asked to"));
                Ok(respond::text("never seen: the object is gone"))
            }
            "/call" => match Onward::of(request, query) {
                Ok(onward) => Ok(onward.call(&self.env).await?),
                Err(complaint) => Err(complaint),
            },
            path => Ok(respond::status(404, format!("there is no {path} here but\n{PATHS}"))?),
        })
    }

    /// Appends to the log; returns how many came before.
    pub(super) fn append(&self, entry: &str) -> Result<usize> {
        let mut log = self.log.borrow_mut();
        if log.len() >= LOG_ENTRIES_MAX {
            return Err(Error::overloaded(format!("the log is full: {LOG_ENTRIES_MAX} entries")));
        }
        log.push(entry.to_owned());
        Ok(log.len() - 1)
    }

    async fn log_and_yield(&self, query: &Query) -> Result<Result<Response, Complaint>> {
        let position = match query.required("n") {
            Ok(n) => self.append(n)?,
            Err(complaint) => return Ok(Err(complaint)),
        };
        tokio::task::yield_now().await;
        Ok(Ok(respond::text(position.to_string())))
    }

    /// Waits until the caller has gone, and logs that; not for ever.
    async fn wait_for_nobody(
        &self,
        request: &Request,
        query: &Query,
    ) -> Result<Result<Response, Complaint>> {
        let patience = match query.number("ms") {
            Ok(ms) => Duration::from_millis(ms.unwrap_or(10_000)),
            Err(complaint) => return Ok(Err(complaint)),
        };
        match tokio::time::timeout(patience, request.signal().gone()).await {
            Ok(()) => {
                self.append("gone")?;
                Ok(Ok(respond::text("gone")))
            }
            Err(_) => Ok(Ok(respond::text("still there"))),
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

/// Entries that a log may have.
const LOG_ENTRIES_MAX: usize = 1_000_000;

const PATHS: &str = "\
/echo                           the request as JSON
/log?n=TEXT                     appends TEXT; answers how many came before
/log                            what was appended, as JSON
/yield?n=TEXT                   as /log?n=TEXT, then yields once
/sleep?ms=N                     answers after N ms
/gone?ms=N                      waits N ms for its caller to go, and logs \"gone\"
/stream?bytes=N&chunk=N         answers N bytes, in chunks
/upload?delay_ms=N&stop_after=N reads the body, slowly or in part; answers its size and SHA-256
/status?code=N                  answers that status
/headers?set=NAME:VALUE         answers these headers
/whoami                         id, name, namespace and activation, as JSON
/call?namespace=&name=&url=     calls another object, with &method= and the body
/throw?message=TEXT             fails
/panic?message=TEXT             panics
/abort?reason=TEXT              resets itself
";
