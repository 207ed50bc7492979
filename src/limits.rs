//! Every bound that an operator may want to choose, in one place.
//!
//! A bound that nobody would choose (a batch, a turn, a chain of calls inside capnp-rpc) is a constant with its
//! reason beside what it bounds.
//!
//! **Invariant:** no queue, buffer, retry or wait is without a bound.

use std::time::Duration;

use crate::error::{Error, Result};

/// The bounds of one server or client. The defaults suit a small machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The largest message taken from a peer, in bytes. A larger one ends the connection.
    pub message_bytes_max: usize,
    /// How deep a message's pointers may nest.
    pub nesting_max: i32,
    /// The part of a body that travels within its request or response; the rest is streamed.
    pub inline_body_bytes_max: usize,
    /// Bytes of a streamed body that may wait between its writer and its reader.
    pub stream_window_bytes: usize,
    /// Calls of one connection that may be unanswered; a further one fails *overloaded*.
    pub connection_calls_max: usize,
    /// Bytes of one connection's unanswered calls; a further call fails *overloaded*.
    pub connection_queued_bytes_max: usize,
    /// Bytes that may wait to be written to one connection before nothing more is read from it.
    pub connection_output_bytes_max: usize,
    /// Stubs that one connection may hold; a further `get` fails *overloaded*.
    pub connection_stubs_max: usize,
    /// Connections at a time; a further one is closed at once.
    pub connections_max: usize,
    /// Bytes of unanswered calls of all connections; a further call fails *overloaded*.
    pub server_queued_bytes_max: usize,
    /// How long a new connection may take to send its first whole message.
    pub handshake_timeout: Duration,
    /// How long a message may take to arrive, from its first byte to its last.
    pub message_timeout: Duration,
    /// How long a connection may be silent with no call in flight; none: for ever.
    pub idle_timeout: Option<Duration>,
    /// After how long without a sign of life a peer counts as vanished.
    pub peer_timeout: Duration,
    /// Events that may wait for one object; a further one fails *overloaded*.
    pub object_queue_events_max: usize,
    /// Bytes of the events that may wait for one object.
    pub object_queue_bytes_max: usize,
    /// Handlers and tasks that may be inside one object at a time, those too whose callers have gone; further events
    /// wait.
    pub object_handlers_max: usize,
    /// How long an event may wait for its object before it fails *overloaded*.
    pub object_queue_age_max: Duration,
    /// How long a critical section (the constructor and a transaction too) may take; then the object is reset.
    pub critical_section_timeout: Duration,
    /// Headers of one request or response.
    pub headers_max: usize,
    /// Bytes of all header names and values of one request or response.
    pub header_bytes_max: usize,
    /// Bytes of a name. A name over 1,024 bytes still leads to its object, but is not kept.
    pub name_bytes_max: usize,
    /// Objects in memory at a time; an event for a further one fails *overloaded*.
    pub objects_max: usize,
    /// Bytes that may wait to become durable on one thread; an event beyond fails *overloaded*, and beyond twice as
    /// many, a write of an object.
    pub storage_backlog_bytes_max: usize,
    /// Bytes that one transaction of an object may write, values and pages of its SQL database each.
    pub transaction_bytes_max: usize,
    /// How long an alarm's handler may take; then it has failed.
    pub alarm_timeout: Duration,
    /// Bytes of a url.
    pub url_bytes_max: usize,
    /// How long an HTTP client may take to send the head of a request.
    pub http_header_timeout: Duration,
    /// How long an HTTP connection may be open without a request under way.
    pub http_idle_timeout: Duration,
    /// How long an HTTP client may send nothing of a body it announced, or read nothing of one it asked for.
    pub http_stall_timeout: Duration,
    /// Requests under way at a time on one HTTP/2 connection; a further one is refused.
    pub http_streams_max: usize,
    /// How long an object without events stays in memory.
    pub evict_after: Duration,
    /// How long an object without events stays in memory that has hibernatable WebSockets: they stay open.
    pub hibernate_after: Duration,
    /// Bytes of one message of a WebSocket. A larger one ends it with code 1009.
    pub socket_message_bytes_max: usize,
    /// Bytes that an object may have sent to a WebSocket whose peer has not read them; a further message
    /// fails *overloaded*.
    pub socket_queue_bytes_max: usize,
    /// How long an object's `before_shutdown` may take.
    pub shutdown_hook_timeout: Duration,
    /// How long a server that was told to stop waits for the calls in flight.
    pub drain_timeout: Duration,
    /// How long a result may wait for the references in it to settle; then the call fails.
    pub settle_timeout: Duration,
}

