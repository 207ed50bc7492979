//! `Body`, as authors and callers see it.
//!
//! **Invariant:** a body that is entirely in memory is `Known`, without a box and without polling.
//! **Invariant:** after an error or the end a body is empty and stays so; its source is dropped.

use std::any::Any;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt as _};
use http_body::{Frame, SizeHint};
use http_body_util::{BodyExt as _, StreamBody};

use super::pipe::{self, BodyWriter};
use super::streamed::{Source, Streamed};
use crate::error::{Error, Result};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of a request or a response.
///
/// It is `Send`, and an [`http_body::Body`]: an axum `Router` can take it and make it. Dropping it stops
/// whoever produces it.
///
/// ```
/// # use stubborn::body::Body;
/// # futures::executor::block_on(async {
/// let (mut writer, body) = Body::pipe(64);
/// writer.write("hello, ".into()).await?;
/// writer.write("world".into()).await?;
/// writer.finish();
/// assert_eq!(body.text().await?, "hello, world");
/// # Ok::<(), stubborn::Error>(()) }).unwrap();
/// ```
pub struct Body {
    inner: Inner,
}

enum Inner {
    Known(Bytes),
    Streamed(Box<Streamed>),
}

impl Body {
    /// Makes a body without a byte.
    pub const fn empty() -> Self {
        Self { inner: Inner::Known(Bytes::new()) }
    }

    /// Makes a body of `bytes`, without copying them.
    pub fn from_bytes(bytes: impl Into<Bytes>) -> Self {
        Self { inner: Inner::Known(bytes.into()) }
    }

    /// Makes a body that is written while it is read.
    ///
    /// At most `window_bytes`, or one chunk, wait between the two: a slow reader slows the writer. The
    /// two ends may be on different threads.
    pub fn pipe(window_bytes: usize) -> (BodyWriter, Self) {
        let (writer, reader) = pipe::pipe(window_bytes);
        (writer, Self::streamed(Bytes::new(), Source::Pipe(reader), None))
    }

