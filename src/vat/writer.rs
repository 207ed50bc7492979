//! The task of one connection: it writes what was sent, and keeps the deadlines.
//!
//! **Invariant:** what one turn of the shard sends leaves in one write; a message that is alone leaves
//! without delay.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Poll, ready};

use capnp::Error;
use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::link::Link;
use super::watch::Expired;

/// The bytes that are written without waiting for more: peer and shard then work at the same time.
const BATCH_BYTES: usize = 8 << 10;

/// Writes until the connection is closed or the peer takes no more.
pub(super) async fn run<W: AsyncWrite + Unpin>(link: Rc<Link>, mut writer: W) {
    let outcome = {
        let mut writing = pin!(write(&link, &mut writer));
        poll_fn(|context| {
            link.register_writer(context);
            if let Poll::Ready(outcome) = writing.as_mut().poll(context) {
                return Poll::Ready(outcome.map_err(|error| {
                    Error::disconnected(format!("writing to the peer failed: {error}"))
                }));
            }
            loop {
                match ready!(link.poll_expired(context)) {
                    Expired::Silent(error) => drop(link.fail(error)),
                    Expired::Stalled(error) => return Poll::Ready(Err(error)),
                }
            }
        })
        .await
    };
    if let Err(error) = outcome {
        link.fail(error);
    }
    drop(writer);
    link.finish();
}

async fn write<W: AsyncWrite + Unpin>(link: &Link, writer: &mut W) -> io::Result<()> {
    while poll_fn(|_| link.poll_output()).await {
        gather(link).await;
        let mut batch = link.take_output();
        while !batch.is_empty() {
            let written = poll_fn(|context| {
                let written = batch.poll_write(writer, context);
                if written.is_pending() {
                    link.watch.note_stalled();
                }
                written
            })
            .await?;
            link.note_written(written);
        }
        poll_fn(|context| Pin::new(&mut *writer).poll_flush(context)).await?;
    }
    writer.shutdown().await
}

/// Waits for the end of the turn: until one passes in which nothing was sent, or enough was. Where nothing more
/// is to come, it doesn't.
async fn gather(link: &Link) {
    loop {
        let waiting = link.traffic.output_bytes.get();
        if waiting >= BATCH_BYTES {
            return;
        }
        if link.traffic.is_lone() {
            return;
        }
        requeue().await;
        if link.traffic.output_bytes.get() == waiting {
            return;
        }
    }
}

/// Lets every other task that is ready run once. (`yield_now` of tokio would ask the reactor too.)
async fn requeue() {
    let mut is_first = true;
    poll_fn(|context| {
        if std::mem::take(&mut is_first) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(())
    })
    .await;
}
