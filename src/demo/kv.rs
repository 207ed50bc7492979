//! `KV`: values by key.

use std::cell::RefCell;
use std::collections::BTreeMap;

use bytes::Bytes;
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderValue};

use super::query::not_allowed;
use crate::body::Body;
use crate::error::{Kind, Result};
use crate::message::{Request, Response, response as respond};
use crate::object::{DurableObject, Env, State};

/// Values by key. `PUT`, `GET` and `DELETE` of `/key`; `GET /` lists the keys, one a line.
///
/// A key is the path as it stands in the url, escapes and all. Values keep their content type.
#[derive(Debug)]
pub struct Kv {
    values: RefCell<BTreeMap<String, Value>>,
}

#[derive(Clone, Debug)]
struct Value {
    bytes: Bytes,
    content_type: Option<HeaderValue>,
}

impl DurableObject for Kv {
    async fn new(_state: State, _env: Env) -> Result<Self> {
        Ok(Self { values: RefCell::default() })
    }

    async fn fetch(&self, request: Request) -> Result<Response> {
        let key = request.uri().path().trim_start_matches('/').to_owned();
        match (request.method().as_str(), key.is_empty()) {
            ("GET" | "HEAD", true) => Ok(self.list()),
            (_, true) => not_allowed(&request, "GET, HEAD"),
            ("GET" | "HEAD", false) => self.read(&key),
            ("PUT", false) => self.write(key, request).await,
            ("DELETE", false) => self.delete(&key),
            (_, false) => not_allowed(&request, "GET, HEAD, PUT, DELETE"),
        }
    }
}

impl Kv {
    fn list(&self) -> Response {
        let values = self.values.borrow();
        respond::text(values.keys().flat_map(|key| [key, "\n"]).collect::<String>())
    }

    fn read(&self, key: &str) -> Result<Response> {
        let Some(value) = self.values.borrow().get(key).cloned() else { return missing(key) };
        let mut response = Response::new(Body::from_bytes(value.bytes));
        if let Some(content_type) = value.content_type {
            response.headers_mut().insert(CONTENT_TYPE, content_type);
        }
        Ok(response)
    }

    async fn write(&self, key: String, request: Request) -> Result<Response> {
        if key.len() > KEY_BYTES_MAX {
            let bytes = key.len();
            return respond::status(
                414,
                format!("key of {bytes} bytes, of at most {KEY_BYTES_MAX}"),
            );
        }
        let content_type = request.headers().get(CONTENT_TYPE).cloned();
        let bytes = match request.into_body().bytes_limited(VALUE_BYTES_MAX).await {
            Err(error) if error.kind == Kind::InvalidRequest => {
                return respond::status(413, error.message);
            }
            bytes => bytes?,
        };
        let mut values = self.values.borrow_mut();
        if values.len() >= KEYS_MAX && !values.contains_key(&key) {
            return respond::status(507, format!("{KEYS_MAX} keys are the most there may be"));
        }
        values.insert(key, Value { bytes, content_type });
        Ok(no_content())
    }

    fn delete(&self, key: &str) -> Result<Response> {
        match self.values.borrow_mut().remove(key) {
            Some(_) => Ok(no_content()),
            None => missing(key),
        }
    }
}

fn missing(key: &str) -> Result<Response> {
    respond::status(404, format!("there is no key {key:?}"))
}

fn no_content() -> Response {
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

const KEY_BYTES_MAX: usize = 2048;
const VALUE_BYTES_MAX: usize = 2 << 20;
const KEYS_MAX: usize = 10_000;
