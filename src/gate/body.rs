//! A body that leaves an object.

use std::rc::Rc;

use bytes::Bytes;

use super::outbox::Outbox;
use crate::body::Body;

/// Returns the far end of `body`, and the task that moves its bytes there, on the object's own thread: each
/// chunk when what was written before it is durable.
///
/// Where the task is dropped, or the outbox breaks, the reader sees a body cut short.
pub fn leaving(
    mut body: Body,
    window: usize,
    outbox: Rc<Outbox>,
) -> (Body, impl Future<Output = ()> + 'static) {
    let length = body.length();
    let (mut writer, far_end) = Body::pipe(window);
    let far_end = Body::prefixed(Bytes::new(), far_end, length);
    let task = async move {
        // Nothing waits in memory for a reader who has not begun to read.
        writer.wanted().await;
        loop {
            let chunk = tokio::select! { biased;
                () = writer.closed() => return,
                chunk = body.chunk() => chunk,
            };
            if !outbox.is_open() && outbox.opened().await.is_err() {
                return;
            }
            match chunk {
                Some(Ok(chunk)) => {
                    if writer.write(chunk).await.is_err() {
                        return;
                    }
                }
                Some(Err(error)) => return writer.fail(error),
                None => return writer.finish(),
            }
        }
    };
    (far_end, task)
}
