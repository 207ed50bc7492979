//! One connection's requests: each to its object, and the answer back.
//!
//! **Invariant:** a request is in line for its object when `call` returns; order is decided there.
//! **Invariant:** dropping what `call` returns drops the call: its object can see that nobody waits.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures::channel::oneshot;
use futures::future::LocalBoxFuture;
use http::header::{CONNECTION, HOST, HeaderValue, SEC_WEBSOCKET_EXTENSIONS};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, StatusCode, Uri, Version};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::Service;

use super::door::GatewayDoor;
use super::failure::{self, Messages};
use super::forwarded::Peer;
use super::reply::ReplyBody;
use super::stall::{self, Current, Patient};
use super::upgrade::{Upgraded, Wanted};
use super::watch::{Call, Watch};
use super::{headers, inspector, path, rest, upgrade};
use crate::body::Body;
use crate::error::{Error, Kind, Result};
use crate::limits::Limits;
use crate::message::{self, Request, Response, response as respond};
use crate::rfc6455::Budget;
use crate::runtime::{self, Event, Key, Lane, RemoteLane, Reply, Shard};

/// A connection, as its requests see it.
pub(super) struct Visit {
    shard: Rc<Shard>,
    door: GatewayDoor,
    peer: Peer,
    watch: Rc<Watch>,
    upgraded: Upgraded,
    /// The stream of HTTP/2 that is looked at.
    stream: Current,
}

/// Which object a request is for, and what of its path is left.
struct Destination {
    address: runtime::Address,
    /// Where the rest begins in the path.
    rest_at: usize,
}

/// A refused request. Boxed: it is rare, and large beside what it replaces.
type Refusal = Box<Response>;

impl Visit {
    /// Makes a connection from `peer`, which is served on the thread of `shard`.
    pub(super) fn new(shard: Rc<Shard>, door: GatewayDoor, peer: Peer, watch: Rc<Watch>) -> Self {
        let (upgraded, stream) = (Upgraded::default(), Current::default());
        Self { shard, door, peer, watch, upgraded, stream }
    }

    /// Returns where the stream of HTTP/2 is to be that is looked at.
    pub(super) fn stream(&self) -> Current {
        self.stream.clone()
    }

    /// Returns where the WebSocket of the connection is once it was granted.
    pub(super) fn upgraded(&self) -> Upgraded {
        self.upgraded.clone()
    }

    /// Returns what may be held of messages that have not come whole.
    pub(super) fn budget(&self) -> Arc<Budget> {
        self.door.budget(self.limits())
    }

    /// Returns the bounds.
    pub(super) fn limits(&self) -> &Rc<Limits> {
        self.shard.limits()
    }

    fn admit(&self, request: http::Request<Incoming>) -> Result<State, Refusal> {
        let (mut head, body) = request.into_parts();
        let sound = check_size(&head, self.limits()).and_then(|()| host_of(&mut head));
        let host = sound.map_err(|refusal| hang_up(refusal, head.version))?;
        let reach = self.door.reach(&head);
        let routed = self.door.routes().host(host.host());
        if routed.is_none() {
            let (access, at) = (self.door.access(reach), head.uri.path());
            if inspector::is_at(at) {
                let answer = inspector::answer(&self.shard, &self.door, access, head, &host, body);
                return Ok(State::Own(answer));
            }
            if at.starts_with(rest::PREFIX) {
                return Ok(State::Own(rest::answer(&self.shard, access, &head, &host)));
            }
        }
        let pages = self.door.pages(reach, &self.peer);
        let turned = |told| refuse(StatusCode::FORBIDDEN, told);
        pages.admit(&head, &host, routed.is_some()).map_err(turned)?;
        let destination = match routed {
            Some(routed) => self.by_name(routed.namespace, &routed.name, 0)?,
            None if head.uri.path() == "/" => return Ok(State::Answered(Some(about()))),
            None => self.by_path(head.uri.path())?,
        };
        let wanted = Wanted::of(&head, &self.upgraded)?;
        let asked =
            Asked { method: head.method.clone(), wanted, messages: self.door.messages(reach) };
        let mut request = self.request(head, body, host, destination.rest_at)?;
        if asked.wanted.is_some() {
            // There are none, and who is asked for none offers none.
            request.headers_mut().remove(SEC_WEBSOCKET_EXTENSIONS);
            message::ask_web_socket(&mut request);
        }
        Ok(self.send(destination.address, request, asked))
    }

