//! A body that arrives in chunks: a prefix that is here already, then a source, counted as they pass.
//!
//! **Invariant:** where a length was declared, the chunks that were yielded never exceed it, and the clean
//! end is yielded only after exactly that many bytes.

use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as _, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;

use super::pipe::PipeReader;
use crate::error::{Error, Result};

/// A prefix, the source of the rest, and the length of both together where it was declared.
pub(super) struct Streamed {
    prefix: Bytes,
    source: Source,
    declared: Option<u64>,
    yielded: u64,
}

impl Streamed {
    pub(super) fn new(prefix: Bytes, source: Source, declared: Option<u64>) -> Self {
        Self { prefix, source, declared, yielded: 0 }
    }

    /// Takes what is left of the prefix.
    pub(super) fn take_prefix(&mut self) -> Bytes {
        self.yielded = self.yielded.saturating_add(self.prefix.len() as u64);
        mem::take(&mut self.prefix)
    }

    /// Takes the next chunk. The caller asks no more after an error or the end.
    pub(super) fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        if !self.prefix.is_empty() {
            let prefix = mem::take(&mut self.prefix);
            return Poll::Ready(Some(self.count(prefix)));
        }
        Poll::Ready(match ready!(self.source.poll_chunk(cx)) {
            Some(Ok(chunk)) => Some(self.count(chunk)),
            Some(Err(error)) => Some(Err(error)),
            None => self.check_end().err().map(Err),
        })
    }

    /// Returns how many bytes are still to come, where that was declared.
    pub(super) fn length(&self) -> Option<u64> {
        self.declared.map(|declared| declared.saturating_sub(self.yielded))
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        if let Some(length) = self.length() {
            return SizeHint::with_exact(length);
        }
        let prefix_bytes = self.prefix.len() as u64;
        let rest = self.source.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(prefix_bytes));
        if let Some(upper) = rest.upper().and_then(|upper| upper.checked_add(prefix_bytes)) {
            hint.set_upper(upper);
        }
        hint
    }

    pub(super) fn is_ended(&self) -> bool {
        self.prefix.is_empty() && self.length().unwrap_or(0) == 0 && self.source.is_ended()
    }

    /// Gives up the source if nothing was taken off it, or put before or upon it.
    pub(super) fn into_source(self: Box<Self>) -> Result<Source, Box<Self>> {
        let bare = self.prefix.is_empty() && self.declared.is_none();
        if bare { Ok(self.source) } else { Err(self) }
    }

    fn count(&mut self, chunk: Bytes) -> Result<Bytes> {
        self.yielded = self.yielded.saturating_add(chunk.len() as u64);
        match self.declared {
            Some(declared) if self.yielded > declared => Err(Error::invalid_request(format!(
                "body declared {declared} bytes and holds more: {} so far",
                self.yielded
            ))),
            _ => Ok(chunk),
        }
    }

    fn check_end(&self) -> Result<()> {
        match self.declared {
            Some(declared) if self.yielded < declared => Err(Error::truncated(format!(
                "body was cut short after {} of {declared} bytes",
                self.yielded
            ))),
            _ => Ok(()),
        }
    }
}

/// Where chunks come from.
pub(super) enum Source {
    Pipe(PipeReader),
    Boxed(UnsyncBoxBody<Bytes, Error>),
}

impl Source {
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        match self {
            Self::Pipe(reader) => reader.poll_chunk(cx),
            Self::Boxed(body) => poll_data(body, cx),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Pipe(_) => SizeHint::default(),
            Self::Boxed(body) => body.size_hint(),
        }
    }

    fn is_ended(&self) -> bool {
        match self {
            Self::Pipe(reader) => reader.is_ended(),
            Self::Boxed(body) => body.is_end_stream(),
        }
    }
}

/// Takes the next data frame, passing over trailers and empty frames.
fn poll_data(
    body: &mut UnsyncBoxBody<Bytes, Error>,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Bytes>>> {
    for _ in 0..SKIPPED_FRAMES_MAX {
        match ready!(Pin::new(&mut *body).poll_frame(cx)) {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(chunk) if !chunk.is_empty() => return Poll::Ready(Some(Ok(chunk))),
                _ => {}
            },
            Some(Err(error)) => return Poll::Ready(Some(Err(error))),
            None => return Poll::Ready(None),
        }
    }
    cx.waker().wake_by_ref();
    Poll::Pending
}

