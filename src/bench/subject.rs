//! What is measured, seen from the load: a server, and a line to it.

use std::fmt::Display;
use std::io::Write;
use std::os::fd::AsFd;
use std::rc::Rc;

use bytes::Bytes;
use futures::future::LocalBoxFuture;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

use crate::error::{Error, Result};

/// Something whose calls are measured: an echo, its server and its client.
pub trait Subject {
    /// Returns what it is called, on the command line too.
    fn name(&self) -> &'static str;

    /// Returns how many threads serve it.
    fn threads(&self) -> usize {
        1
    }

    /// Serves echoes: [`announce`]s where, and ends when the [`parent_gone`].
    fn serve(&self) -> LocalBoxFuture<'_, Result<()>>;

    /// Connects to its server, which nobody else is connected to.
    fn connect<'a>(&'a self, address: &'a str) -> LocalBoxFuture<'a, Result<Rc<dyn Line>>>;
}

/// A connection on which calls are made, many at a time.
pub trait Line {
    /// Sends `payload`; yields once all of the echo has come and was found right ([`check_echo`]).
    fn call(&self, payload: &Bytes) -> LocalBoxFuture<'static, Result<()>>;
}

/// Tells the process that started this one where it serves.
///
/// # Errors
/// *failed* where standard output is closed.
pub fn announce(address: impl Display) -> Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{address}")?;
    Ok(out.flush()?)
}

/// Waits until the process that started this one wants it to end, or has ended.
///
/// # Cancel safety
/// Dropping the future changes nothing.
pub async fn parent_gone() {
    let opened =
        std::io::stdin().as_fd().try_clone_to_owned().and_then(pipe::Receiver::from_owned_fd);
    match opened {
        Ok(mut input) => {
            let mut byte = [0];
            while input.read(&mut byte).await.is_ok_and(|read| read > 0) {}
        }
        // No pipe: somebody started a server by hand, and ends it so.
        Err(_) => std::future::pending().await,
    }
}

/// Checks that `answer` is the echo of `payload`: its length and both ends, which costs no subject time.
///
/// # Errors
/// *failed*, with both lengths.
pub fn check_echo(answer: &[u8], payload: &[u8]) -> Result<()> {
    let ends = |bytes: &[u8]| (bytes.len(), bytes.first().copied(), bytes.last().copied());
    if ends(answer) == ends(payload) {
        return Ok(());
    }
    let (got, sent) = (answer.len(), payload.len());
    Err(Error::failed(format!("an echo of {got} bytes came for {sent} bytes")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echo_that_is_cut_or_foreign_is_noticed() {
        for (answer, good) in [("abc", true), ("ab", false), ("abd", false), ("bbc", false)] {
            assert_eq!(check_echo(answer.as_bytes(), b"abc").is_ok(), good, "{answer}");
        }
        assert!(check_echo(b"", b"").is_ok());
    }
}