    fn by_path(&self, whole: &str) -> Result<Destination, Refusal> {
        let bad = |told: &str| refuse(StatusCode::BAD_REQUEST, told);
        let bad_path = || bad("the path is not UTF-8 text, percent-encoded");
        let split = path::split(whole);
        let namespace = path::decode(split.namespace).ok_or_else(bad_path)?;
        let Some(number) = self.door.routes().exposed(&namespace) else {
            return Err(Box::new(failure::nothing_here()));
        };
        let Some(object) = split.object.filter(|object| !object.is_empty()) else {
            return Err(bad("the path names no object: write /NAMESPACE/NAME"));
        };
        let rest_at = whole.len() - split.rest.len();
        match object.strip_prefix("id:") {
            Some(id) => self.by_id(number, id, rest_at),
            None => self.by_name(number, &path::decode(object).ok_or_else(bad_path)?, rest_at),
        }
    }

    fn by_name(
        &self,
        namespace: usize,
        name: &str,
        rest_at: usize,
    ) -> Result<Destination, Refusal> {
        let (bytes, max) = (name.len(), self.limits().name_bytes_max);
        if bytes > max {
            let told = format!("a name of {bytes} bytes, of at most {max}");
            return Err(refuse(StatusCode::BAD_REQUEST, told));
        }
        let id = self.shard.namespaces().at(namespace).ids().id_from_name(name);
        let kept = (bytes <= runtime::NAME_BYTES_KEPT).then(|| Arc::from(name));
        let address = runtime::Address { key: Key { namespace, id }, name: kept, existing: false };
        Ok(Destination { address, rest_at })
    }

    fn by_id(&self, namespace: usize, id: &str, rest_at: usize) -> Result<Destination, Refusal> {
        let config = self.shard.namespaces().at(namespace);
        let id = config.ids().id_from_string(id).map_err(|error| {
            let error = match error.kind {
                Kind::WrongNamespace => {
                    let told = format!("id {id:.100} is not of namespace {}", config.name());
                    Error::new(error.kind, told)
                }
                _ => error,
            };
            Box::new(failure::of_call(&error, Messages::Shown))
        })?;
        let address = runtime::Address { key: Key { namespace, id }, name: None, existing: false };
        Ok(Destination { address, rest_at })
    }

    /// Makes the request that the object gets.
    fn request(
        &self,
        mut head: Parts,
        body: Incoming,
        host: Authority,
        rest_at: usize,
    ) -> Result<Request, Refusal> {
        headers::enter(&mut head.headers);
        let value = head.headers.get(HOST).cloned().or_else(|| host.as_str().try_into().ok());
        let value = value.unwrap_or(HeaderValue::from_static(""));
        head.headers.entry(HOST).or_insert_with(|| value.clone());
        let scheme = self.peer.introduce(&mut head.headers, value);
        let invalid = |error: Error| Box::new(failure::of_call(&error, Messages::Shown));
        head.uri = url(scheme, host, &head.uri, rest_at).map_err(|error| invalid(error.into()))?;
        let is_stream = head.version == Version::HTTP_2;
        head.version = Version::HTTP_11;
        head.extensions = http::Extensions::default();
        let body = match is_stream {
            true => Body::new(Patient::new(body, self.limits().http_stall_timeout)),
            false => Body::new(body.map_err(|error| stall::cut(&error))),
        };
        let request = Request::from_parts(head, body);
        message::validate(&request, self.limits()).map_err(invalid)?;
        Ok(request)
    }

    /// Puts a request in line for its object.
    fn send(&self, address: runtime::Address, request: Request, asked: Asked) -> State {
        let (reply, answer) = oneshot::channel();
        let to = self.shard.placement().shard(&address.key.id);
        let request = Box::new(request);
        let lane = if to == self.shard.index() {
            let lane = Lane::new(self.shard.clone(), address);
            lane.send(Event::Fetch { request, reply: Reply::here(reply) });
            Way::Here { _lane: lane }
        } else {
            let lane = RemoteLane::new(self.shard.clone(), to, address);
            lane.fetch(request, reply);
            Way::Away { _lane: lane }
        };
        State::Called(Called { answer, _lane: lane, asked })
    }
}

