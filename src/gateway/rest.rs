//! The platform's REST listing of namespaces and objects, for its official clients.
//!
//! **Invariant:** who may not list learns nothing but that.
//! **Invariant:** the last page has no cursor, and beyond the last page of namespaces comes an empty one: one
//! generation of clients reads `cursor`, another `cursors.after`, and both ask for pages until one is empty.

use std::rc::Rc;

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use http::header::{ALLOW, HeaderValue};
use http::request::Parts;
use http::uri::Authority;
use http::{Method, StatusCode};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::access::{Access, Denied, guarded};
use super::failure::json;
use super::params::{Params, to_hex};
use crate::error::{Error, Result};
use crate::message::Response;
use crate::runtime::{self, Listed, NamespaceConfig, Shard};

/// Where the listing is.
pub(super) const PREFIX: &str = "/client/v4/";

/// Answers a request to the listing.
pub(super) fn answer(
    shard: &Rc<Shard>,
    access: Access<'_>,
    head: &Parts,
    host: &Authority,
) -> LocalBoxFuture<'static, Response> {
    list(shard, access, head, host).map(guarded).boxed_local()
}

fn list(
    shard: &Rc<Shard>,
    access: Access<'_>,
    head: &Parts,
    host: &Authority,
) -> LocalBoxFuture<'static, Response> {
    if let Err(why) = access.admit(head, host) {
        return futures::future::ready(denied(why)).boxed_local();
    }
    if !matches!(head.method, Method::GET | Method::HEAD) {
        let told = format!("method {} is not GET", head.method);
        let mut response = refused(StatusCode::METHOD_NOT_ALLOWED, METHOD, &told);
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return futures::future::ready(response).boxed_local();
    }
    // Those that nobody knows are passed over, as the platform does.
    let query = Params::of(head.uri.query().unwrap_or_default());
    let path = head.uri.path().strip_prefix(PREFIX).unwrap_or_default();
    let segments: Vec<&str> = path.split('/').collect();
    match segments.as_slice() {
        ["accounts", _, "workers", "durable_objects", "namespaces"] => {
            let page = namespaces(shard, &query);
            futures::future::ready(page.unwrap_or_else(|error| wrong(&error))).boxed_local()
        }
        ["accounts", _, "workers", "durable_objects", "namespaces", id, "objects"] => {
            let (shard, id) = (shard.clone(), (*id).to_owned());
            let page = async move { objects(&shard, &id, &query).await };
            page.map(|page| page.unwrap_or_else(|refusal| *refusal)).boxed_local()
        }
        _ => {
            let told = format!("no route for {}", head.uri.path());
            futures::future::ready(refused(StatusCode::NOT_FOUND, ROUTE, &told)).boxed_local()
        }
    }
}

/// A refused request. Boxed: it is rare, and large beside what it replaces.
type Refusal = Box<Response>;

fn denied(denied: Denied) -> Response {
    let mut response = refused(denied.status(), AUTHENTICATION, denied.told());
    denied.mark(&mut response);
    response
}

#[derive(Serialize)]
struct Page<T> {
    result: Vec<T>,
    success: bool,
    errors: [(); 0],
    messages: [(); 0],
    result_info: ResultInfo,
}

#[derive(Default, Serialize)]
struct ResultInfo {
    count: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    page: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    per_page: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    total_count: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cursors: Option<Cursors>,
}

#[derive(Serialize)]
struct Cursors {
    after: String,
}

fn page<T: Serialize>(result: Vec<T>, result_info: ResultInfo) -> Response {
    let page = Page { result, success: true, errors: [], messages: [], result_info };
    json(StatusCode::OK, &page)
}

#[derive(Serialize)]
struct Refused<'a> {
    result: Option<()>,
    success: bool,
    errors: [Complaint<'a>; 1],
    messages: [(); 0],
}

#[derive(Serialize)]
struct Complaint<'a> {
    code: u32,
    message: &'a str,
}

fn refused(status: StatusCode, code: u32, message: &str) -> Response {
    let errors = [Complaint { code, message }];
    json(status, &Refused { result: None, success: false, errors, messages: [] })
}

fn wrong(error: &Error) -> Response {
    refused(StatusCode::BAD_REQUEST, PARAMETER, &error.message)
}

