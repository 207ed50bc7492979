//! `stubborn storage`: looks into what is stored of an object, while a server runs or not.
//!
//! **Invariant:** nothing that is stored is changed.

use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::rc::Rc;

use super::args::Storage;
use super::output;
use crate::error::{Error, Kind, Result};
use crate::id::NamespaceKey;
use crate::storage::engine::{Order, Store};
use crate::storage::record::Record;
use crate::storage::row::{Key, KeyRange, ObjectKey, Table};
use crate::storage::sql::database::Database;
use crate::storage::sql::limits::Limits;
use crate::storage::sql::value::Value;
use crate::storage::sqlite::ReadOnly;
use crate::storage::{StoredPages, readable};

/// Prints what was asked for.
pub async fn run(args: Storage) -> anyhow::Result<i32> {
    let store = Rc::new(ReadOnly::open(&args.data)?);
    let object = find(&store, &args)?;
    // A server may write the object meanwhile.
    store.hold(&object)?;
    let record = store.get(&Key::object(&object))?;
    let Some(record) = record.map(|bytes| Record::decode(&object, &bytes)).transpose()? else {
        let text = format!("nothing is stored of object {} in {}", object.id, args.data.display());
        return Err(Error::new(Kind::NoSuchObject, text).into());
    };
    if let Some(key) = &args.get {
        let Some(stored) = store.get(&Key::value(&object, key.as_bytes()))? else {
            return Err(Error::failed(format!("object {} has no key {key:?}", object.id)).into());
        };
        output::write(format!("{}\n", readable::shown(&stored))).await?;
    } else if args.list {
        list(&*store, &object).await?;
    } else if let Some(statement) = &args.sql {
        output::write(query(store, object, statement)?).await?;
    } else {
        output::write(summary(store, &object, &record)?).await?;
    }
    Ok(0)
}

/// Finds out which object is meant.
fn find(store: &ReadOnly, args: &Storage) -> Result<ObjectKey> {
    let key = NamespaceKey::new(args.unique_key.as_ref().unwrap_or(&args.namespace));
    let spaces = store.spaces()?;
    let fingerprint = key.fingerprint();
    let Some(space) = spaces.iter().find(|space| space.fingerprint == fingerprint) else {
        let names: Vec<_> = spaces.iter().map(|space| space.name.as_str()).collect();
        let hint = match names.contains(&args.namespace.as_str()) {
            true => "its objects have ids of another key: say which with --unique-key".to_owned(),
            false => format!("there is {}", names.join(", ")),
        };
        let text = format!("nothing is stored of namespace {}; {hint}", args.namespace);
        return Err(Error::new(Kind::NoSuchNamespace, text));
    };
    let id = match (&args.id, &args.name) {
        (Some(id), _) => {
            key.check(id)?;
            *id
        }
        (None, Some(name)) => key.id_from_name(name),
        (None, None) => return Err(Error::invalid_request("say which object: NAME or --id HEX")),
    };
    Ok(ObjectKey { space: space.space, id })
}

/// Prints every key and its value, a page at a time.
async fn list(store: &dyn Store, object: &ObjectKey) -> Result<()> {
    let mut range = KeyRange::object(Table::Value, object);
    loop {
        let (mut text, mut last) = (String::new(), None);
        store.scan(&range, Order::Ascending, &mut |key, stored| {
            let name = String::from_utf8_lossy(key.after_object()).into_owned();
            let _ = writeln!(text, "{}\t{}", name.escape_debug(), readable::shown(&stored));
            last = Some(key.bytes().to_vec());
            if text.len() < PAGE_BYTES { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        let Some(last) = last else { return Ok(()) };
        range.from = std::ops::Bound::Excluded(last);
        output::write(text).await?;
    }
}

/// Runs statements on the object's database, and forgets what they change.
fn query(store: Rc<ReadOnly>, object: ObjectKey, statement: &str) -> Result<String> {
    let database = Database::open(Rc::new(StoredPages::new(store, object)), Limits::default())?;
    let mut cursor = database.exec(statement, ())?;
    let mut text = format!("{}\n", cursor.column_names().join("\t"));
    for row in cursor.to_vec() {
        let values: Vec<_> = row.values().iter().map(cell).collect();
        let _ = writeln!(text, "{}", values.join("\t"));
    }
    Ok(text)
}

fn summary(store: Rc<ReadOnly>, object: &ObjectKey, record: &Record) -> Result<String> {
    let (mut keys, mut bytes) = (0_u64, 0);
    store.scan(&KeyRange::object(Table::Value, object), Order::Ascending, &mut |key, stored| {
        keys += 1;
        bytes += key.after_object().len() + stored.len();
        ControlFlow::Continue(())
    })?;
    let pages = StoredPages::new(store, *object);
    let database = Database::open(Rc::new(pages), Limits::default())?.size_bytes();
    let alarm = match record.alarm {
        Some(alarm) => format!("at {} ms, due at {} ms", alarm.scheduled_ms, alarm.due_ms),
        None => "none".to_owned(),
    };
    let name = record.name.as_deref().map_or("none".to_owned(), |name| format!("{name:?}"));
    Ok(format!(
        "id\t{}\nname\t{name}\nkeys\t{keys}\nbytes\t{bytes}\nsql bytes\t{database}\nalarm\t{alarm}\n",
        object.id
    ))
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Integer(number) => number.to_string(),
        Value::Real(number) => number.to_string(),
        Value::Text(text) => text.escape_debug().to_string(),
        Value::Blob(bytes) => readable::bytes(bytes),
    }
}

/// Text that is printed at a time.
const PAGE_BYTES: usize = 64 << 10;