/// Refuses a request that is too large, before anything is done for it.
fn check_size(head: &Parts, limits: &Limits) -> Result<(), Refusal> {
    let url = head.uri.path_and_query().map_or(0, |url| url.as_str().len());
    if url > limits.url_bytes_max {
        let told = format!("url of {url} bytes is over the limit of {}", limits.url_bytes_max);
        return Err(refuse(StatusCode::URI_TOO_LONG, told));
    }
    let count = head.headers.len();
    let bytes: usize =
        head.headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if count > limits.headers_max || bytes > limits.header_bytes_max {
        let told = format!("{count} headers of {bytes} bytes are over the limit");
        return Err(refuse(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, told));
    }
    if head.method == Method::CONNECT {
        return Err(refuse(
            StatusCode::BAD_REQUEST,
            "method CONNECT asks for a proxy, not for an object",
        ));
    }
    Ok(())
}

/// Returns the host that a request is for, which its `Host` header says from then on too.
fn host_of(head: &mut Parts) -> Result<Authority, Refusal> {
    let bad = |told: &str| refuse(StatusCode::BAD_REQUEST, told);
    let mut values = head.headers.get_all(HOST).iter();
    let (value, second) = (values.next().cloned(), values.next());
    if second.is_some() {
        return Err(bad("two Host headers"));
    }
    // What the request line or `:authority` says counts.
    let of_url = head.uri.authority().cloned();
    let host = match (of_url, &value) {
        (Some(host), _) => host,
        (None, Some(value)) => Authority::try_from(value.as_bytes())
            .map_err(|_| bad("the Host header is not a host"))?,
        (None, None) if head.version == Version::HTTP_10 => Authority::from_static("localhost"),
        (None, None) => return Err(bad("there is no Host header")),
    };
    if host.as_str().contains('@') || host.host().is_empty() {
        return Err(bad("the Host header is not a host"));
    }
    if value.as_ref().is_none_or(|value| value.as_bytes() != host.as_str().as_bytes()) {
        let value = HeaderValue::try_from(host.as_str());
        head.headers.insert(HOST, value.map_err(|_| bad("the Host header is not a host"))?);
    }
    Ok(host)
}

/// Returns the url that an object gets: the host, and what its own part of the path leaves.
fn url(scheme: Scheme, host: Authority, uri: &Uri, rest_at: usize) -> Result<Uri, http::Error> {
    let whole = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let rest: PathAndQuery = match whole.get(rest_at..) {
        Some(rest) if rest.starts_with('/') => rest.try_into()?,
        Some(rest) => format!("/{rest}").try_into()?,
        None => PathAndQuery::from_static("/"),
    };
    Uri::builder().scheme(scheme).authority(host).path_and_query(rest).build()
}

