//! How a WebSocket ends: close frames and the codes that may be in them.
//!
//! **Invariant:** 1005 and 1006 are never on the wire: they say that there was no code, and no frame.

use super::message::Text;
use crate::error::{Error, Result};

/// The longest reason of a close frame, in bytes.
pub const REASON_BYTES_MAX: usize = 123;

/// What ends one direction of a WebSocket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloseFrame {
    code: u16,
    reason: Text,
}

impl CloseFrame {
    /// There was a frame, and no code in it.
    pub const NO_CODE: u16 = 1005;
    /// There was no frame: the link was lost.
    pub const LOST: u16 = 1006;
    /// What was to be done is done.
    pub const NORMAL: u16 = 1000;
    /// The server goes away.
    pub const GOING_AWAY: u16 = 1001;
    /// The peer broke the protocol.
    pub const PROTOCOL: u16 = 1002;
    /// The peer sent text that is not UTF-8.
    pub const NOT_UTF8: u16 = 1007;
    /// The peer sent a message that is too large.
    pub const TOO_LARGE: u16 = 1009;
    /// There is too much to do at this moment.
    pub const TRY_AGAIN_LATER: u16 = 1013;

    /// Makes the frame that an author may send: its code is 1000, or within 3000 and 4999.
    ///
    /// # Errors
    /// *invalid request* for another code, or a reason of over 123 bytes.
    pub fn new(code: u16, reason: &str) -> Result<Self> {
        if code != Self::NORMAL && !(3000..=4999).contains(&code) {
            return Err(Error::invalid_request(format!(
                "close code {code} is neither 1000 nor within 3000 and 4999"
            )));
        }
        Self::received(code, reason)
    }

    /// Makes the frame that a peer sent: its code may be any that RFC 6455 lets be on the wire, or 1005 where
    /// there was none.
    ///
    /// # Errors
    /// *invalid request* for another code, or a reason of over 123 bytes.
    pub fn received(code: u16, reason: &str) -> Result<Self> {
        if !matches!(code, 1000..=1003 | 1005 | 1007..=1014 | 3000..=4999) {
            return Err(Error::invalid_request(format!("close code {code} may not be sent")));
        }
        let bytes = reason.len();
        if bytes > REASON_BYTES_MAX {
            return Err(Error::invalid_request(format!(
                "a close reason of {bytes} bytes, of at most {REASON_BYTES_MAX}"
            )));
        }
        Ok(Self { code, reason: reason.into() })
    }

    /// Makes a frame of the server's own; a reason that is too long is cut.
    pub fn ours(code: u16, reason: &str) -> Self {
        let end = reason.floor_char_boundary(REASON_BYTES_MAX);
        Self { code, reason: reason.get(..end).unwrap_or_default().into() }
    }

    /// Returns its code; 1005 where it has none.
    pub fn code(&self) -> u16 {
        self.code
    }

    /// Returns its reason.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

/// How a WebSocket ended, as its reader is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    /// The peer's code; 1005 where it gave none, and 1006 where the link was lost.
    pub code: u16,
    /// The peer's reason.
    pub reason: Text,
    /// Whether the peer closed it, and the link was not lost.
    pub was_clean: bool,
}

impl std::fmt::Display for Closed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the WebSocket was closed with code {} {}", self.code, self.reason)
    }
}

impl std::error::Error for Closed {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_the_codes_that_an_author_may_send_are_let_through() {
        for (code, sent, received) in [
            (0, false, false),
            (999, false, false),
            (1000, true, true),
            (1001, false, true),
            (1003, false, true),
            (1004, false, false),
            (1005, false, true),
            (1006, false, false),
            (1007, false, true),
            (1014, false, true),
            (1015, false, false),
            (1016, false, false),
            (2999, false, false),
            (3000, true, true),
            (4999, true, true),
            (5000, false, false),
        ] {
            assert_eq!(CloseFrame::new(code, "").is_ok(), sent, "{code}");
            assert_eq!(CloseFrame::received(code, "").is_ok(), received, "{code}");
        }
    }

    #[test]
    fn a_reason_has_at_most_123_bytes_and_ours_is_cut_between_characters() {
        assert!(CloseFrame::new(1000, &"x".repeat(123)).is_ok());
        let long = "ä".repeat(62);
        assert!(CloseFrame::new(1000, &long).unwrap_err().message.contains("124 bytes"));
        assert_eq!(CloseFrame::ours(1009, &long).reason(), "ä".repeat(61));
    }
}
