//! The body of a request, as the command line gives it.
//!
//! **Invariant:** a file or standard input of any size is sent in bounded memory.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use bytes::Bytes;
use futures::executor::block_on;

use super::progress::Progress;
use crate::body::{Body, BodyWriter};
use crate::error::{Error, Result};

/// Where the body of a request comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    /// The command line itself.
    Bytes(Vec<u8>),
    /// A file.
    File(PathBuf),
    /// Standard input.
    Stdin,
}

impl From<OsString> for Data {
    fn from(text: OsString) -> Self {
        match text.as_bytes() {
            b"-" => Self::Stdin,
            [b'@', path @ ..] => Self::File(OsString::from_vec(path.to_vec()).into()),
            bytes => Self::Bytes(bytes.to_vec()),
        }
    }
}

impl Data {
    /// Begins to read it. A transfer that shows its progress is returned as well.
    ///
    /// # Errors
    /// *invalid request* where the file can't be opened.
    pub fn open(self) -> Result<(Body, Option<Progress>)> {
        match self {
            Self::Bytes(bytes) => Ok((bytes.into(), None)),
            Self::Stdin => Ok(stream(io::stdin(), None)),
            Self::File(path) => {
                let unreadable = |error: io::Error| {
                    Error::invalid_request(format!("can't read {}: {error}", path.display()))
                };
                let file = File::open(&path).map_err(unreadable)?;
                let metadata = file.metadata().map_err(unreadable)?;
                if metadata.is_dir() {
                    return Err(unreadable(io::ErrorKind::IsADirectory.into()));
                }
                // Files that the kernel makes up say that they are empty.
                Ok(stream(
                    file,
                    Some(metadata.len()).filter(|_| metadata.is_file()).filter(|len| *len > 0),
                ))
            }
        }
    }
}

/// Reads `source` on a thread of its own, as fast as the body is read.
fn stream(source: impl Read + Send + 'static, length: Option<u64>) -> (Body, Option<Progress>) {
    let (writer, body) = Body::pipe(CHUNK_BYTES);
    let progress = Progress::new("sent", length);
    let shown = progress.clone();
    tokio::task::spawn_blocking(move || pump(source, writer, &shown));
    (Body::prefixed(Bytes::new(), body, length), Some(progress))
}

fn pump(mut source: impl Read, mut writer: BodyWriter, progress: &Progress) {
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let read = source.read(&mut buffer).map(|count| buffer.get(..count).unwrap_or_default());
        match read {
            Ok([]) => return writer.finish(),
            Ok(chunk) => {
                if block_on(writer.write(Bytes::copy_from_slice(chunk))).is_err() {
                    return;
                }
                progress.advance(chunk.len());
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return writer.fail(Error::failed(format!("can't read on: {error}"))),
        }
    }
}

const CHUNK_BYTES: usize = 128 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_text_or_a_file_or_standard_input() {
        for (text, data) in [
            ("-", Data::Stdin),
            ("@a/b", Data::File("a/b".into())),
            ("", Data::Bytes(Vec::new())),
            ("-5", Data::Bytes(b"-5".to_vec())),
            ("a@b", Data::Bytes(b"a@b".to_vec())),
        ] {
            assert_eq!(Data::from(OsString::from(text)), data);
        }
    }
}