/// Ends the connection of HTTP/1.1 with a refusal: who sends such a head is not to be trusted with another.
fn hang_up(mut refusal: Refusal, version: Version) -> Refusal {
    if version <= Version::HTTP_11 {
        refusal.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    refusal
}

fn refuse(status: StatusCode, told: impl Into<String>) -> Refusal {
    Box::new(failure::refusal(status, Kind::InvalidRequest, told))
}

/// Says what this is.
fn about() -> Response {
    respond::text(concat!(
        "stubborn ",
        env!("CARGO_PKG_VERSION"),
        ": durable objects, each at /NAMESPACE/NAME/ where its namespace is exposed.\n"
    ))
}

impl Service<http::Request<Incoming>> for Visit {
    type Response = http::Response<ReplyBody>;
    type Error = Infallible;
    type Future = Answering;

    fn call(&self, request: http::Request<Incoming>) -> Answering {
        let call = Some(self.watch.begin());
        let is_last = upgrade::is_last(&request);
        let state = self.admit(request);
        let state = state.unwrap_or_else(|refusal| State::Answered(Some(*refusal)));
        Answering { state, call, is_last, stream: self.stream.clone() }
    }
}

/// A request that waits for its answer.
pub(super) struct Answering {
    state: State,
    call: Option<Call>,
    /// Whether no request follows this one on its connection.
    is_last: bool,
    stream: Current,
}

enum State {
    Answered(Option<Response>),
    Called(Called),
    /// What this door answers itself, once it has asked others.
    Own(LocalBoxFuture<'static, Response>),
}

/// A request in line for its object.
struct Called {
    answer: oneshot::Receiver<Result<Response>>,
    _lane: Way,
    asked: Asked,
}

/// What of a request decides on its answer.
struct Asked {
    method: Method,
    /// The WebSocket that was asked for.
    wanted: Option<Wanted>,
    messages: Messages,
}

/// The way to the object, which is open until it has answered.
enum Way {
    Here { _lane: Rc<Lane> },
    Away { _lane: RemoteLane },
}

impl Called {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Response> {
        let outcome = ready!(Pin::new(&mut self.answer).poll(context)).unwrap_or_else(|_| {
            Err(Error::disconnected("the server has stopped").with_delivered(true))
        });
        let switches = |response: &Response| response.status() == StatusCode::SWITCHING_PROTOCOLS;
        let response = match outcome {
            Ok(response) if switches(&response) && self.asked.wanted.is_none() => {
                failure::of_call(&upgrade::not_asked_for(), Messages::Shown)
            }
            Ok(response) if switches(&response) => response,
            Ok(response) => headers::exit(response, &self.asked.method),
            Err(error) => failure::of_call(&error, self.asked.messages),
        };
        Poll::Ready(match self.asked.wanted.take() {
            Some(wanted) => wanted.answer(response),
            None => response,
        })
    }
}

impl Future for Answering {
    type Output = Result<http::Response<ReplyBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut response = match &mut self.state {
            State::Answered(response) => response.take().expect("an answer is asked for once"),
            State::Called(called) => ready!(called.poll(context)),
            State::Own(answer) => ready!(answer.as_mut().poll(context)),
        };
        if self.is_last {
            upgrade::close_behind(&mut response);
        }
        let call = self.call.take().expect("an answer is asked for once");
        let progress = self.stream.borrow().clone();
        Poll::Ready(Ok(response.map(|body| ReplyBody::new(body, call, progress))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(host: &[&str], version: Version, uri: &str) -> Result<String, u16> {
        let mut request = http::Request::builder().version(version).uri(uri);
        for host in host {
            request = request.header(HOST, *host);
        }
        let (mut head, ()) = request.body(()).unwrap().into_parts();
        let host = host_of(&mut head).map_err(|refusal| refusal.status().as_u16())?;
        assert_eq!(head.headers[HOST], host.as_str());
        Ok(host.to_string())
    }

    #[test]
    fn a_request_is_for_one_host() {
        use Version as V;
        for (hosts, version, uri, told) in [
            (&["a:80"][..], V::HTTP_11, "/", Ok("a:80")),
            (&["a"], V::HTTP_11, "http://b/", Ok("b")),
            (&[], V::HTTP_2, "http://b:1/", Ok("b:1")),
            (&[], V::HTTP_10, "/", Ok("localhost")),
            (&["[::1]:8"], V::HTTP_11, "/", Ok("[::1]:8")),
            (&[], V::HTTP_11, "/", Err(400)),
            (&["a", "a"], V::HTTP_11, "/", Err(400)),
            (&[""], V::HTTP_11, "/", Err(400)),
            (&["a b"], V::HTTP_11, "/", Err(400)),
            (&["a/b"], V::HTTP_11, "/", Err(400)),
            (&["u@a"], V::HTTP_11, "/", Err(400)),
            (&["a, b"], V::HTTP_11, "/", Err(400)),
        ] {
            assert_eq!(host(hosts, version, uri), told.map(str::to_owned), "{hosts:?} {uri}");
        }
    }

    #[test]
    fn an_object_gets_what_is_left_of_the_url() {
        for (uri, rest_at, told) in [
            ("/KV/a/b?c=/d", 5, "http://do/b?c=/d"),
            ("/KV/a", 5, "http://do/"),
            ("/KV/a?x", 5, "http://do/?x"),
            ("/KV/a/", 5, "http://do/"),
            ("/KV/a//b", 5, "http://do//b"),
            ("/whole?q", 0, "http://do/whole?q"),
        ] {
            let host = Authority::from_static("do");
            let url = url(Scheme::HTTP, host, &uri.parse().unwrap(), rest_at).unwrap();
            assert_eq!(url.to_string(), told, "{uri}");
        }
    }
}
