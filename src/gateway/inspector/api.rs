//! What the page asks for.

use std::rc::Rc;

use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::shape::{
    Answer, Counted, Ended, Event, Events, Live, Namespace, Object, Objects, Page, Server, Whole,
};
use crate::error::{Error, Kind, Result};
use crate::gateway::door::GatewayDoor;
use crate::gateway::failure::{self, json};
use crate::gateway::params::{self, Params, of_hex};
use crate::message::Response;
use crate::runtime::{self, Key, Shard, Wanted};

/// Answers what there is.
pub(super) async fn namespaces(shard: &Rc<Shard>, door: &GatewayDoor) -> Result<Response> {
    let tallies = runtime::live(shard).await?;
    let all = shard.namespaces().all().iter().zip(tallies);
    let namespaces = all.map(|(config, tally)| Namespace {
        name: config.name().to_owned(),
        class: config.class().name().to_owned(),
        exposed: door.routes().exposed(config.name()).is_some(),
        in_memory: tally.in_memory,
    });
    answer(&Server {
        version: env!("CARGO_PKG_VERSION"),
        threads: shard.placement().shards(),
        writes: door.inspector_writes(),
        bounds_us: runtime::latency_bounds_us(),
        namespaces: namespaces.collect(),
    })
}

/// Answers what is counted since the server began.
pub(super) async fn live(shard: &Rc<Shard>) -> Result<Response> {
    let tallies = runtime::live(shard).await?;
    let all = shard.namespaces().all().iter().zip(tallies);
    let namespaces = all.map(|(config, tally)| Counted::new(config.name(), tally)).collect();
    answer(&Live { at_ms: shard.storages().rules().clock.unix_ms(), namespaces })
}

/// Answers a page of objects, or those whose name or id is `find`.
pub(super) async fn objects(shard: &Rc<Shard>, params: &Params) -> Result<Response> {
    let namespace = params.namespace(shard)?;
    if let Some(wanted) = params.text("find") {
        let objects = find(shard, namespace, wanted).await?;
        return answer(&Objects { objects, cursor: None });
    }
    let limit = params.number("limit", OBJECTS, 1..=OBJECTS_MAX)?;
    let page = runtime::gather(shard, namespace, limit, params.after()?).await?;
    let cursor = page.next.map(|next| next.to_string());
    answer(&Objects { objects: page.objects.into_iter().map(Object::from).collect(), cursor })
}

async fn find(shard: &Rc<Shard>, namespace: usize, wanted: &str) -> Result<Vec<Object>> {
    let ids = shard.namespaces().at(namespace).ids();
    let by_id = ids.id_from_string(wanted).ok();
    let mut found = Vec::new();
    for id in by_id.into_iter().chain([ids.id_from_name(wanted)]) {
        let details = runtime::look(shard, Key { namespace, id }).await?;
        if details.is_recorded || details.in_memory {
            found.push(Object {
                id: id.to_string(),
                name: details.name,
                in_memory: details.in_memory,
                has_stored_data: details.has_stored_data,
            });
        }
    }
    Ok(found)
}

/// Answers what there is to know of one object.
pub(super) async fn object(shard: &Rc<Shard>, params: &Params) -> Result<Response> {
    let key = params.object(shard)?;
    answer(&Whole::new(key.id.to_string(), runtime::look(shard, key).await?))
}

/// Answers a page of an object's keys and values.
pub(super) async fn values(shard: &Rc<Shard>, params: &Params) -> Result<Response> {
    let key = params.object(shard)?;
    let limit = params.number("limit", VALUES, 1..=VALUES_MAX)?;
    let prefix = params.text("prefix").unwrap_or_default().as_bytes().to_vec();
    let after = params.text("cursor").map(of_hex).transpose()?;
    answer(&Page::from(runtime::values(shard, key, prefix, after, limit).await?))
}

/// Answers the last troubles and events: of all, of a namespace, or of one object.
pub(super) async fn events(shard: &Rc<Shard>, params: &Params) -> Result<Response> {
    let limit = params.number("limit", EVENTS, 1..=EVENTS_MAX)?;
    let namespace = match params.text("namespace") {
        Some(_) => Some(params.namespace(shard)?),
        None => None,
    };
    let object = params.text("id").map(|_| params.object(shard)).transpose()?;
    let wanted = Wanted { namespace, object };
    let troubles = runtime::troubles(shard, wanted, limit).await?;
    let events = troubles
        .into_iter()
        .map(|trouble| Event::new(shard.namespaces().at(trouble.key.namespace).name(), trouble));
    let events = events.collect();
    let recent = runtime::recent(shard, wanted, limit.min(RECENT)).await?;
    let recent = recent
        .into_iter()
        .map(|one| Ended::new(shard.namespaces().at(one.event.key.namespace).name(), one));
    answer(&Events { events, recent: recent.collect() })
}

/// A statement for an object's database.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Statement {
    namespace: String,
    id: String,
    sql: String,
    /// Whether it changes what is stored.
    #[serde(default)]
    change: bool,
}

/// Runs a statement and answers its first rows.
pub(super) async fn sql(shard: &Rc<Shard>, door: &GatewayDoor, body: &[u8]) -> Result<Response> {
    let Statement { namespace, id, sql, change } = serde_json::from_slice(body)
        .map_err(|error| Error::invalid_request(format!("the body: {error}")))?;
    let key = params::key(shard, &namespace, &id)?;
    if change && !door.inspector_writes() {
        let told = format!("{ONLY_READS}: gateway.inspector_writes is not set");
        return Ok(failure::refusal(StatusCode::FORBIDDEN, Kind::InvalidRequest, told));
    }
    let ran = match change {
        true => runtime::change(shard, key, sql, ROWS_MAX).await,
        false => runtime::rows(shard, key, sql, ROWS_MAX).await,
    };
    match ran {
        Ok(rows) => answer(&Answer::from(rows)),
        // What is wrong with a statement is not the server's fault.
        Err(error) if error.kind == Kind::Failed => {
            let told = error.message.replace(EACH_ONLY_READS, ONLY_READS);
            Ok(failure::refusal(StatusCode::BAD_REQUEST, Kind::InvalidRequest, told))
        }
        Err(error) => Err(error),
    }
}

fn answer(value: &impl Serialize) -> Result<Response> {
    Ok(json(StatusCode::OK, value))
}

/// Objects on one page.
const OBJECTS: usize = 100;
const OBJECTS_MAX: usize = 1_000;
/// Values on one page.
const VALUES: usize = 50;
const VALUES_MAX: usize = 200;
/// Troubles that are told.
const EVENTS: usize = 100;
const EVENTS_MAX: usize = 1_000;
/// Events that are told, well or not.
const RECENT: usize = 50;
/// Rows of one statement.
const ROWS_MAX: usize = 200;
/// What is said of a last statement that writes, to an author and here.
const EACH_ONLY_READS: &str = "`each` only reads: use `exec`";
const ONLY_READS: &str = "the inspector only reads";
