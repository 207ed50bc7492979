//! Follows the framing of HTTP/1.1 requests, and finds what two parsers could read differently.
//!
//! hyper drops a `Content-Length` beside a `Transfer-Encoding`, ignores codings in front of `chunked`, and takes a
//! bare newline in a trailer for a part of its line. Each is how requests are smuggled past a proxy: here all are
//! refused. Whatever else is malformed is left to hyper, which refuses it.
//!
//! **Invariant:** this is a machine without I/O: bytes go in, and where a bad line begins comes out.
//! **Invariant:** what it holds of a line is bounded.

use http::HeaderName;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE};

use crate::rfc6455;

/// Where the requests of a connection are.
#[derive(Debug)]
pub(super) struct Framing(State);

#[derive(Debug)]
enum State {
    Head(Head),
    /// So many bytes of a body are still to come.
    Sized(u64),
    Chunked(Chunk),
    /// Nothing is followed any more: another protocol, or what hyper refuses.
    Opaque,
}

#[derive(Debug, Default)]
struct Head {
    /// Whether anything of the request has come.
    begun: bool,
    /// Whether the request's first line has come.
    has_request_line: bool,
    /// The beginning of a line that is not complete.
    line: Vec<u8>,
    /// Whether more of that line has come than is kept.
    is_long: bool,
    length: Option<u64>,
    is_chunked: bool,
    switches: bool,
}

#[derive(Debug)]
enum Chunk {
    Size(u64),
    Extension(u64),
    /// The size's line ends with the next byte.
    SizeEnd(u64),
    Data(u64),
    DataEnd,
    /// A line of the trailer of which nothing has come.
    TrailerStart,
    Trailer,
    /// A line of the trailer ends with the next byte; whether it was the last, which is empty.
    TrailerEnd(bool),
}

/// What could be read in two ways.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Bad {
    /// Where it begins in what was given.
    pub(super) at: usize,
    /// Whether it is a part of a body, and not of a head.
    pub(super) in_body: bool,
}

impl Framing {
    /// Follows the requests of a connection from its first byte.
    pub(super) fn new() -> Self {
        Self(State::Head(Head::default()))
    }

    /// Follows nothing: the connection speaks something else.
    pub(super) fn opaque() -> Self {
        Self(State::Opaque)
    }

    /// Returns whether a part of a head has come.
    pub(super) fn is_in_head(&self) -> bool {
        matches!(&self.0, State::Head(head) if head.begun)
    }

    /// Returns whether some of a body is still to come.
    pub(super) fn is_in_body(&self) -> bool {
        matches!(self.0, State::Sized(_) | State::Chunked(_))
    }

    /// Takes what has come.
    ///
    /// # Errors
    /// Where a line is bad. Nothing is followed from then on.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<(), Bad> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let taken = match &mut self.0 {
                State::Opaque => return Ok(()),
                State::Sized(left) => {
                    let taken =
                        usize::try_from(*left).map_or(rest.len(), |left| left.min(rest.len()));
                    *left -= taken as u64;
                    if *left == 0 {
                        self.0 = State::Head(Head::default());
                    }
                    taken
                }
                State::Chunked(_) | State::Head(_) => {
                    let in_body = self.is_in_body();
                    let step = match &mut self.0 {
                        State::Chunked(chunk) => chunk.take(rest),
                        State::Head(head) => head.take(rest),
                        _ => return Ok(()),
                    };
                    let Ok((next, taken)) = step else {
                        self.0 = State::Opaque;
                        return Err(Bad { at: bytes.len() - rest.len(), in_body });
                    };
                    if let Some(next) = next {
                        self.0 = next;
                    }
                    taken
                }
            };
            rest = rest.get(taken..).unwrap_or_default();
        }
        Ok(())
    }
}

/// What could be read in two ways.
struct Twofold;

