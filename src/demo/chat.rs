//! The WebSockets of `ROOM`, and its page: whoever is in a room hears what is said there.
//!
//! A member gets each message as a line of JSON, and `{"here":3}` whenever somebody comes or goes. What it sends is
//! said, by the name that it joined with.

use http::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use http::{HeaderName, Method};
use serde::Serialize;

use crate::error::Result;
use crate::message::{Request, Response, response as respond};
use crate::object::{RequestExt, Socket, State};
use crate::socket::{Closed, WebSocket};

/// What a visitor of a room's address wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Visit {
    /// To be in the room.
    Join,
    /// To see it in a browser.
    Page,
    /// What it answers to programs.
    Plain,
}

impl Visit {
    /// Returns what `request` asks for.
    pub(super) fn of(request: &Request) -> Self {
        let mut accepted = request.headers().get_all(ACCEPT).iter();
        let is_html =
            |value: &HeaderValue| value.to_str().is_ok_and(|text| text.contains("text/html"));
        match *request.method() {
            Method::GET if request.is_upgrade() => Self::Join,
            Method::GET | Method::HEAD if accepted.any(is_html) => Self::Page,
            _ => Self::Plain,
        }
    }
}

/// Who is in a room.
#[derive(Debug)]
pub(super) struct Chat {
    state: State,
}

impl Chat {
    /// Makes that of the object of `state`.
    pub(super) fn new(state: State) -> Result<Self> {
        // So that a member can see that the room is there, without waking it.
        state.set_auto_response(Some(("ping", "pong")))?;
        Ok(Self { state })
    }

    /// Lets somebody in, who first hears of `history` the newest that fit.
    pub(super) fn join<T: Serialize>(&self, from: Option<&str>, history: &[T]) -> Result<Response> {
        let (client, server) = WebSocket::pair();
        let socket = self.state.accept_web_socket(server, &[])?;
        let name = from.map(|from| from.chars().take(NAME_CHARS_MAX).collect::<String>());
        socket.set_attachment(&name.filter(|name| !name.is_empty()))?;
        let lines = history.iter().map(serde_json::to_string).collect::<Result<Vec<_>, _>>()?;
        let mut bytes = 0;
        let fits = |line: &&String| {
            bytes += line.len();
            bytes <= HISTORY_BYTES_MAX
        };
        let fitting = lines.iter().rev().take_while(fits).count();
        let too_many = lines.len() - fitting;
        for line in lines.into_iter().skip(too_many) {
            socket.send(line)?;
        }
        self.count();
        Ok(respond::upgrade(client))
    }

    /// Returns the name that somebody joined with.
    pub(super) fn name(socket: &Socket) -> Result<Option<String>> {
        Ok(socket.attachment::<Option<String>>()?.flatten())
    }

    /// Tells everybody what was said.
    pub(super) fn tell<T: Serialize>(&self, message: &T) -> Result<()> {
        self.send_all(&serde_json::to_string(message)?);
        Ok(())
    }

    /// Tells somebody that what they said is not taken.
    pub(super) fn refuse(socket: &Socket, complaint: &str) -> Result<()> {
        socket.close(NOT_TAKEN, complaint)
    }

    /// Somebody has left.
    pub(super) fn left(&self, _: Closed) {
        self.count();
    }

    /// Tells everybody how many are here.
    fn count(&self) {
        let here = self.state.web_sockets(None).len();
        self.send_all(&format!("{{\"here\":{here}}}"));
    }

    fn send_all(&self, line: &str) {
        let line = crate::socket::Text::from(line);
        for socket in self.state.web_sockets(None) {
            // Who has not read megabytes of what was said before is out.
            if socket.send(line.clone()).is_err() {
                let _ = socket.close(TOO_SLOW, "you read too slowly");
            }
        }
    }
}

/// Returns the room's page.
pub(super) fn page() -> Response {
    let mut response = respond::text(include_str!("chat.html"));
    let headers: [(HeaderName, &'static str); 2] = [
        (CONTENT_TYPE, "text/html;charset=UTF-8"),
        (
            http::header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self' ws: wss:",
        ),
    ];
    for (name, value) in headers {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

const NAME_CHARS_MAX: usize = 64;
/// Bytes of the history that somebody hears who comes: all of it waits until they are in.
const HISTORY_BYTES_MAX: usize = 1 << 20;
/// The close code for who said what is not taken.
const NOT_TAKEN: u16 = 4000;
/// The close code for who does not read.
const TOO_SLOW: u16 = 4001;
