//! `ROOM`: messages that people leave each other.

use http::Method;
use http::header::{CONTENT_TYPE, HeaderValue};
use serde::{Deserialize, Serialize};

use super::chat::{self, Chat, Visit};
use super::query::{Complaint, Query, bad_request, not_allowed};
use crate::error::{Kind, Result};
use crate::message::{Request, Response, response as respond};
use crate::object::{DurableObject, Env, List, Socket, State, Storage};
use crate::socket::{self, Closed};

/// Messages. `POST /` appends the body, `?from=` somebody; `GET /` answers the last ones, a line of JSON
/// each: `?limit=` of them, or all `?after=` a number, of which `?limit=` are the first. A browser gets a page to talk
/// on; a WebSocket, `?from=` somebody, hears the same messages (the newest MiB), then all that follow, and says what
/// it sends.
///
/// It remembers the last thousand, each by the key `message/` and its number.
#[derive(Debug)]
pub struct Room {
    storage: Storage,
    chat: Chat,
}

#[derive(Debug, Serialize, Deserialize)]
struct Message {
    number: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    text: String,
}

impl DurableObject for Room {
    async fn new(state: State, _env: Env) -> Result<Self> {
        Ok(Self { storage: state.storage(), chat: Chat::new(state)? })
    }

    async fn fetch(&self, request: Request) -> Result<Response> {
        let query = Query::of(&request);
        match *request.method() {
            _ if request.uri().path() != "/" => respond::status(404, "a room has only the path /"),
            _ if Visit::of(&request) == Visit::Page => Ok(chat::page()),
            Method::GET | Method::HEAD => match Wanted::of(&query) {
                Ok(wanted) if Visit::of(&request) == Visit::Join => {
                    self.chat.join(query.text("from"), &self.read(wanted)?)
                }
                Ok(wanted) => lines(&self.read(wanted)?),
                Err(complaint) => bad_request(complaint),
            },
            Method::POST => self.write(request, query.text("from")).await,
            _ => not_allowed(&request, "GET, HEAD, POST"),
        }
    }

    async fn web_socket_message(&self, socket: &Socket, message: socket::Message) -> Result<()> {
        match message.as_text() {
            Some(text) if text.len() <= TEXT_BYTES_MAX => {
                self.append(Chat::name(socket)?, text.to_owned()).map(drop)
            }
            Some(_) => Chat::refuse(socket, "a message has at most 16 KiB"),
            None => Chat::refuse(socket, "a message is text"),
        }
    }

    async fn web_socket_close(&self, _socket: &Socket, closed: Closed) -> Result<()> {
        self.chat.left(closed);
        Ok(())
    }
}

/// Which messages a reader wants.
struct Wanted {
    limit: usize,
    after: Option<u64>,
}

impl Wanted {
    fn of(query: &Query) -> Result<Self, Complaint> {
        let after = query.number("after")?;
        let default = if after.is_some() { HISTORY_MAX as usize } else { LISTED };
        Ok(Self { limit: query.number("limit")?.unwrap_or(default), after })
    }
}

impl Room {
    fn read(&self, Wanted { limit, after }: Wanted) -> Result<Vec<Message>> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        let list = List::prefix(MESSAGE).limit(limit);
        let list = match after {
            // From where the reader is, so that one who comes back misses nothing.
            Some(after) => list.start_after(key(after)),
            None => list.reverse(),
        };
        let messages = self.storage.list(&list)?.into_iter().map(|(_, message)| message);
        Ok(if after.is_some() { messages.collect() } else { messages.rev().collect() })
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
        lines(&[self.append(from.map(str::to_owned), text)?])
    }

    /// Keeps a message, and tells it to everybody who is here.
    fn append(&self, from: Option<String>, text: String) -> Result<Message> {
        // Nothing waits here: no two messages get one number, and no message is there without its oldest having
        // gone.
        let last = self.read(Wanted { limit: 1, after: None })?.pop();
        let number = last.map_or(0, |last| last.number) + 1;
        let message = Message { number, from, text };
        self.storage.put(&key(number), &message)?;
        if let Some(oldest) = number.checked_sub(HISTORY_MAX) {
            self.storage.delete(&key(oldest))?;
        }
        self.chat.tell(&message)?;
        Ok(message)
    }
}

/// Returns the key of a message. Keys order as numbers do.
fn key(number: u64) -> String {
    format!("{MESSAGE}{number:020}")
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

const MESSAGE: &str = "message/";
/// How many messages a room remembers.
const HISTORY_MAX: u64 = 1_000;
/// How many it shows where nothing is asked for.
const LISTED: usize = 100;
const TEXT_BYTES_MAX: usize = 16 << 10;