impl Head {
    /// Takes a line, or a part of one; returns what follows the head, once it is complete.
    fn take(&mut self, bytes: &[u8]) -> Result<(Option<State>, usize), Twofold> {
        self.begun = true;
        let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
            self.keep(bytes);
            return Ok((None, bytes.len()));
        };
        let piece = bytes.get(..end).unwrap_or_default();
        let next = if self.line.is_empty() && piece.len() <= LINE_BYTES_KEPT {
            self.line(piece)?
        } else {
            self.keep(piece);
            let line = std::mem::take(&mut self.line);
            match std::mem::take(&mut self.is_long) {
                true => self.long_line(&line)?,
                false => self.line(&line)?,
            }
        };
        Ok((next, end + 1))
    }

    /// Keeps the beginning of a line.
    fn keep(&mut self, piece: &[u8]) {
        let room = LINE_BYTES_KEPT.saturating_sub(self.line.len());
        self.is_long |= piece.len() > room;
        self.line.extend_from_slice(piece.get(..room).unwrap_or(piece));
    }

    /// Takes a line of which this is the beginning. What counts is never so long but to hide its end.
    fn long_line(&mut self, begin: &[u8]) -> Result<Option<State>, Twofold> {
        if !self.has_request_line {
            self.has_request_line = true;
            return Ok(None);
        }
        let name = begin.split(|byte| *byte == b':').next().unwrap_or_default();
        match [CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE].iter().any(|known| is(name, known)) {
            true => Err(Twofold),
            false => Ok(None),
        }
    }

    fn line(&mut self, line: &[u8]) -> Result<Option<State>, Twofold> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            // Empty lines in front of a request are passed over.
            self.begun = self.has_request_line;
            return Ok(self.has_request_line.then(|| self.next()));
        }
        if !self.has_request_line {
            self.has_request_line = true;
            return Ok(None);
        }
        // Most lines are none of these.
        if let Some(b'c' | b'C' | b't' | b'T' | b'u' | b'U') = line.first() {
            self.header(line)?;
        }
        Ok(None)
    }

    fn header(&mut self, line: &[u8]) -> Result<(), Twofold> {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { return Ok(()) };
        let Some((name, value)) = line.split_at_checked(colon) else { return Ok(()) };
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        if is(name, &CONTENT_LENGTH) {
            let length = std::str::from_utf8(value).ok().and_then(|value| value.parse().ok());
            if self.is_chunked || self.length.is_some_and(|known| length != Some(known)) {
                return Err(Twofold);
            }
            self.length = Some(length.ok_or(Twofold)?);
        } else if is(name, &TRANSFER_ENCODING) {
            if self.is_chunked || self.length.is_some() || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Twofold);
            }
            self.is_chunked = true;
        } else if is(name, &UPGRADE) {
            self.switches |= rfc6455::is_token_of(value, "websocket");
        }
        Ok(())
    }

    /// Returns what follows the head.
    fn next(&self) -> State {
        match self {
            Self { is_chunked: true, .. } => State::Chunked(Chunk::Size(0)),
            Self { length: Some(length @ 1..), .. } => State::Sized(*length),
            // An upgrade is granted, and something else follows; or it is not, and the connection ends.
            Self { switches: true, .. } => State::Opaque,
            _ => State::Head(Self::default()),
        }
    }
}

