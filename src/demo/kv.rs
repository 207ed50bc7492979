//! `KV`: values by key.

use http::StatusCode;
use http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};

use super::query::{Complaint, Query, bad_request, not_allowed};
use crate::body::Body;
use crate::error::{Kind, Result};
use crate::message::{Request, Response, response as respond};
use crate::object::{DurableObject, Env, List, State, Storage};

/// Values by key. `PUT`, `GET` and `DELETE` of `/key`; `GET /` lists keys in order, one a line: `?limit=` of
/// them (1,000 where it is missing), those that begin with `?prefix=`, those behind `?after=`. A page of
/// fewer than the limit is the last.
///
/// A key is the path as it stands in the url, escapes and all. Values keep their content type; a browser runs nothing
/// of them. The bytes are
/// stored by `value/` and the key, the type, where there is one, by `type/` and the key.
#[derive(Debug)]
pub struct Kv {
    storage: Storage,
}

impl DurableObject for Kv {
    async fn new(state: State, _env: Env) -> Result<Self> {
        Ok(Self { storage: state.storage() })
    }

    async fn fetch(&self, request: Request) -> Result<Response> {
        self.answer(request).await.map(contained)
    }
}

impl Kv {
    async fn answer(&self, request: Request) -> Result<Response> {
        let key = request.uri().path().trim_start_matches('/').to_owned();
        if key.len() > KEY_BYTES_MAX {
            let bytes = key.len();
            return respond::status(
                414,
                format!("key of {bytes} bytes, of at most {KEY_BYTES_MAX}"),
            );
        }
        match (request.method().as_str(), key.is_empty()) {
            ("GET" | "HEAD", true) => match page(&Query::of(&request)) {
                Ok(page) => self.list(&page),
                Err(complaint) => bad_request(complaint),
            },
            (_, true) => not_allowed(&request, "GET, HEAD"),
            ("GET" | "HEAD", false) => self.read(&key),
            ("PUT", false) => self.write(&key, request).await,
            ("DELETE", false) => self.delete(&key),
            (_, false) => not_allowed(&request, "GET, HEAD, PUT, DELETE"),
        }
    }

    fn list(&self, page: &List) -> Result<Response> {
        let keys = self.storage.keys(page)?;
        let keys = keys.iter().filter_map(|key| key.strip_prefix(VALUE));
        Ok(respond::text(keys.flat_map(|key| [key, "\n"]).collect::<String>()))
    }

    fn read(&self, key: &str) -> Result<Response> {
        let Some(bytes) = self.storage.get_bytes(&format!("{VALUE}{key}"))? else {
            return missing(key);
        };
        let mut response = Response::new(Body::from_bytes(bytes));
        if let Some(content_type) = self.storage.get_bytes(&format!("{TYPE}{key}"))? {
            let content_type = HeaderValue::from_bytes(&content_type).map_err(http::Error::from)?;
            response.headers_mut().insert(CONTENT_TYPE, content_type);
        }
        Ok(response)
    }

    async fn write(&self, key: &str, request: Request) -> Result<Response> {
        let content_type = request.headers().get(CONTENT_TYPE).cloned();
        let bytes = match request.into_body().bytes_limited(VALUE_BYTES_MAX).await {
            Err(error) if error.kind == Kind::InvalidRequest => {
                return respond::status(413, error.message);
            }
            bytes => bytes?,
        };
        self.storage.transaction_sync(|| {
            self.storage.put_bytes(&format!("{VALUE}{key}"), &bytes)?;
            match content_type {
                Some(kind) => self.storage.put_bytes(&format!("{TYPE}{key}"), kind.as_bytes()),
                None => self.storage.delete(&format!("{TYPE}{key}")).map(drop),
            }
        })?;
        Ok(no_content())
    }

    fn delete(&self, key: &str) -> Result<Response> {
        self.storage.delete(&format!("{TYPE}{key}"))?;
        match self.storage.delete(&format!("{VALUE}{key}"))? {
            true => Ok(no_content()),
            false => missing(key),
        }
    }
}

/// Returns which keys the query asks for.
fn page(query: &Query) -> Result<List, Complaint> {
    let limit = query.number("limit")?.unwrap_or(LISTED);
    if !(1..=LISTED_MAX).contains(&limit) {
        return Err(format!("limit={limit} is not 1 to {LISTED_MAX}"));
    }
    let prefix = query.text("prefix").unwrap_or_default();
    let page = List::prefix(format!("{VALUE}{prefix}")).limit(limit);
    Ok(match query.text("after") {
        Some(after) => page.start_after(format!("{VALUE}{after}")),
        None => page,
    })
}

/// Has a browser run nothing of what somebody stored, as a page of the site that serves it.
fn contained(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

fn missing(key: &str) -> Result<Response> {
    respond::status(404, format!("there is no key {key:?}"))
}

fn no_content() -> Response {
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

const VALUE: &str = "value/";
const TYPE: &str = "type/";
/// What storage takes, less what is put before the key.
const KEY_BYTES_MAX: usize = 2_048 - VALUE.len();
/// What storage takes of a key and its value, less the longest key and what is put before the bytes.
const VALUE_BYTES_MAX: usize = (2 << 20) - 2_048 - 5;
/// How many keys are listed where nothing is asked for.
const LISTED: usize = 1_000;
const LISTED_MAX: usize = 10_000;