/// What a message holds beside the content of a request.
const MESSAGE_OVERHEAD_BYTES: usize = 64 << 10;

impl Limits {
    /// Checks that they leave a server room to work.
    ///
    /// # Errors
    /// *invalid request* for the first that is too small, with what it needs.
    pub fn check(&self) -> Result<()> {
        for (name, value, least) in [
            ("stream_window_bytes", self.stream_window_bytes, 64),
            ("connection_calls_max", self.connection_calls_max, 1),
            ("connection_queued_bytes_max", self.connection_queued_bytes_max, 4 << 10),
            ("connection_output_bytes_max", self.connection_output_bytes_max, 1),
            ("connection_stubs_max", self.connection_stubs_max, 1),
            ("connections_max", self.connections_max, 1),
            ("server_queued_bytes_max", self.server_queued_bytes_max, 4 << 10),
            ("object_queue_events_max", self.object_queue_events_max, 1),
            ("object_queue_bytes_max", self.object_queue_bytes_max, 4 << 10),
            ("object_handlers_max", self.object_handlers_max, 1),
            ("objects_max", self.objects_max, 1),
            ("transaction_bytes_max", self.transaction_bytes_max, 64 << 10),
            ("http_streams_max", self.http_streams_max, 1),
            ("socket_message_bytes_max", self.socket_message_bytes_max, 1),
            ("socket_queue_bytes_max", self.socket_queue_bytes_max, 1),
        ] {
            if value < least {
                let text =
                    format!("limits.{name} = {value} is too little: it must be {least} or more");
                return Err(Error::invalid_request(text));
            }
        }
        let Self { inline_body_bytes_max: inline, message_bytes_max: max, .. } = *self;
        let parts = [inline, self.header_bytes_max, self.url_bytes_max, MESSAGE_OVERHEAD_BYTES];
        let needed = parts.iter().fold(0_usize, |sum, part| sum.saturating_add(*part));
        if needed > max {
            return Err(Error::invalid_request(format!(
                "limits.message_bytes_max = {max} is less than the {needed} bytes that a message may need: \
                 inline_body_bytes_max, header_bytes_max, url_bytes_max and some for itself"
            )));
        }
        Ok(())
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes_max: 4 << 20,
            nesting_max: 64,
            inline_body_bytes_max: 1 << 20,
            stream_window_bytes: 256 << 10,
            connection_calls_max: 16_384,
            connection_queued_bytes_max: 128 << 20,
            connection_output_bytes_max: 1 << 20,
            connection_stubs_max: 16_384,
            connections_max: 10_240,
            server_queued_bytes_max: 1 << 30,
            handshake_timeout: Duration::from_secs(10),
            message_timeout: Duration::from_secs(30),
            idle_timeout: None,
            peer_timeout: Duration::from_secs(10),
            object_queue_events_max: 16_384,
            object_queue_bytes_max: 128 << 20,
            object_handlers_max: 16_384,
            object_queue_age_max: Duration::from_secs(30),
            critical_section_timeout: Duration::from_secs(30),
            headers_max: 256,
            header_bytes_max: 64 << 10,
            name_bytes_max: 16 << 10,
            objects_max: 1 << 20,
            storage_backlog_bytes_max: 256 << 20,
            transaction_bytes_max: 64 << 20,
            alarm_timeout: Duration::from_secs(15 * 60),
            url_bytes_max: 16 << 10,
            http_header_timeout: Duration::from_secs(10),
            http_idle_timeout: Duration::from_secs(75),
            http_stall_timeout: Duration::from_secs(60),
            http_streams_max: 256,
            evict_after: Duration::from_secs(70),
            hibernate_after: Duration::from_secs(10),
            socket_message_bytes_max: 32 << 20,
            socket_queue_bytes_max: 4 << 20,
            shutdown_hook_timeout: Duration::from_secs(10),
            drain_timeout: Duration::from_secs(10),
            settle_timeout: Duration::from_secs(10),
        }
    }
}