impl Chunk {
    /// Takes some bytes, at least one; returns what follows, and how many it took. Each byte is read as hyper
    /// reads it.
    fn take(&mut self, bytes: &[u8]) -> Result<(Option<State>, usize), Twofold> {
        let next = match (&mut *self, bytes.first().copied().unwrap_or_default()) {
            (Self::Data(left), _) => {
                let taken =
                    usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
                *left -= taken as u64;
                if *left == 0 {
                    *self = Self::DataEnd;
                }
                return Ok((None, taken));
            }
            (Self::Size(size) | Self::Extension(size), b'\r') => Self::SizeEnd(*size),
            (Self::SizeEnd(0), b'\n') => Self::TrailerStart,
            (Self::SizeEnd(size), b'\n') => Self::Data(*size),
            (Self::Size(size), byte) if byte.is_ascii_hexdigit() => {
                let digit = char::from(byte).to_digit(16).map_or(0, u64::from);
                match size.checked_mul(16).and_then(|size| size.checked_add(digit)) {
                    Some(size) => Self::Size(size),
                    None => return Ok((Some(State::Opaque), 1)),
                }
            }
            (Self::Size(_) | Self::Extension(_), b'\n') => return Err(Twofold),
            (Self::Size(size) | Self::Extension(size), _) => Self::Extension(*size),
            (Self::DataEnd, b'\n') => Self::Size(0),
            (Self::DataEnd, b'\r') => Self::DataEnd,
            (Self::TrailerStart, b'\r') => Self::TrailerEnd(true),
            (Self::Trailer, b'\r') => Self::TrailerEnd(false),
            (Self::TrailerStart | Self::Trailer, b'\n') => return Err(Twofold),
            (Self::TrailerStart | Self::Trailer, _) => Self::Trailer,
            (Self::TrailerEnd(true), b'\n') => return Ok((Some(State::Head(Head::default())), 1)),
            (Self::TrailerEnd(false), b'\n') => Self::TrailerStart,
            (Self::SizeEnd(_) | Self::DataEnd | Self::TrailerEnd(_), _) => {
                return Ok((Some(State::Opaque), 1));
            }
        };
        *self = next;
        Ok((None, 1))
    }
}

/// Returns whether a name, as it came, is this header's.
fn is(name: &[u8], header: &HeaderName) -> bool {
    name.eq_ignore_ascii_case(header.as_str().as_bytes())
}

