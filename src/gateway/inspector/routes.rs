//! Which request gets what, and who gets none.
//!
//! **Invariant:** who may see nothing gets the page at most, which has nothing in it.

use std::rc::Rc;

use futures::FutureExt;
use futures::future::{LocalBoxFuture, ready};
use http::header::{ALLOW, CONTENT_TYPE, HeaderValue, LOCATION};
use http::request::Parts;
use http::uri::Authority;
use http::{Method, StatusCode};
use hyper::body::Incoming;

use super::{api, page};
use crate::body::Body;
use crate::error::{Error, Kind};
use crate::gateway::access::{Access, Denied, guarded};
use crate::gateway::door::GatewayDoor;
use crate::gateway::failure;
use crate::gateway::params::Params;
use crate::message::Response;
use crate::runtime::Shard;

/// Returns whether a path leads here. None of these leads to a namespace, whatever that is called.
pub(in crate::gateway) fn is_at(path: &str) -> bool {
    path.strip_prefix(PREFIX).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Answers a request whose path leads here.
pub(in crate::gateway) fn answer(
    shard: &Rc<Shard>,
    door: &GatewayDoor,
    access: Access<'_>,
    head: Parts,
    host: &Authority,
    body: Incoming,
) -> LocalBoxFuture<'static, Response> {
    let at = head.uri.path().strip_prefix(PREFIX).unwrap_or_default().to_owned();
    let admitted = access.admit(&head, host);
    let answered = match (at.as_str(), at.strip_prefix("/api/")) {
        _ if !door.has_inspector() => failure::nothing_here(),
        ("", _) => moved(),
        ("/", _) => match admitted {
            // A link of another site may lead to the page.
            Ok(()) | Err(Denied::Unknown | Denied::Page) if is_read(&head) => page::response(),
            Ok(()) | Err(Denied::Unknown | Denied::Page) => wrong_method(&head, "GET, HEAD"),
            Err(denied) => refused(denied),
        },
        (_, Some(asked)) => match admitted {
            Ok(()) => {
                let (shard, door, asked) = (shard.clone(), door.clone(), asked.to_owned());
                let answering = async move { api(&shard, &door, &asked, head, body).await };
                return answering.map(guarded).boxed_local();
            }
            Err(denied) => refused(denied),
        },
        _ => failure::nothing_here(),
    };
    ready(guarded(answered)).boxed_local()
}

async fn api(
    shard: &Rc<Shard>,
    door: &GatewayDoor,
    asked: &str,
    head: Parts,
    body: Incoming,
) -> Response {
    let params = Params::of(head.uri.query().unwrap_or_default());
    let method = if asked == "sql" { head.method == Method::POST } else { is_read(&head) };
    if !method {
        return wrong_method(&head, if asked == "sql" { "POST" } else { "GET, HEAD" });
    }
    let answered = match asked {
        "namespaces" => api::namespaces(shard, door).await,
        "live" => api::live(shard).await,
        "objects" => api::objects(shard, &params).await,
        "object" => api::object(shard, &params).await,
        "values" => api::values(shard, &params).await,
        "events" => api::events(shard, &params).await,
        // A form of another site can't say so.
        "sql" if head.headers.get(CONTENT_TYPE).is_some_and(|kind| kind == "application/json") => {
            let cut = |error: hyper::Error| Error::truncated(error.to_string());
            let body = http_body_util::BodyExt::map_err(body, cut);
            match Body::new(body).bytes_limited(STATEMENT_BYTES_MAX).await {
                Ok(body) => api::sql(shard, door, &body).await,
                Err(error) => Err(error),
            }
        }
        "sql" => Err(Error::invalid_request("the content type is not application/json")),
        _ => return failure::nothing_here(),
    };
    answered.unwrap_or_else(|error| failure::of_call(&error, failure::Messages::Shown))
}

fn is_read(head: &Parts) -> bool {
    matches!(head.method, Method::GET | Method::HEAD)
}

fn moved() -> Response {
    let mut response = Response::default();
    *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    response.headers_mut().insert(LOCATION, HeaderValue::from_static("/_stubborn/"));
    response
}

fn refused(denied: Denied) -> Response {
    let mut response = failure::refusal(denied.status(), Kind::InvalidRequest, denied.told());
    denied.mark(&mut response);
    response
}

fn wrong_method(head: &Parts, allowed: &'static str) -> Response {
    let told = format!("method {} is not {allowed}", head.method);
    let mut response = failure::refusal(StatusCode::METHOD_NOT_ALLOWED, Kind::InvalidRequest, told);
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    response
}

const PREFIX: &str = "/_stubborn";
/// Bytes of a statement and what names its object.
const STATEMENT_BYTES_MAX: usize = 64 << 10;
