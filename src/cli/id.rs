//! `stubborn id`.

use super::args::{Id, Which};
use super::output;
use crate::entropy::Entropy;
use crate::error::{Error, Result};
use crate::id::{NamespaceKey, ObjectId};
use crate::limits::Limits;
use crate::stub::Client;

/// Prints the 64 digits alone.
pub async fn run(args: Id) -> anyhow::Result<i32> {
    let id = match &args.unique_key {
        Some(key) => compute(&args.which, &NamespaceKey::new(key))?,
        None => ask(&args).await?,
    };
    output::write(format!("{id}\n")).await?;
    Ok(0)
}

fn compute(which: &Which, key: &NamespaceKey) -> Result<ObjectId> {
    match which {
        Which { name: Some(name), .. } => Ok(key.id_from_name(name)),
        Which { hex: Some(hex), .. } => key.id_from_string(hex),
        Which { unique: true, .. } => Ok(key.new_unique_id(Entropy::system().bytes())),
        Which { .. } => Err(unsaid()),
    }
}

async fn ask(args: &Id) -> Result<ObjectId> {
    let client = Client::connect_with(&args.server.connect, Limits::default()).await?;
    let namespace = client.namespace(&args.namespace);
    match &args.which {
        Which { name: Some(name), .. } => namespace.id_from_name(name).await,
        Which { hex: Some(hex), .. } => namespace.id_from_string(hex).await,
        Which { unique: true, .. } => namespace.new_unique_id().await,
        Which { .. } => Err(unsaid()),
    }
}

fn unsaid() -> Error {
    Error::invalid_request("which id? --name, --hex or --unique")
}