/// More than any line needs that is looked at: a longer one hides something.
const LINE_BYTES_KEPT: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `bytes` whole, and in pieces of every size: where a line is bad is the same.
    fn check(bytes: &str, bad: Option<&str>) -> Framing {
        let bytes = bytes.as_bytes();
        for size in 1..bytes.len() {
            let mut framing = Framing::new();
            let verdicts = bytes.chunks(size).map(|piece| framing.take(piece).is_err());
            assert_eq!(verdicts.filter(|bad| *bad).count(), usize::from(bad.is_some()), "{size}");
        }
        let mut framing = Framing::new();
        let verdict = framing.take(bytes);
        let found = verdict.err().map(|bad| &bytes[bad.at..]);
        let line = found.map(|rest| rest.split(|byte| *byte == b'\r').next().unwrap());
        assert_eq!(line, bad.map(str::as_bytes), "{}", String::from_utf8_lossy(bytes));
        framing
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_found() {
        for (headers, bad) in [
            ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "Transfer-Encoding: chunked"),
            ("Transfer-Encoding: chunked\r\ncontent-length: 5\r\n", "content-length: 5"),
            ("Content-Length: 5\r\nContent-Length: 6\r\n", "Content-Length: 6"),
            ("Content-Length: 5, 5\r\n", "Content-Length: 5, 5"),
            ("Content-Length: -1\r\n", "Content-Length: -1"),
            ("Content-Length: 0x5\r\n", "Content-Length: 0x5"),
            ("Content-Length: 99999999999999999999\r\n", "Content-Length: 99999999999999999999"),
            ("Transfer-Encoding: gzip, chunked\r\n", "Transfer-Encoding: gzip, chunked"),
            ("Transfer-Encoding: xchunked\r\n", "Transfer-Encoding: xchunked"),
            (
                "TRANSFER-ENCODING: chunked\r\ntransfer-encoding: identity\r\n",
                "transfer-encoding: identity",
            ),
            (
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
                "Transfer-Encoding: chunked",
            ),
        ] {
            check(&format!("POST / HTTP/1.1\r\nHost: a\r\n{headers}\r\n"), Some(bad));
        }
    }

    /// Returns whether a part is refused, which is so for pieces of every size.
    fn is_refused(bytes: &str) -> bool {
        let refused = |size| {
            let mut framing = Framing::new();
            bytes.as_bytes().chunks(size).any(|piece| framing.take(piece).is_err())
        };
        let whole = refused(bytes.len());
        (1..bytes.len()).for_each(|size| assert_eq!(refused(size), whole, "{size} {bytes:?}"));
        whole
    }

    #[test]
    fn a_line_that_counts_is_refused_where_it_is_too_long_to_be_kept() {
        let long = " ".repeat(110);
        let more = " ".repeat(4096);
        for (line, refused) in [
            (format!("Transfer-Encoding:{long}gzip,{more} chunked"), true),
            (format!("transfer-encoding:{long}{long}chunked"), true),
            (format!("Content-Length:{long}{more}5"), true),
            (format!("Upgrade:{long}{long}websocket"), true),
            (format!("X-Long:{long}{more}chunked"), false),
            (format!("Content-Lengths:{long}{more}5"), false),
            (format!("Content-Length:{}5", " ".repeat(100)), false),
        ] {
            let head = format!("POST / HTTP/1.1\r\nHost: a\r\n{line}\r\n\r\n");
            assert_eq!(is_refused(&head), refused, "{:.40}", line.trim());
        }
        assert!(!is_refused(&format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(500))));
    }

    #[test]
    fn a_bare_newline_ends_no_line_of_a_chunk_or_a_trailer() {
        for (body, refused) in [
            ("0\r\n\n", true),
            ("0\r\nx: y\n\r\n", true),
            ("0\r\nx: y\r\n\n", true),
            ("0\n\r\n", true),
            ("1;x\na\r\n0\r\n\r\n", true),
            ("0\r\nx: y\r\n\r\n", false),
            ("0;x=y\r\n\r\n", false),
        ] {
            let whole = format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
            assert_eq!(is_refused(&whole), refused, "{body:?}");
        }
    }

    #[test]
    fn an_upgrade_is_seen_in_any_list_and_a_body_before_it_is_followed() {
        for (headers, in_body) in [
            ("Upgrade: websocket\r\n", false),
            ("Upgrade: h2c, WebSocket\r\n", false),
            ("Upgrade: websocket\r\nContent-Length: 5\r\n", true),
            ("Upgrade: websocket\r\nTransfer-Encoding: chunked\r\n", true),
        ] {
            let mut framing = Framing::new();
            framing.take(format!("GET / HTTP/1.1\r\n{headers}\r\n").as_bytes()).unwrap();
            assert_eq!(framing.is_in_body(), in_body, "{headers}");
            assert_eq!(matches!(framing.0, State::Opaque), !in_body, "{headers}");
        }
    }

    #[test]
    fn requests_that_follow_each_other_are_followed() {
        let bad = "POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n";
        for before in [
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "\r\n\r\nGET / HTTP/1.1\nHost: a\n\n",
            "POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\n\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n",
            "POST / HTTP/1.1\r\ntransfer-encoding:  Chunked \r\n\r\n4;x=1\r\n\r\n\r\n\r\nA\r\n0123456789\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 1\r\n\r\n",
        ] {
            check(&format!("{before}{bad}"), Some("Transfer-Encoding: chunked"));
            let framing = check(before, None);
            assert!(!framing.is_in_head() && !framing.is_in_body(), "{before}");
        }
    }

    #[test]
    fn bodies_are_not_read_as_heads() {
        let head = "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n";
        let body = format!("POST / HTTP/1.1\r\n{head}");
        let length = body.len();
        check(&format!("POST / HTTP/1.1\r\nContent-Length: {length}\r\n\r\n{body}"), None);
        let chunked = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        check(&format!("{chunked}{length:x}\r\n{body}\r\n0\r\n\r\n"), None);
        check(&format!("{chunked}zz\r\n{body}"), None);
        check(&format!("GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n{body}"), None);
    }

    #[test]
    fn where_a_request_is_can_be_seen() {
        let mut framing = Framing::new();
        assert!(!framing.is_in_head());
        framing.take(b"POST / HT").unwrap();
        assert!(framing.is_in_head() && !framing.is_in_body());
        framing.take(b"TP/1.1\r\nContent-Length: 3\r\n\r\nab").unwrap();
        assert!(!framing.is_in_head() && framing.is_in_body());
        framing.take(b"c").unwrap();
        assert!(!framing.is_in_head() && !framing.is_in_body());
        framing.take(&[b'x'; 100_000]).unwrap();
        assert!(matches!(&framing.0, State::Head(head) if head.line.len() <= LINE_BYTES_KEPT));
    }
}
