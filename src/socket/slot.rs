//! How a response carries the end of a WebSocket: beside its body, in an extension.

use std::sync::{Arc, Mutex, PoisonError};

use http::Extensions;

use super::end::WebSocket;

/// Extensions are cloned, an end is not: the first who takes it has it.
#[derive(Clone)]
struct Slot(Arc<Mutex<Option<WebSocket>>>);

/// Puts an end among `extensions`.
pub fn attach(extensions: &mut Extensions, end: WebSocket) {
    extensions.insert(Slot(Arc::new(Mutex::new(Some(end)))));
}

/// Takes the end that is among `extensions`.
pub fn detach(extensions: &mut Extensions) -> Option<WebSocket> {
    let slot = extensions.remove::<Slot>()?;
    slot.0.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// Returns whether there is an end among `extensions`.
pub fn is_attached(extensions: &Extensions) -> bool {
    extensions.get::<Slot>().is_some_and(|slot| {
        let slot = slot.0.lock().unwrap_or_else(PoisonError::into_inner);
        slot.is_some()
    })
}