    /// Makes a body of another library's body.
    ///
    /// Trailers are dropped. Where its size hint is exact, that becomes the declared length. Its errors
    /// become ours, of kind *failed*, unless one of ours is among their sources: that one passes
    /// unchanged.
    pub fn new<B>(body: B) -> Self
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let mut body = Some(body);
        // One of ours needs no second box.
        let any: &mut dyn Any = &mut body;
        if let Some(body) = any.downcast_mut::<Option<Self>>().and_then(Option::take) {
            return body;
        }
        let Some(body) = body else { return Self::empty() };
        let declared = body.size_hint().exact();
        if body.is_end_stream() && declared.unwrap_or(0) == 0 {
            return Self::empty();
        }
        let body = body.map_err(|error| ours(error.into())).boxed_unsync();
        Self::streamed(Bytes::new(), Source::Boxed(body), declared)
    }

    /// Makes a body of the chunks of `stream`, whose errors become ours as in [`new`](Self::new).
    pub fn from_stream<S, E>(stream: S) -> Self
    where
        S: Stream<Item = Result<Bytes, E>> + Send + 'static,
        E: Into<BoxError> + 'static,
    {
        Self::new(StreamBody::new(stream.map(|chunk| chunk.map(Frame::data))))
    }

    /// Makes a body of `prefix`, followed by `rest`; `length` is that of both together, where known.
    ///
    /// A body that turns out to be shorter than `length` ends in an error of kind *truncated*, a longer
    /// one in an error of kind *invalid request*, before the chunk that is too much. With an empty
    /// `prefix` this declares the length of `rest`.
    pub fn prefixed(prefix: Bytes, rest: Self, length: Option<u64>) -> Self {
        let prefix_bytes = prefix.len() as u64;
        let sum = rest.length().and_then(|rest| rest.checked_add(prefix_bytes));
        match rest.inner {
            Inner::Known(rest) if length.is_none() || length == sum => {
                Self::from_bytes(concat(prefix, rest))
            }
            Inner::Known(rest) => {
                let source = Self::from_bytes(rest).boxed_unsync();
                Self::streamed(prefix, Source::Boxed(source), length)
            }
            Inner::Streamed(rest) => {
                // What `rest` was declared to hold goes on being checked, inside.
                let source = rest.into_source().unwrap_or_else(|rest| {
                    Source::Boxed(Self { inner: Inner::Streamed(rest) }.boxed_unsync())
                });
                Self::streamed(prefix, source, length.or(sum))
            }
        }
    }

    /// Returns all bytes of the body if they are in memory, without polling.
    pub fn known(&self) -> Option<&Bytes> {
        match &self.inner {
            Inner::Known(bytes) => Some(bytes),
            Inner::Streamed(_) => None,
        }
    }

    /// Takes what is in memory of the body's beginning, without polling.
    pub(crate) fn take_prefix(&mut self) -> Bytes {
        match &mut self.inner {
            Inner::Known(bytes) => std::mem::take(bytes),
            Inner::Streamed(streamed) => streamed.take_prefix(),
        }
    }

    /// Returns all bytes of the body if they are in memory, and otherwise the body itself.
    ///
    /// # Errors
    /// The body, when it has yet to be read.
    pub fn into_known(self) -> Result<Bytes, Self> {
        match self.inner {
            Inner::Known(bytes) => Ok(bytes),
            inner => Err(Self { inner }),
        }
    }

    /// Returns how many bytes are still to come, where that is known exactly.
    pub fn length(&self) -> Option<u64> {
        match &self.inner {
            Inner::Known(bytes) => Some(bytes.len() as u64),
            Inner::Streamed(streamed) => streamed.length(),
        }
    }

    /// Returns whether it is known that nothing more comes, no error either.
    pub fn is_end_stream(&self) -> bool {
        match &self.inner {
            Inner::Known(bytes) => bytes.is_empty(),
            Inner::Streamed(streamed) => streamed.is_ended(),
        }
    }

    /// Takes the next chunk, which is never empty; none at the end, and after an error.
    ///
    /// # Errors
    /// What the producer failed with; kind *truncated* where the body was cut short or is shorter than
    /// it was declared; kind *invalid request* where it is longer.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing: the chunk stays for the next call.
    pub async fn chunk(&mut self) -> Option<Result<Bytes>> {
        poll_fn(|cx| self.poll_chunk(cx)).await
    }

    /// Takes the next chunk, as [`chunk`](Self::chunk) does.
    pub fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        let chunk = match &mut self.inner {
            Inner::Known(bytes) if bytes.is_empty() => None,
            Inner::Known(bytes) => Some(Ok(std::mem::take(bytes))),
            Inner::Streamed(streamed) => ready!(streamed.poll_chunk(cx)),
        };
        if !matches!(chunk, Some(Ok(_))) {
            self.inner = Inner::Known(Bytes::new());
        }
        Poll::Ready(chunk)
    }

    /// Reads the whole body into memory, however large it is.
    ///
    /// Use [`bytes_limited`](Self::bytes_limited) for bodies of people you do not trust.
    ///
    /// # Errors
    /// As [`chunk`](Self::chunk).
    ///
    /// # Cancel safety
    /// Dropping the future drops the body, and with it what was read.
    pub async fn bytes(self) -> Result<Bytes> {
        self.bytes_limited(usize::MAX).await
    }

    /// Reads the whole body into memory if it has at most `bytes_max` bytes.
    ///
    /// # Errors
    /// Kind *invalid request*, naming the limit, as soon as the body is known to be larger; and as
    /// [`chunk`](Self::chunk).
    ///
    /// # Cancel safety
    /// Dropping the future drops the body, and with it what was read.
    pub async fn bytes_limited(mut self, bytes_max: usize) -> Result<Bytes> {
        if let Some(length) = self.length().filter(|length| *length > bytes_max as u64) {
            return Err(Error::invalid_request(format!(
                "body of {length} bytes is over the limit of {bytes_max} bytes"
            )));
        }
        let mut whole = Bytes::new();
        let mut gathered = BytesMut::new();
        while let Some(chunk) = self.chunk().await {
            let chunk = chunk?;
            if whole.len() + gathered.len() + chunk.len() > bytes_max {
                return Err(Error::invalid_request(format!(
                    "body is over the limit of {bytes_max} bytes"
                )));
            }
            // A body of one chunk is not copied.
            if whole.is_empty() && gathered.is_empty() {
                whole = chunk;
            } else {
                gathered.extend_from_slice(&std::mem::take(&mut whole));
                gathered.extend_from_slice(&chunk);
            }
        }
        Ok(if gathered.is_empty() { whole } else { gathered.freeze() })
    }

    /// Reads the whole body into memory, as text.
    ///
    /// # Errors
    /// Kind *failed* where it is not UTF-8; and as [`chunk`](Self::chunk).
    ///
    /// # Cancel safety
    /// Dropping the future drops the body, and with it what was read.
    pub async fn text(self) -> Result<String> {
        let bytes = self.bytes().await?;
        String::from_utf8(bytes.into()).map_err(|error| {
            Error::failed(format!("body is not utf-8 text: {}", error.utf8_error()))
        })
    }

    fn streamed(prefix: Bytes, source: Source, declared: Option<u64>) -> Self {
        Self { inner: Inner::Streamed(Box::new(Streamed::new(prefix, source, declared))) }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>>>> {
        self.get_mut().poll_chunk(cx).map_ok(Frame::data)
    }

    fn is_end_stream(&self) -> bool {
        self.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            Inner::Known(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Inner::Streamed(streamed) => streamed.size_hint(),
        }
    }
}

