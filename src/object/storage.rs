//! What an object can store, as its author sees it.

use std::ops::{Bound, ControlFlow};
use std::rc::Rc;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::sql::Sql;
use super::state::{Control, run_within};
use crate::error::{Error, Result};
use crate::gate::Section;
use crate::storage::engine::Order;
use crate::storage::object::{Confirm, ObjectStorage};
use crate::storage::sql::database::Database;
use crate::storage::{Span, value};

/// The storage of one object: private, transactional, durable. Cheap to clone.
///
/// Reads answer at once, and see every write made before them. Writes need no `.await`: they are made when the
/// method returns, and whatever the object says afterwards (a response, a body, a call, a message) leaves only
/// when they are durable. Writes with no `.await` between them are durable together or not at all. If they
/// can't be made durable the object is reset, and nobody sees what it said after them.
///
/// Keys are text of at most 2,048 bytes, ordered by their bytes. Values are what serde can serialize, stored as
/// MessagePack; a key and its value have at most 2 MiB.
///
/// ```
/// # use stubborn::{Request, Response, Result, State, respond};
/// async fn fetch(state: &State, _request: Request) -> Result<Response> {
///     let storage = state.storage();
///     let count = storage.get::<u64>("count")?.unwrap_or(0) + 1;
///     storage.put("count", &count)?;
///     Ok(respond::text(count.to_string()))
/// }
/// ```
#[derive(Clone)]
pub struct Storage {
    control: Rc<dyn Control>,
    confirm: Confirm,
}

/// Which keys a listing is of, and in which order. All of them, ascending, where nothing is said.
///
/// ```
/// use stubborn::List;
///
/// let latest = List::prefix("message/").reverse().limit(20);
/// assert_ne!(latest, List::all());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "it says what to list"]
pub struct List {
    prefix: String,
    from: Option<Bound<String>>,
    end: Option<String>,
    reverse: bool,
    limit: Option<usize>,
}

impl List {
    /// All keys.
    pub fn all() -> Self {
        Self::default()
    }

    /// The keys that begin with `prefix`.
    pub fn prefix(prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into(), ..Self::default() }
    }

    /// Only keys from `start` on, itself included.
    pub fn start(mut self, start: impl Into<String>) -> Self {
        self.from = Some(Bound::Included(start.into()));
        self
    }

    /// Only keys behind `start`, itself not included.
    pub fn start_after(mut self, start: impl Into<String>) -> Self {
        self.from = Some(Bound::Excluded(start.into()));
        self
    }

    /// Only keys before `end`, itself not included.
    pub fn end(mut self, end: impl Into<String>) -> Self {
        self.end = Some(end.into());
        self
    }

    /// From the last key to the first.
    pub fn reverse(mut self) -> Self {
        self.reverse = true;
        self
    }

    /// At most `limit` keys, and at least one.
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = Some(limit);
        self
    }

    fn span(&self) -> Span {
        let prefix = self.prefix.as_bytes();
        let mut from = Bound::Included(prefix.to_vec());
        match &self.from {
            Some(Bound::Included(start)) if start.as_bytes() > prefix => {
                from = Bound::Included(start.clone().into_bytes());
            }
            Some(Bound::Excluded(start)) if start.as_bytes() >= prefix => {
                from = Bound::Excluded(start.clone().into_bytes());
            }
            _ => {}
        }
        let behind = crate::storage::row::successor(prefix);
        let end = self.end.clone().map(String::into_bytes);
        let to = [behind, end].into_iter().flatten().min();
        Span { from, to: to.map_or(Bound::Unbounded, Bound::Excluded) }
    }

    fn order(&self) -> Order {
        if self.reverse { Order::Descending } else { Order::Ascending }
    }
}

/// A point in the history of an object's storage. Prints and parses as text that orders as time does.
///
/// ```
/// let text = "0000019a0f3b2c1d";
/// assert_eq!(text.parse::<stubborn::Bookmark>()?.to_string(), text);
/// assert!(["1d", "+000019a0f3b2c1d"].iter().all(|text| text.parse::<stubborn::Bookmark>().is_err()));
/// # Ok::<_, stubborn::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bookmark(u64);

