//! `ROOM`: messages that people leave each other.

use std::cell::RefCell;
use std::collections::VecDeque;

use http::Method;
use http::header::{CONTENT_TYPE, HeaderValue};
use serde::Serialize;

use super::query::{Complaint, Query, bad_request, not_allowed};
use crate::error::{Kind, Result};
use crate::message::{Request, Response, response as respond};
use crate::object::{DurableObject, Env, State};

/// Messages. `POST /` appends the body, `?from=` somebody; `GET /` answers the last ones, a line of JSON
/// each: `?limit=` of them, or the first ones `?after=` a number.
///
/// It remembers the last thousand.
#[derive(Debug)]
pub struct Room {
    history: RefCell<History>,
}

#[derive(Debug, Default)]
struct History {
    messages: VecDeque<Message>,
    count: u64,
}

#[derive(Clone, Debug, Serialize)]
struct Message {
    number: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    text: String,
}

impl DurableObject for Room {
    async fn new(_state: State, _env: Env) -> Result<Self> {
        Ok(Self { history: RefCell::default() })
    }

    async fn fetch(&self, request: Request) -> Result<Response> {
        let query = Query::of(&request);
        match *request.method() {
            _ if request.uri().path() != "/" => respond::status(404, "a room has only the path /"),
            Method::GET | Method::HEAD => match self.read(&query) {
                Ok(messages) => lines(&messages),
                Err(complaint) => bad_request(complaint),
            },
            Method::POST => self.write(request, query.text("from")).await,
            _ => not_allowed(&request, "GET, HEAD, POST"),
        }
    }
}

impl Room {
    fn read(&self, query: &Query) -> Result<Vec<Message>, Complaint> {
        let limit = query.number("limit")?.unwrap_or(LISTED);
        let history = self.history.borrow();
        let messages = history.messages.iter();
        Ok(match query.number::<u64>("after")? {
            // From where the reader is, so that one who comes back misses nothing.
            Some(after) => {
                messages.filter(|message| message.number > after).take(limit).cloned().collect()
            }
            None => messages.skip(history.messages.len().saturating_sub(limit)).cloned().collect(),
        })
    }

    async fn write(&self, request: Request, from: Option<&str>) -> Result<Response> {
        let bytes = match request.into_body().bytes_limited(TEXT_BYTES_MAX).await {
            Err(error) if error.kind == Kind::InvalidRequest => {
                return respond::status(413, error.message);
            }
            bytes => bytes?,
        };
        let Ok(text) = String::from_utf8(bytes.into()) else {
            return bad_request("the message is not utf-8 text");
        };
        let message = {
            let mut history = self.history.borrow_mut();
            history.count += 1;
            let from = from.map(str::to_owned);
            let message = Message { number: history.count, from, text };
            history.messages.push_back(message.clone());
            if history.messages.len() > HISTORY_MAX {
                history.messages.pop_front();
            }
            message
        };
        lines(&[message])
    }
}

fn lines(messages: &[Message]) -> Result<Response> {
    let mut text = String::new();
    for message in messages {
        text.push_str(&serde_json::to_string(message)?);
        text.push('\n');
    }
    let mut response = respond::text(text);
    let content_type = HeaderValue::from_static("application/x-ndjson");
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    Ok(response)
}

/// How many messages a room remembers.
const HISTORY_MAX: usize = 1_000;
/// How many it shows where nothing is asked for.
const LISTED: usize = 100;
const TEXT_BYTES_MAX: usize = 16 << 10;