impl Default for Body {
    fn default() -> Self {
        Self::empty()
    }
}

impl fmt::Debug for Body {
    /// Tells the length, never the content.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = matches!(self.inner, Inner::Known(_));
        f.debug_struct("Body").field("known", &known).field("length", &self.length()).finish()
    }
}

impl From<()> for Body {
    fn from((): ()) -> Self {
        Self::empty()
    }
}

macro_rules! from_bytes {
    ($($bytes:ty),*) => {$(
        impl From<$bytes> for Body {
            fn from(bytes: $bytes) -> Self {
                Self::from_bytes(bytes)
            }
        }
    )*};
}

from_bytes!(&'static str, String, Vec<u8>, Bytes);

/// Finds our error in `error` or among its sources, so that its flags survive foreign wrappers.
fn ours(error: BoxError) -> Error {
    let mut source = error.source();
    for _ in 0..ERROR_DEPTH_MAX {
        match source.map(|source| (source.downcast_ref::<Error>(), source.source())) {
            Some((Some(ours), _)) => return ours.clone(),
            Some((None, next)) => source = next,
            None => break,
        }
    }
    error.into()
}

fn concat(first: Bytes, second: Bytes) -> Bytes {
    match (first.is_empty(), second.is_empty()) {
        (true, _) => second,
        (_, true) => first,
        _ => [first, second].concat().into(),
    }
}

/// How deep an error of ours is looked for among the sources of another.
const ERROR_DEPTH_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use futures::executor::block_on;
    use futures::stream;
    use http::HeaderMap;
    use http_body::Body as _;
    use http_body_util::Full;

    use super::*;
    use crate::error::Kind;

    /// What a foreign library wraps our errors in.
    #[derive(Debug)]
    struct Wrapper(BoxError);

    impl fmt::Display for Wrapper {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("wrapped")
        }
    }

    impl std::error::Error for Wrapper {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            Some(&*self.0)
        }
    }

    /// A foreign body: its frames, its size hint, and `is_end_stream` as its author likes it.
    struct Foreign(Vec<Result<Frame<Bytes>, BoxError>>, SizeHint);

    impl http_body::Body for Foreign {
        type Data = Bytes;
        type Error = BoxError;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
            let next = (!self.0.is_empty()).then(|| self.0.remove(0));
            Poll::Ready(next)
        }

        fn size_hint(&self) -> SizeHint {
            self.1
        }
    }

    fn data(text: &'static str) -> Result<Frame<Bytes>, BoxError> {
        Ok(Frame::data(text.into()))
    }

    fn chunks(texts: &[&'static str]) -> Body {
        let chunks: Vec<_> = texts.iter().map(|text| Ok::<_, Error>(Bytes::from(*text))).collect();
        Body::from_stream(stream::iter(chunks))
    }

    /// Reads to the end, and beyond it.
    fn drain(mut body: Body) -> (String, Option<Error>) {
        let mut text = String::new();
        let mut error = None;
        while let Some(chunk) = body.chunk().now_or_never().expect("nothing waits") {
            match chunk {
                Ok(chunk) => {
                    assert!(!chunk.is_empty());
                    text.push_str(str::from_utf8(&chunk).unwrap());
                }
                Err(failed) => assert!(error.replace(failed).is_none(), "one error, then the end"),
            }
        }
        assert!(body.chunk().now_or_never().unwrap().is_none(), "it stays ended");
        assert!(body.is_end_stream());
        assert_eq!(body.length(), Some(0));
        (text, error)
    }

    #[test]
    fn a_body_is_small_and_fits_where_axum_wants_one() {
        fn assert_send<T: Send + Unpin + 'static>() {}
        fn assert_axum<B>()
        where
            B: http_body::Body<Data = Bytes> + Send + 'static,
            B::Error: Into<BoxError>,
        {
        }
        assert_send::<Body>();
        assert_send::<BodyWriter>();
        assert_axum::<Body>();
        assert!(size_of::<Body>() <= size_of::<Bytes>());
    }

    #[test]
    fn a_body_in_memory_is_known_without_polling() {
        for (body, text) in [
            (Body::default(), ""),
            (Body::from(()), ""),
            (Body::from("a"), "a"),
            (Body::from(String::from("a")), "a"),
            (Body::from(b"a".to_vec()), "a"),
            (Body::from(Bytes::from("a")), "a"),
            (Body::from_bytes(vec![b'a']), "a"),
            (Body::new(Body::from("a")), "a"),
            (Body::new(http_body_util::Empty::new()), ""),
            (Body::prefixed("a".into(), Body::empty(), Some(1)), "a"),
            (Body::prefixed("a".into(), Body::from("b"), None), "ab"),
            (Body::prefixed(Bytes::new(), Body::from("b"), Some(1)), "b"),
        ] {
            assert_eq!(body.known().unwrap(), text);
            assert_eq!(body.length(), Some(text.len() as u64));
            assert_eq!(body.size_hint().exact(), Some(text.len() as u64));
            assert_eq!(body.is_end_stream(), text.is_empty());
            assert_eq!(block_on(body.text()).unwrap(), text);
        }
        let (_writer, body) = Body::pipe(8);
        assert!(body.known().is_none());
        assert!(body.into_known().is_err());
        assert_eq!(Body::from("a").into_known().unwrap(), "a");
        let bytes = Bytes::from(vec![1; 100]);
        let same = block_on(Body::from(bytes.clone()).bytes()).unwrap();
        assert_eq!(same.as_ptr(), bytes.as_ptr(), "nothing was copied");
    }

    #[test]
    fn the_length_is_that_of_what_is_still_to_come() {
        let mut body = Body::prefixed("ab".into(), chunks(&["c", "def"]), Some(6));
        for left in [6, 4, 3, 0] {
            assert_eq!(body.length(), Some(left));
            block_on(body.chunk());
        }
        let mut body = Body::from("abc");
        assert_eq!(block_on(body.chunk()).unwrap().unwrap(), "abc");
        assert!(body.is_end_stream());
    }

    #[test]
    fn a_declared_length_is_no_reason_to_overlook_what_follows() {
        let (mut writer, body) = Body::pipe(8);
        let mut body = Body::prefixed(Bytes::new(), body, Some(1));
        writer.try_write("a".into()).unwrap();
        assert_eq!(block_on(body.chunk()).unwrap().unwrap(), "a");
        assert!(!body.is_end_stream(), "the end is not here yet");
        writer.try_write("b".into()).unwrap();
        assert_eq!(block_on(body.chunk()).unwrap().unwrap_err().kind, Kind::InvalidRequest);
        assert!(writer.is_closed(), "an error stops the producer");
        assert!(block_on(body.chunk()).is_none());
    }

    #[test]
    fn a_body_that_is_dropped_or_ended_stops_its_producer() {
        let (writer, body) = Body::pipe(8);
        drop(body);
        assert!(writer.is_closed());
        let (mut writer, mut body) = Body::pipe(8);
        writer.try_write("abc".into()).unwrap();
        assert_eq!(block_on(body.chunk()).unwrap().unwrap(), "abc");
        drop(writer);
        let error = block_on(body.chunk()).unwrap().unwrap_err();
        assert_eq!(error, Error::truncated("body was cut short after 3 bytes"));
        assert!(block_on(body.chunk()).is_none() && body.is_end_stream());
    }

    #[test]
    fn a_foreign_body_keeps_its_data_its_length_and_our_errors() {
        let ours = Error::overloaded("later").with_remote(true).with_delivered(true);
        let plain: BoxError = "plain".into();
        let wrapped: BoxError = Box::new(Wrapper(Box::new(Wrapper(Box::new(ours.clone())))));
        let trailers = Frame::trailers(HeaderMap::new());
        for (frames, hint, read, error) in [
            (vec![data("a"), data(""), data("b")], None, "ab", None),
            (vec![data("a"), Ok(trailers)], None, "a", None),
            (vec![data("a"), data("b")], Some(2), "ab", None),
            (vec![data("a")], Some(2), "a", Some(Error::truncated(""))),
            (vec![data("a"), Err(plain), data("b")], None, "a", Some(Error::failed("plain"))),
            (vec![Err(Box::new(ours.clone()))], None, "", Some(ours.clone())),
            (vec![Err(wrapped)], None, "", Some(ours)),
        ] {
            let body = Body::new(Foreign(
                frames,
                hint.map_or_else(SizeHint::default, SizeHint::with_exact),
            ));
            assert_eq!(body.length(), hint);
            let (text, failed) = drain(body);
            assert_eq!(text, read);
            let short = |error: Error| match error.kind {
                Kind::Truncated => Error::truncated(""),
                _ => error,
            };
            assert_eq!(failed.map(short), error);
        }
    }

    #[test]
    fn a_foreign_body_of_empty_frames_lets_other_tasks_run() {
        let mut body = chunks(&[""; 100]);
        let cx = &mut Context::from_waker(futures::task::noop_waker_ref());
        assert!(body.poll_chunk(cx).is_pending());
        assert!(block_on(body.chunk()).is_none());
    }

    #[test]
    fn a_body_is_a_body_to_http_body() {
        for body in [Body::from("abc"), chunks(&["a", "bc"]), Body::new(Full::from("abc"))] {
            let collected = block_on(http_body_util::BodyExt::collect(body)).unwrap();
            assert!(collected.trailers().is_none());
            assert_eq!(collected.to_bytes(), "abc");
        }
        assert_eq!(Body::new(Full::from("abc")).length(), Some(3));
        let boxed = Body::new(chunks(&["a"]).boxed_unsync().map_err(|error| Wrapper(error.into())));
        assert_eq!(drain(boxed), ("a".to_owned(), None));
        assert_eq!(format!("{:?}", Body::from("abc")), "Body { known: true, length: Some(3) }");
    }

    #[test]
    fn a_body_is_collected_up_to_its_limit_and_no_further() {
        for (body, limit, good) in [
            (Body::from("abc"), 3, true),
            (Body::from("abc"), 2, false),
            (chunks(&["ab", "c"]), 3, true),
            (chunks(&["ab", "c"]), 2, false),
            (chunks(&["abc"]), 0, false),
            (chunks(&[]), 0, true),
        ] {
            match block_on(body.bytes_limited(limit)) {
                Ok(bytes) => assert!(good && bytes.len() <= limit),
                Err(error) => {
                    assert!(!good && error.kind == Kind::InvalidRequest);
                    assert!(error.message.contains(&format!("limit of {limit} bytes")), "{error}");
                }
            }
        }
        // One that says that it is too large is not even begun.
        let (_writer, rest) = Body::pipe(8);
        let declared = Body::prefixed(Bytes::new(), rest, Some(9));
        let error = declared.bytes_limited(8).now_or_never().unwrap().unwrap_err();
        assert!(error.message.contains("9 bytes"), "{error}");
        assert_eq!(block_on(chunks(&["a", "bc", "d"]).bytes()).unwrap(), "abcd");
    }

    #[test]
    fn text_is_utf_8_or_an_error() {
        assert_eq!(block_on(chunks(&["gr", "üß"]).text()).unwrap(), "grüß");
        let error = block_on(Body::from(vec![b'a', 0xff]).text()).unwrap_err();
        assert!(error.kind == Kind::Failed && error.message.contains("index 1"), "{error}");
    }
}