impl std::fmt::Display for Bookmark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl std::str::FromStr for Bookmark {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong =
            || Error::invalid_request(format!("{text:?} is no bookmark: it has 16 hex digits"));
        if text.len() != 16 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        u64::from_str_radix(text, 16).map(Self).map_err(|_| wrong())
    }
}

impl Storage {
    /// Makes the storage of the object that `control` runs.
    pub(crate) fn new(control: Rc<dyn Control>) -> Self {
        Self { control, confirm: Confirm::Yes }
    }

    fn inner(&self) -> Result<Rc<ObjectStorage>> {
        self.control.storage()
    }

    /// Returns the same storage, for writes that nothing waits for: what the object says next may be seen
    /// before they are durable, and be wrong if they are lost. For what is cheap to lose.
    pub fn unconfirmed(&self) -> Self {
        Self { confirm: Confirm::No, ..self.clone() }
    }

    /// Returns the value of `key`; none where there is none.
    ///
    /// # Errors
    /// *failed* where the value is no `T`, or the object was reset.
    pub fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>> {
        let Some(stored) = self.inner()?.get(checked(key)?)? else { return Ok(None) };
        value::decode(&stored).map(Some).map_err(|error| of_key(key, error))
    }

    /// Returns the values of those of `keys` that have one, in the order of `keys`.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn get_many<T: DeserializeOwned>(&self, keys: &[&str]) -> Result<Vec<(String, T)>> {
        let mut values = Vec::new();
        for key in keys {
            values.extend(self.get(key)?.map(|value| ((*key).to_owned(), value)));
        }
        Ok(values)
    }

    /// Has `key` hold `value`.
    ///
    /// # Errors
    /// *failed* where the key or the value is too long, the value can't be serialized, the transaction gets too
    /// large, or the object was reset; *overloaded* where the disk is too far behind. Then nothing was written.
    pub fn put<T: Serialize + ?Sized>(&self, key: &str, value: &T) -> Result<()> {
        let encoded = value::encode(value).map_err(|error| of_key(key, error))?;
        self.set(key, encoded)
    }

    /// Has each key hold its value: all of them, or none where one can't be written.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn put_many<T: Serialize>(&self, values: &[(&str, T)]) -> Result<()> {
        self.transaction_sync(|| values.iter().try_for_each(|(key, value)| self.put(key, value)))
    }

    /// Returns the bytes that `key` holds; none where it holds nothing.
    ///
    /// # Errors
    /// *failed* where it holds neither bytes nor text, or the object was reset.
    pub fn get_bytes(&self, key: &str) -> Result<Option<Bytes>> {
        let Some(stored) = self.inner()?.get(checked(key)?)? else { return Ok(None) };
        value::decode_bytes(stored).map(Some).map_err(|error| of_key(key, error))
    }

    /// Has `key` hold `bytes` as they are.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn put_bytes(&self, key: &str, bytes: &[u8]) -> Result<()> {
        self.set(key, value::encode_bytes(bytes))
    }

    fn set(&self, key: &str, encoded: Bytes) -> Result<()> {
        let bytes = checked(key)?;
        if bytes.len() + encoded.len() > VALUE_BYTES_MAX {
            let length = bytes.len() + encoded.len();
            return Err(Error::failed(format!(
                "key {key:?} and its value have {length} bytes, of at most {VALUE_BYTES_MAX}"
            )));
        }
        self.inner()?.set(bytes, Some(encoded), self.confirm)
    }

    /// Has `key` hold nothing; returns whether it held something.
    ///
    /// # Errors
    /// *failed* where the object was reset.
    pub fn delete(&self, key: &str) -> Result<bool> {
        let inner = self.inner()?;
        let existed = inner.get(checked(key)?)?.is_some();
        if existed {
            inner.set(key.as_bytes(), None, self.confirm)?;
        }
        Ok(existed)
    }

    /// Has each key hold nothing; returns how many held something.
    ///
    /// # Errors
    /// As [`delete`](Self::delete); then none is deleted.
    pub fn delete_many(&self, keys: &[&str]) -> Result<usize> {
        self.transaction_sync(|| {
            keys.iter().try_fold(0, |count, key| Ok(count + usize::from(self.delete(key)?)))
        })
    }

    /// Returns the keys and values that `list` is of, in order.
    ///
    /// # Errors
    /// *failed* where a value is no `T`, the limit is 0, or the object was reset.
    pub fn list<T: DeserializeOwned>(&self, list: &List) -> Result<Vec<(String, T)>> {
        let mut values = Vec::new();
        let mut failure = None;
        self.visit(list, &mut |key, stored| {
            match value::decode(&stored) {
                Ok(value) => values.push((key.to_owned(), value)),
                Err(error) => failure = Some(of_key(key, error)),
            }
            if failure.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        failure.map_or(Ok(values), Err)
    }

    /// Returns the keys that `list` is of, in order, without looking at their values.
    ///
    /// # Errors
    /// *failed* where the limit is 0, or the object was reset.
    pub fn keys(&self, list: &List) -> Result<Vec<String>> {
        let mut keys = Vec::new();
        self.visit(list, &mut |key, _| {
            keys.push(key.to_owned());
            ControlFlow::Continue(())
        })?;
        Ok(keys)
    }

    fn visit(
        &self,
        list: &List,
        visit: &mut dyn FnMut(&str, Bytes) -> ControlFlow<()>,
    ) -> Result<()> {
        let mut left = list.limit.unwrap_or(usize::MAX);
        if left == 0 {
            return Err(Error::failed("a listing with limit 0: it must be at least 1"));
        }
        self.inner()?.visit(&list.span(), list.order(), &mut |key, value| {
            left -= 1;
            // Only text is ever a key.
            let flow = match std::str::from_utf8(key) {
                Ok(key) => visit(key, value),
                Err(_) => ControlFlow::Continue(()),
            };
            if left == 0 { ControlFlow::Break(()) } else { flow }
        })
    }

    /// Returns the object's own SQL database.
    pub fn sql(&self) -> Sql {
        Sql::new(self.clone())
    }

    /// Uses the SQL database.
    pub(super) fn with_sql<T>(&self, work: impl FnOnce(&Database) -> Result<T>) -> Result<T> {
        self.inner()?.with_sql(self.confirm, work)
    }

    /// Has nothing be stored any more, the alarm and the SQL database included.
    ///
    /// # Errors
    /// *failed* inside a transaction, while a statement's rows are visited, or where the object was reset.
    pub fn delete_all(&self) -> Result<()> {
        self.inner()?.clear(self.confirm)
    }

    /// Runs `work` as a transaction: where it fails, nothing that it wrote was ever written. No other event
    /// enters the object meanwhile. Transactions may nest.
    ///
    /// What `work` says is not held for what it writes itself, which is not decided yet. What the same handler
    /// writes beside it (`join!`) is part of it. What it waits for must not need another handler, task or body of
    /// the object: none of them goes on before it ends. Where it takes over 30 s
    /// ([`critical_section_timeout`](crate::Limits::critical_section_timeout)), the object is reset, and the handler
    /// that waits here is dropped. The time is watched while the returned future is polled: one that is kept and not
    /// polled holds up the object for as long.
    ///
    /// # Errors
    /// The error of `work`; *failed* where the object was reset.
    ///
    /// # Cancel safety
    /// Dropping the future drops `work`, and nothing that it wrote was ever written.
    pub async fn transaction<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let section = self.section()?;
        section.entered().await;
        let inner = self.inner()?;
        // What was written before is no part of it: what `work` says, and may wait for an answer to, waits for
        // that alone.
        inner.flush()?;
        let open = Open::begin(inner)?;
        let value = run_within(&*self.control, "a transaction", &section, work).await?;
        open.commit()?;
        Ok(value)
    }

    /// Runs `work` as a transaction, as [`transaction`](Self::transaction) does, without waiting.
    ///
    /// # Errors
    /// The error of `work`; *failed* where the object was reset.
    pub fn transaction_sync<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let open = Open::begin(self.inner()?)?;
        let value = work()?;
        open.commit()?;
        Ok(value)
    }

    fn section(&self) -> Result<Section> {
        let section = self.control.begin_section();
        section.ok_or_else(|| Error::failed("critical sections are nested too deep"))
    }

    /// Waits until everything that was written so far is durable, unconfirmed writes too. No other event
    /// enters the object meanwhile. (What the object says waits for its writes by itself.)
    ///
    /// # Errors
    /// Why it never will be; the object is then reset. *failed* inside a transaction.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn sync(&self) -> Result<()> {
        let section = self.section()?;
        section.entered().await;
        let synced = self.inner()?.synced();
        section.run(synced).await
    }

    /// Returns when the alarm will ring, in milliseconds since 1970; none where it is not set.
    ///
    /// While the alarm rings it is not set, unless it was set anew.
    ///
    /// # Errors
    /// *failed* where the object was reset.
    pub fn get_alarm(&self) -> Result<Option<u64>> {
        self.inner()?.alarm()
    }

    /// Sets the alarm to ring at `unix_ms`, milliseconds since 1970; at once, where that is past. It replaces
    /// the one that was set. See [`DurableObject::alarm`](super::DurableObject::alarm).
    ///
    /// # Errors
    /// *failed* where the object was reset.
    pub fn set_alarm(&self, unix_ms: u64) -> Result<()> {
        self.inner()?.set_alarm(Some(unix_ms), self.confirm)
    }

    /// Clears the alarm. One that rings already rings on.
    ///
    /// # Errors
    /// *failed* where the object was reset.
    pub fn delete_alarm(&self) -> Result<()> {
        self.inner()?.set_alarm(None, self.confirm)
    }

    /// Returns a bookmark of this moment: everything written so far is before it. What was written in this turn
    /// becomes durable as one, and what is written later in it as another.
    ///
    /// # Errors
    /// *failed* inside a transaction, where no history is kept, or where the object was reset.
    pub fn bookmark(&self) -> Result<Bookmark> {
        self.inner()?.bookmark().map(Bookmark)
    }

    /// Returns the bookmark of a moment, in milliseconds since 1970, to within ten seconds.
    ///
    /// # Errors
    /// *failed* for a time to come, or further back than history is kept, or was kept without a break.
    pub fn bookmark_at(&self, unix_ms: u64) -> Result<Bookmark> {
        self.inner()?.bookmark_at(unix_ms).map(Bookmark)
    }

    /// Has the object's values and SQL database be, from its next start on, what they were at `bookmark`
    /// ([`State::abort`](super::State::abort) has it start again). The alarm stays as it is. Returns the
    /// bookmark that undoes it, and is one of this moment, as [`bookmark`](Self::bookmark) makes it.
    ///
    /// # Errors
    /// *failed* where that is further back than history is kept, or was kept without a break; inside a transaction,
    /// or where the object was reset.
    pub fn restore_at_next_start(&self, bookmark: Bookmark) -> Result<Bookmark> {
        self.inner()?.restore(bookmark.0).map(Bookmark)
    }
}

impl std::fmt::Debug for Storage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Storage").field("confirm", &self.confirm).finish_non_exhaustive()
    }
}

/// A transaction that is open. Dropping it rolls it back.
struct Open {
    storage: Rc<ObjectStorage>,
    committed: bool,
}

impl Open {
    fn begin(storage: Rc<ObjectStorage>) -> Result<Self> {
        storage.begin()?;
        Ok(Self { storage, committed: false })
    }

    fn commit(mut self) -> Result<()> {
        self.storage.commit()?;
        self.committed = true;
        Ok(())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if !self.committed {
            self.storage.roll_back();
        }
    }
}

fn checked(key: &str) -> Result<&[u8]> {
    match key.len() {
        0..=KEY_BYTES_MAX => Ok(key.as_bytes()),
        length => Err(Error::failed(format!(
            "key \"{key:.40}…\" has {length} bytes, of at most {KEY_BYTES_MAX}"
        ))),
    }
}

fn of_key(key: &str, error: Error) -> Error {
    Error { message: format!("key {key:?}: {}", error.message), ..error }
}

/// Bytes of a key.
const KEY_BYTES_MAX: usize = 2_048;
/// Bytes of a key and its value.
const VALUE_BYTES_MAX: usize = 2 << 20;
