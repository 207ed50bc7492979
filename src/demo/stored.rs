//! `PROBE`: what it stores on request, by the calls of [`Storage`](crate::Storage) that are named so.

use std::time::Duration;

use serde_json::Value;

use super::query::{Query, Refused};
use super::sql::Statement;
use crate::error::{Error, Result};
use crate::message::{Request, Response, response as respond};
use crate::object::{Bookmark, List, State, Storage};

/// Stores each `?value=` by its `?key=`; or the body, a text, where there is one key and no value. Answers how
/// many were stored. `&unconfirmed`: the answer does not wait until they are durable.
///
/// # Errors
/// Those of the query, the body and the storage.
pub async fn put(storage: Storage, request: Request, query: &Query) -> Result<Response, Refused> {
    let storage = if query.flag("unconfirmed") { storage.unconfirmed() } else { storage };
    let key = query.required("key")?;
    if query.text("value").is_none() {
        let body = request.into_body().bytes_limited(BODY_BYTES_MAX).await?;
        let body = std::str::from_utf8(&body).map_err(|error| format!("the body: {error}"))?;
        storage.put(key, body)?;
        return Ok(respond::text("1"));
    }
    let pairs = query.pairs("key", "value")?;
    match *pairs.as_slice() {
        [(key, value)] => storage.put(key, value)?,
        _ => storage.put_many(&pairs)?,
    }
    Ok(respond::text(pairs.len().to_string()))
}

/// Answers the value of `?key=`: a text as it stands, anything else as JSON. Of several keys: as [`list`] does.
///
/// # Errors
/// Those of the query and the storage.
pub fn get(storage: &Storage, query: &Query) -> Result<Response, Refused> {
    let key = query.required("key")?;
    let keys: Vec<_> = query.all("key").collect();
    if keys.len() > 1 {
        return Ok(respond::json(&storage.get_many::<Value>(&keys)?)?);
    }
    Ok(match storage.get(key)? {
        Some(Value::String(text)) => respond::text(text),
        Some(value) => respond::json(&value)?,
        None => respond::status(404, format!("there is no key {key:?}"))?,
    })
}

/// Answers keys and values as JSON: an array of arrays `[key, value]`.
///
/// # Errors
/// Those of the query and the storage.
pub fn list(storage: &Storage, query: &Query) -> Result<Response, Refused> {
    let mut list = List::prefix(query.text("prefix").unwrap_or_default());
    if let Some(start) = query.text("start") {
        list = list.start(start);
    }
    if let Some(start) = query.text("start_after") {
        list = list.start_after(start);
    }
    if let Some(end) = query.text("end") {
        list = list.end(end);
    }
    if let Some(limit) = query.number("limit")? {
        list = list.limit(limit);
    }
    if query.flag("reverse") {
        list = list.reverse();
    }
    Ok(respond::json(&storage.list::<Value>(&list)?)?)
}

/// Deletes each `?key=`; answers how many there were.
///
/// # Errors
/// Those of the query and the storage.
pub fn delete(storage: &Storage, query: &Query) -> Result<Response, Refused> {
    let key = query.required("key")?;
    let keys: Vec<_> = query.all("key").collect();
    let existed = match keys.len() {
        1 => usize::from(storage.delete(key)?),
        _ => storage.delete_many(&keys)?,
    };
    Ok(respond::text(existed.to_string()))
}

/// Stores each `?value=` by its `?key=` in a transaction and runs the body's SQL, where there is one. The
/// transaction then stays open for `?await_ms=`, and then fails with the message `?fail=`, where there is one.
/// Answers how many values were stored.
///
/// # Errors
/// Those of the query and the storage, and the one that was asked for.
pub async fn transaction(
    storage: &Storage,
    request: Request,
    query: &Query,
) -> Result<Response, Refused> {
    let pairs = query.pairs("key", "value")?;
    let await_ms = query.number("await_ms")?;
    let statement = Statement::of(request).await?;
    let work = async {
        pairs.iter().try_for_each(|(key, value)| storage.put(key, value))?;
        if let Some(statement) = statement {
            statement.run(&storage.sql())?;
        }
        if let Some(ms) = await_ms {
            tokio::time::sleep(Duration::from_millis(ms)).await;
        }
        query.text("fail").map_or(Ok(()), |message| Err(Error::failed(message)))
    };
    storage.transaction(work).await?;
    Ok(respond::text(pairs.len().to_string()))
}

/// Answers a bookmark of this moment, or of `?at_ms=`.
///
/// # Errors
/// Those of the query and the storage.
pub fn bookmark(storage: &Storage, query: &Query) -> Result<Response, Refused> {
    let bookmark = match query.number("at_ms")? {
        Some(unix_ms) => storage.bookmark_at(unix_ms)?,
        None => storage.bookmark()?,
    };
    Ok(respond::text(bookmark.to_string()))
}

/// Has the object be what it was at the bookmark `?to=`, from its next start on, which is now: the error says
/// which bookmark undoes it. `&stay`: answers that bookmark and starts nothing.
///
/// # Errors
/// Those of the query and the storage.
pub async fn restore(state: &State, query: &Query) -> Result<Response, Refused> {
    let to = query.required("to")?;
    let bookmark: Bookmark = to.parse().map_err(|error: Error| error.message)?;
    let undo = state.storage().restore_at_next_start(bookmark)?;
    if !query.flag("stay") {
        // A reset drops what is not on its way yet.
        state.storage().sync().await?;
        state.abort(format!("back to {to}; undone by {undo}"));
    }
    Ok(respond::text(undo.to_string()))
}

/// A value and more.
const BODY_BYTES_MAX: usize = 4 << 20;
