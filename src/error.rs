//! Why a call failed, as its caller sees it: data, never text to be parsed.
//!
//! **Invariant:** `remote` is true exactly when the object's own code raised the error. It is set
//! where the author's code answers (`runtime::running`) or resets itself (`object::state`), and survives
//! every hop.

use std::fmt;

/// The result of everything that can fail here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What to do about an [`Error`]. New kinds may come: match with a `_` arm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// The object's code, or ours, failed; the message says how.
    Failed,
    /// The object could not be reached; a new stub may reach it.
    Disconnected,
    /// Too much to do at this moment; wait, then try less.
    Overloaded,
    /// The object, or this server, does not do that.
    Unimplemented,
    /// Not an id: neither 32 bytes nor 64 hex digits.
    InvalidId,
    /// An id, but of another namespace, or forged.
    WrongNamespace,
    /// The server has no namespace of that name.
    NoSuchNamespace,
    /// An existing object was asked for, and it does not exist.
    NoSuchObject,
    /// The request can't be sent as it is.
    InvalidRequest,
    /// A body was cut short.
    Truncated,
    /// It took longer than its limit.
    Timeout,
}

impl Kind {
    /// Every kind, in the order of the contract.
    pub const ALL: [Self; 11] = [
        Self::Failed,
        Self::Disconnected,
        Self::Overloaded,
        Self::Unimplemented,
        Self::InvalidId,
        Self::WrongNamespace,
        Self::NoSuchNamespace,
        Self::NoSuchObject,
        Self::InvalidRequest,
        Self::Truncated,
        Self::Timeout,
    ];

    /// Returns its name as people read it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Disconnected => "disconnected",
            Self::Overloaded => "overloaded",
            Self::Unimplemented => "unimplemented",
            Self::InvalidId => "invalid id",
            Self::WrongNamespace => "wrong namespace",
            Self::NoSuchNamespace => "no such namespace",
            Self::NoSuchObject => "no such object",
            Self::InvalidRequest => "invalid request",
            Self::Truncated => "truncated",
            Self::Timeout => "timeout",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a call failed.
///
/// An author's handler may return any error it likes through `?`: see the [`From`] implementations.
/// An `Error` that came from another object passes on with its flags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// What to do about it.
    pub kind: Kind,
    /// For people: lower case, names the value.
    pub message: String,
    /// Whether the object's own code raised it (its constructor included).
    pub remote: bool,
    /// Transient: a new stub and another try may succeed.
    pub retryable: bool,
    /// Do not retry now.
    pub overloaded: bool,
    /// The object was reset: its memory is gone and this stub is broken.
    pub reset: bool,
    /// Whether the event may have reached the object's code; `false` means it surely did not run.
    pub delivered: bool,
}

impl Error {
    /// Makes an error of `kind` with the flags that go with the kind.
    ///
    /// Disconnected errors are retryable, overloaded ones are `overloaded`; nothing else is set.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            remote: false,
            retryable: kind == Kind::Disconnected,
            overloaded: kind == Kind::Overloaded,
            reset: false,
            delivered: false,
        }
    }

    /// Makes an error of kind *failed*: what an author's code returns.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(Kind::Failed, message)
    }

    /// Makes an error of kind *disconnected*.
    pub fn disconnected(message: impl Into<String>) -> Self {
        Self::new(Kind::Disconnected, message)
    }

    /// Makes an error of kind *overloaded*.
    pub fn overloaded(message: impl Into<String>) -> Self {
        Self::new(Kind::Overloaded, message)
    }

    /// Makes an error of kind *unimplemented*.
    pub fn unimplemented(message: impl Into<String>) -> Self {
        Self::new(Kind::Unimplemented, message)
    }

    /// Makes an error of kind *invalid request*.
    pub fn invalid_request(message: impl Into<String>) -> Self {
        Self::new(Kind::InvalidRequest, message)
    }

    /// Makes an error of kind *truncated*.
    pub fn truncated(message: impl Into<String>) -> Self {
        Self::new(Kind::Truncated, message)
    }

    /// Makes an error of kind *timeout*.
    pub fn timeout(message: impl Into<String>) -> Self {
        Self::new(Kind::Timeout, message)
    }

    /// Returns it marked as raised, or not, by the object's own code.
    pub fn with_remote(mut self, remote: bool) -> Self {
        self.remote = remote;
        self
    }

    /// Returns it marked as transient, or not.
    pub fn with_retryable(mut self, retryable: bool) -> Self {
        self.retryable = retryable;
        self
    }

    /// Returns it marked as having reset the object, or not.
    pub fn with_reset(mut self, reset: bool) -> Self {
        self.reset = reset;
        self
    }

    /// Returns it marked as having possibly reached the object's code, or surely not.
    pub fn with_delivered(mut self, delivered: bool) -> Self {
        self.delivered = delivered;
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Failed => f.write_str(&self.message),
            kind => write!(f, "{kind}: {}", self.message),
        }
    }
}