#[derive(Serialize)]
struct Namespace {
    id: String,
    name: String,
    script: &'static str,
    class: String,
    use_sqlite: bool,
}

/// Lists namespaces. Without parameters: all of them, for clients that ask for no second page.
fn namespaces(shard: &Shard, query: &Params) -> Result<Response> {
    let number_of_page = query.number("page", 1, 1..=usize::MAX)?;
    let per_page = query.number("per_page", PER_PAGE, 1..=PER_PAGE)?;
    let all = shard.namespaces().all();
    let skipped = (number_of_page - 1).saturating_mul(per_page);
    let entries = all.iter().skip(skipped).take(per_page).map(|config| Namespace {
        id: id(config),
        name: config.name().to_owned(),
        script: env!("CARGO_PKG_NAME"),
        class: config.class().name().to_owned(),
        use_sqlite: true,
    });
    let entries: Vec<Namespace> = entries.collect();
    let info = ResultInfo {
        count: entries.len(),
        page: Some(number_of_page),
        per_page: Some(per_page),
        total_count: Some(all.len()),
        ..ResultInfo::default()
    };
    Ok(page(entries, info))
}

/// Returns the id of a namespace: a hash that its key alone determines, and that tells nothing of the key.
fn id(config: &NamespaceConfig) -> String {
    const PURPOSE: &str = "stubborn: the id of a namespace";
    let of_key = config.ids().id_from_name(PURPOSE);
    let digest = Sha256::digest(of_key.as_bytes());
    to_hex(digest.get(..16).unwrap_or_default())
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Object {
    id: String,
    has_stored_data: bool,
    name: Option<String>,
}

impl From<Listed> for Object {
    fn from(listed: Listed) -> Self {
        Self {
            id: listed.id.to_string(),
            has_stored_data: listed.has_stored_data,
            name: listed.name,
        }
    }
}

async fn objects(shard: &Rc<Shard>, namespace: &str, query: &Params) -> Result<Response, Refusal> {
    let all = shard.namespaces().all();
    let Some(index) = all.iter().position(|config| id(config) == namespace) else {
        let told = format!("namespace {namespace:.100} does not exist");
        return Err(Box::new(refused(StatusCode::NOT_FOUND, NO_NAMESPACE, &told)));
    };
    let asked = query.number("limit", LIMIT, LIMIT_MIN..=LIMIT_MAX);
    // Clients may send an empty cursor for the first page.
    let asked = asked.and_then(|limit| Ok((limit, query.after()?)));
    let (limit, after) = asked.map_err(|error| Box::new(wrong(&error)))?;
    let listed = runtime::gather(shard, index, limit, after)
        .await
        .map_err(|error| Box::new(refused(StatusCode::BAD_GATEWAY, UNAVAILABLE, &error.message)))?;
    let cursor = listed.next.map(|next| next.to_string());
    let cursors = cursor.clone().map(|after| Cursors { after });
    let objects: Vec<_> = listed.objects.into_iter().map(Object::from).collect();
    let info = ResultInfo { count: objects.len(), cursor, cursors, ..ResultInfo::default() };
    Ok(page(objects, info))
}

/// Namespaces on one page, at most and by default.
const PER_PAGE: usize = 1_000;
/// Objects on one page.
const LIMIT: usize = 1_000;
const LIMIT_MIN: usize = 10;
const LIMIT_MAX: usize = 10_000;

/// What errors are called by the platform's numbers, as far as it has some.
const AUTHENTICATION: u32 = 10_000;
const METHOD: u32 = 10_405;
const ROUTE: u32 = 7_003;
const PARAMETER: u32 = 10_001;
const NO_NAMESPACE: u32 = 10_066;
const UNAVAILABLE: u32 = 10_013;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::Counter;
    use crate::object::Class;

    #[test]
    fn an_id_is_32_digits_that_the_key_alone_determines() {
        let config = |name, key| NamespaceConfig::new(name, Class::new::<Counter>(), key);
        let one = id(&config("A", "key"));
        assert!(one.len() == 32 && one.bytes().all(|b| b.is_ascii_hexdigit()), "{one}");
        assert_eq!(one, id(&config("B", "key")));
        assert_ne!(one, id(&config("A", "other")));
    }
}
