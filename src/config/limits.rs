//! The table `[limits]`: every field of [`Limits`], by its own name.

use serde::Deserialize;

use super::units::{Bytes, Count, Depth, Time, TimeOrNone};
use crate::limits::Limits;

/// One line for each field. A field that is missing here does not compile.
macro_rules! limits {
    ($($field:ident: $unit:ident),* $(,)?) => {
        /// What a file says of the limits.
        #[derive(Debug, Default, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct FileLimits {
            $($field: Option<$unit>,)*
        }

        impl FileLimits {
            /// Returns `limits`, but for what the file says.
            pub fn over(self, limits: Limits) -> Limits {
                Limits { $($field: self.$field.map_or(limits.$field, |value| value.0),)* }
            }
        }

        /// The names of the limits.
        #[cfg(test)]
        pub const LIMITS: &[&str] = &[$(stringify!($field)),*];
    };
}

limits! {
    message_bytes_max: Bytes,
    nesting_max: Depth,
    inline_body_bytes_max: Bytes,
    stream_window_bytes: Bytes,
    connection_calls_max: Count,
    connection_queued_bytes_max: Bytes,
    connection_output_bytes_max: Bytes,
    connection_stubs_max: Count,
    connections_max: Count,
    server_queued_bytes_max: Bytes,
    handshake_timeout: Time,
    message_timeout: Time,
    idle_timeout: TimeOrNone,
    peer_timeout: Time,
    object_queue_events_max: Count,
    object_queue_bytes_max: Bytes,
    object_handlers_max: Count,
    object_queue_age_max: Time,
    critical_section_timeout: Time,
    headers_max: Count,
    header_bytes_max: Bytes,
    name_bytes_max: Bytes,
    objects_max: Count,
    storage_backlog_bytes_max: Bytes,
    transaction_bytes_max: Bytes,
    alarm_timeout: Time,
    url_bytes_max: Bytes,
    http_header_timeout: Time,
    http_idle_timeout: Time,
    http_stall_timeout: Time,
    http_streams_max: Count,
    evict_after: Time,
    hibernate_after: Time,
    socket_message_bytes_max: Bytes,
    socket_queue_bytes_max: Bytes,
    shutdown_hook_timeout: Time,
    drain_timeout: Time,
    settle_timeout: Time,
}