/// Frames without data that are passed over before other tasks get their turn.
const SKIPPED_FRAMES_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use futures::{FutureExt as _, stream};

    use super::*;
    use crate::body::Body;
    use crate::error::Kind;

    fn chunks(texts: &[&'static str]) -> Body {
        let chunks: Vec<_> = texts.iter().map(|text| Ok::<_, Error>(Bytes::from(*text))).collect();
        Body::from_stream(stream::iter(chunks))
    }

    /// Reads to the end or the error.
    fn drain(mut body: Body) -> (String, Option<Error>) {
        let mut text = String::new();
        while let Some(chunk) = body.chunk().now_or_never().expect("nothing waits") {
            match chunk {
                Ok(chunk) => text.push_str(str::from_utf8(&chunk).unwrap()),
                Err(error) => return (text, Some(error)),
            }
        }
        (text, None)
    }

    /// Each case: prefix, rest, length; what is read, and the error after it.
    #[test]
    fn a_body_of_another_length_than_declared_is_an_error() {
        use Kind::{InvalidRequest, Truncated};
        let short = "cut short after 3 of 4 bytes";
        for (prefix, rest, length, read, error) in [
            ("", &["ab", "c"][..], None, "abc", None),
            ("", &["ab", "c"], Some(3), "abc", None),
            ("ab", &["c"], Some(3), "abc", None),
            ("ab", &["", "c", ""], Some(3), "abc", None),
            ("ab", &["c"], None, "abc", None),
            ("ab", &[], Some(2), "ab", None),
            ("", &[], Some(0), "", None),
            ("ab", &["c"], Some(4), "abc", Some((Truncated, short))),
            ("abc", &[], Some(4), "abc", Some((Truncated, short))),
            ("", &["abc"], Some(4), "abc", Some((Truncated, short))),
            ("", &[], Some(4), "", Some((Truncated, "after 0 of 4 bytes"))),
            ("", &["ab", "cd"], Some(3), "ab", Some((InvalidRequest, "3 bytes and holds more: 4"))),
            ("ab", &["cd"], Some(2), "ab", Some((InvalidRequest, "2 bytes and holds more: 4"))),
            ("abc", &["d"], Some(2), "", Some((InvalidRequest, "2 bytes and holds more: 3"))),
            ("", &["a"], Some(0), "", Some((InvalidRequest, "0 bytes and holds more: 1"))),
        ] {
            let streamed = Body::prefixed(prefix.into(), chunks(rest), length);
            let known = Body::prefixed(prefix.into(), Body::from(rest.concat()), length);
            let what = format!("{prefix} {rest:?} {length:?}");
            if length.is_some() {
                assert_eq!(streamed.length(), length);
                assert_eq!(http_body::Body::size_hint(&streamed).exact(), length);
            }
            let (text, failed) = drain(streamed);
            assert_eq!(text, read, "{what}");
            assert_eq!(failed.as_ref().map(|error| error.kind), error.map(|(kind, _)| kind));
            if let (Some(failed), Some((_, message))) = (failed, error) {
                assert!(failed.message.contains(message), "{what}: {failed}");
            }
            let (_, failed) = drain(known);
            assert_eq!(failed.map(|error| error.kind), error.map(|(kind, _)| kind), "{what}");
        }
    }

    #[test]
    fn lengths_declared_one_upon_another_are_all_kept() {
        let inner = || Body::prefixed(Bytes::new(), chunks(&["abc"]), Some(3));
        let body = Body::prefixed("x".into(), inner(), None);
        assert_eq!(body.length(), Some(4));
        assert_eq!(drain(body), ("xabc".to_owned(), None));
        let body = Body::prefixed("x".into(), inner(), Some(5));
        assert_eq!(drain(body).1.unwrap().kind, Kind::Truncated);
        let body =
            Body::prefixed("x".into(), Body::prefixed("y".into(), chunks(&["z"]), None), None);
        assert_eq!(http_body::Body::size_hint(&body).lower(), 2);
        assert_eq!(drain(body), ("xyz".to_owned(), None));
    }

    #[test]
    fn a_body_is_at_its_end_only_when_its_prefix_was_read() {
        let (writer, rest) = Body::pipe(8);
        writer.finish();
        let mut body = Body::prefixed("a".into(), rest, None);
        assert!(!body.is_end_stream());
        assert_eq!(body.chunk().now_or_never().unwrap().unwrap().unwrap(), "a");
        assert!(body.is_end_stream());
        assert_eq!(drain(body), (String::new(), None));
    }
}
