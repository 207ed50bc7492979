//! Standard output.

use std::io::{self, IsTerminal, Write};

use bytes::Bytes;

/// Writes `bytes` to standard output. Whoever reads it may be slow: the connection is served meanwhile.
///
/// # Errors
/// As writing does; a closed pipe is an error too, and no panic.
pub async fn write(bytes: impl Into<Bytes>) -> io::Result<()> {
    let bytes = bytes.into();
    let written = tokio::task::spawn_blocking(move || {
        let mut stdout = io::stdout().lock();
        stdout.write_all(&bytes)?;
        stdout.flush()
    });
    written.await.map_err(io::Error::other)?
}

/// Returns whether people look at standard output.
pub fn is_terminal() -> bool {
    io::stdout().is_terminal()
}
