//! `stubborn namespaces` and `stubborn objects`.
//!
//! **Invariant:** a listing of any length is printed in bounded memory, a page at a time.

use serde::Serialize;

use super::args::{Connect, Objects};
use super::failure;
use super::output;
use crate::limits::Limits;
use crate::stub::{Client, ObjectInfo, Page};

/// Prints the name and the class of each namespace.
pub async fn namespaces(args: Connect) -> anyhow::Result<i32> {
    let client = Client::connect_with(&args.connect, Limits::default()).await?;
    let namespaces = client.namespaces().await?;
    let line = |name: &str, class: &str| format!("{}\t{class}\n", name.escape_debug());
    let lines = namespaces.iter().map(|namespace| line(&namespace.name, &namespace.class));
    output::write(lines.collect::<String>()).await?;
    Ok(0)
}

/// An object in JSON, with the names that the platform uses.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Listed<'a> {
    id: String,
    name: Option<&'a str>,
    has_stored_data: bool,
}

/// Prints the objects of a namespace: all of them, or as many as were asked for.
pub async fn objects(args: Objects) -> anyhow::Result<i32> {
    let client = Client::connect_with(&args.server.connect, Limits::default()).await?;
    let namespace = client.namespace(&args.namespace);
    let mut left = args.limit.map(u32::from);
    let mut cursor = args.cursor.clone();
    let mut first = true;
    loop {
        let limit = left.unwrap_or(PAGE).min(PAGE);
        let page = namespace.list(limit, cursor.as_deref()).await?;
        let listed = u32::try_from(page.objects.len()).unwrap_or(u32::MAX);
        output::write(if args.json { json(&page, first)? } else { text(&page) }).await?;
        first = false;
        left = left.map(|left| left.saturating_sub(listed));
        cursor = page.cursor;
        if cursor.is_none() || left == Some(0) {
            break;
        }
    }
    if args.json {
        output::write(format!("],\"cursor\":{}}}\n", serde_json::to_string(&cursor)?)).await?;
    } else if let Some(cursor) = cursor {
        failure::output(&format!("there are more: --cursor {cursor}\n"));
    }
    Ok(0)
}

/// Returns a line for each object.
fn text(page: &Page) -> String {
    let line = |object: &ObjectInfo| match &object.name {
        Some(name) => format!("{}\t{}\n", object.id, name.escape_debug()),
        None => format!("{}\n", object.id),
    };
    page.objects.iter().map(line).collect()
}

/// Returns the next part of one JSON document.
fn json(page: &Page, first: bool) -> serde_json::Result<String> {
    let mut text = String::from(if first { "{\"objects\":[" } else { "" });
    for (index, object) in page.objects.iter().enumerate() {
        if !first || index > 0 {
            text.push(',');
        }
        text.push_str(&serde_json::to_string(&Listed {
            id: object.id.to_string(),
            name: object.name.as_deref(),
            has_stored_data: object.has_stored_data,
        })?);
    }
    Ok(text)
}

/// Objects that are asked for at a time.
const PAGE: u32 = 1_000;
