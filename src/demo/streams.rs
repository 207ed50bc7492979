//! `PROBE`: long bodies, both ways.
//!
//! **Invariant:** neither holds more of a body than a window and a chunk.

use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::query::{Complaint, Query, Refused};
use super::reflect::hex;
use crate::body::Body;
use crate::error::Result;
use crate::message::{Request, Response, response as respond};
use crate::object::State;

/// Answers `?bytes=` bytes, `?chunk=` at a time. The byte at `i` is `i` modulo 251.
pub fn stream(state: &State, query: &Query) -> Result<Response, Complaint> {
    let bytes = query.number("bytes")?.unwrap_or(1 << 20);
    let chunk = query.number("chunk")?.unwrap_or(64 << 10);
    if !(1..=CHUNK_BYTES_MAX).contains(&chunk) {
        return Err(format!("chunk={chunk} is not 1 to {CHUNK_BYTES_MAX}"));
    }
    let (mut writer, body) = Body::pipe(chunk);
    state.wait_until(async move {
        writer.wanted().await;
        let pattern = pattern(chunk);
        let mut sent = 0;
        while sent < bytes {
            // Every chunk is a piece of the one pattern: nothing is copied.
            let start = usize::try_from(sent % PERIOD).unwrap_or_default();
            let size = usize::try_from(bytes - sent).map_or(chunk, |left| left.min(chunk));
            if writer.write(pattern.slice(start..start + size)).await.is_err() {
                return;
            }
            sent += size as u64;
        }
        writer.finish();
    });
    Ok(Response::new(Body::prefixed(Bytes::new(), body, Some(bytes))))
}

/// Returns the pattern from any point on, for a chunk of that size.
fn pattern(chunk: usize) -> Bytes {
    (0..PERIOD).cycle().take(chunk + PERIOD as usize).map(|i| i.to_le_bytes()[0]).collect()
}

#[derive(Serialize)]
struct Received {
    bytes: u64,
    sha256: String,
}

/// Reads the body, `?delay_ms=` between its chunks, up to `?stop_after=` bytes; answers what it read.
///
/// # Errors
/// Where the body was cut short.
pub async fn upload(request: Request, query: &Query) -> Result<Response, Refused> {
    let delay = query.number("delay_ms")?.map(Duration::from_millis);
    let stop_after = query.number("stop_after")?.unwrap_or(u64::MAX);
    let (mut body, mut digest, mut bytes) = (request.into_body(), Sha256::new(), 0);
    while bytes < stop_after
        && let Some(chunk) = body.chunk().await
    {
        let mut chunk = chunk?;
        chunk.truncate(usize::try_from(stop_after - bytes).unwrap_or(usize::MAX));
        digest.update(&chunk);
        bytes += chunk.len() as u64;
        if let Some(delay) = delay {
            tokio::time::sleep(delay).await;
        }
    }
    Ok(respond::json(&Received { bytes, sha256: hex(&digest.finalize()) })?)
}

/// A prime, so that chunks out of order, lost or doubled show in the content.
const PERIOD: u64 = 251;
const CHUNK_BYTES_MAX: usize = 1 << 20;