impl std::error::Error for Error {}

impl From<&str> for Error {
    fn from(message: &str) -> Self {
        Self::failed(message)
    }
}

impl From<String> for Error {
    fn from(message: String) -> Self {
        Self::failed(message)
    }
}

impl From<Box<dyn std::error::Error + Send + Sync>> for Error {
    fn from(error: Box<dyn std::error::Error + Send + Sync>) -> Self {
        match error.downcast::<Self>() {
            Ok(error) => *error,
            Err(error) => Self::failed(error.to_string()),
        }
    }
}

impl From<capnp::Error> for Error {
    /// An exception of Cap'n Proto means that the object did not answer: never `remote`.
    fn from(error: capnp::Error) -> Self {
        let message = error.extra.trim_start_matches("remote exception: ").to_owned();
        let kind = match error.kind {
            capnp::ErrorKind::Overloaded => Kind::Overloaded,
            capnp::ErrorKind::Disconnected => Kind::Disconnected,
            capnp::ErrorKind::Unimplemented => Kind::Unimplemented,
            _ => Kind::Failed,
        };
        Self::new(kind, if message.is_empty() { error.kind.to_string() } else { message })
            .with_delivered(matches!(kind, Kind::Disconnected | Kind::Failed))
    }
}

impl From<Error> for capnp::Error {
    /// What a typed call fails with: the kind that capnp knows, and the message.
    fn from(error: Error) -> Self {
        let kind = match error.kind {
            Kind::Overloaded => capnp::ErrorKind::Overloaded,
            Kind::Disconnected => capnp::ErrorKind::Disconnected,
            Kind::Unimplemented => capnp::ErrorKind::Unimplemented,
            _ => capnp::ErrorKind::Failed,
        };
        let mut extra = error.message;
        extra.truncate(extra.floor_char_boundary(EXCEPTION_BYTES_MAX));
        Self { kind, extra }
    }
}

/// What an exception may say: it has to fit into a message.
const EXCEPTION_BYTES_MAX: usize = 16 << 10;

/// Lets `?` turn the errors of common libraries into ours, of kind *failed*.
macro_rules! failed_from {
    ($($error:ty),* $(,)?) => {$(
        impl From<$error> for Error {
            fn from(error: $error) -> Self {
                Self::failed(error.to_string())
            }
        }
    )*};
}

failed_from!(
    std::io::Error,
    std::fmt::Error,
    std::str::Utf8Error,
    std::string::FromUtf8Error,
    std::num::ParseIntError,
    std::num::ParseFloatError,
    std::num::TryFromIntError,
    http::Error,
    capnp::NotInSchema,
);

#[cfg(feature = "server")]
failed_from!(serde_json::Error);

#[cfg(feature = "server")]
impl From<anyhow::Error> for Error {
    fn from(error: anyhow::Error) -> Self {
        match error.downcast::<Self>() {
            Ok(error) => error,
            Err(error) => Self::failed(format!("{error:#}")),
        }
    }
}
