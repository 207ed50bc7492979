//! `COUNTER`: a number.

use std::cell::Cell;

use http::Method;

use super::query::{Query, bad_request, not_allowed};
use crate::error::Result;
use crate::message::{Request, Response, response as respond};
use crate::object::{DurableObject, Env, State, Storage};

/// A number. `GET` reads it; `POST` adds `?by=` (1 where it is missing) and answers the sum.
///
/// It is stored by the key `value`.
#[derive(Debug)]
pub struct Counter {
    value: Cell<i64>,
    storage: Storage,
}

impl DurableObject for Counter {
    async fn new(state: State, _env: Env) -> Result<Self> {
        let storage = state.storage();
        Ok(Self { value: Cell::new(storage.get("value")?.unwrap_or(0)), storage })
    }

    async fn fetch(&self, request: Request) -> Result<Response> {
        match *request.method() {
            Method::GET | Method::HEAD => {}
            Method::POST => {
                let by = match Query::of(&request).number("by") {
                    Ok(by) => by.unwrap_or(1),
                    Err(complaint) => return bad_request(complaint),
                };
                let Some(sum) = self.value.get().checked_add(by) else {
                    return bad_request(format!("by={by} is more than the counter can hold"));
                };
                self.storage.put("value", &sum)?;
                self.value.set(sum);
            }
            _ => return not_allowed(&request, "GET, HEAD, POST"),
        }
        Ok(respond::text(self.value.get().to_string()))
    }
}
