//! The objects that are measured: a number that is stored, and one that a bare log keeps.

use std::cell::Cell;
use std::io::Write as _;
use std::num::NonZeroUsize;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use stubborn::storage::sqlite::Sqlite;
use stubborn::{
    DurableObject, Env, Error, Limits, Request, Response, Result, Server, State, bench, respond,
};

use super::Serve;
use super::floors::{Entry, Log};

/// The namespace of the objects that are measured.
pub const NAMESPACE: &str = "COUNTER";
/// The namespace whose objects a bare log keeps.
pub const LOGGED: &str = "LOGGED";

/// Serves both until standard input closes.
pub async fn serve(serve: &Serve) -> Result<()> {
    let threads = NonZeroUsize::new(serve.threads).unwrap_or(NonZeroUsize::MIN);
    let evict_after = Duration::from_secs(3600);
    let limits = Limits { connection_stubs_max: 1 << 20, evict_after, ..Limits::default() };
    let mut builder = Server::builder().namespace::<Counter>(NAMESPACE).limits(limits);
    match (&serve.dir, serve.files, &*serve.subject) {
        (Some(dir), _, "logged") => {
            let _ = LOG.set(Log::start(&dir.join("bare.log"))?);
            builder = builder.namespace::<Logged>(LOGGED);
        }
        (Some(dir), Some(files), _) => {
            builder = builder.store(Arc::new(Sqlite::open_with(dir, files)?));
        }
        (Some(dir), None, _) => builder = builder.data(dir),
        (None, _, _) => {}
    }
    let server = builder.listen("127.0.0.1:0")?.threads(threads).start().await?;
    let address = server.addresses().first();
    let address = address.ok_or_else(|| Error::failed("the server listens nowhere"))?;
    writeln!(std::io::stdout(), "{address}")?;
    bench::parent_gone().await;
    server.stop().await;
    Ok(())
}

/// A number. `POST` adds one and answers the sum, `GET` answers it.
struct Counter {
    state: State,
    value: Cell<i64>,
}

impl DurableObject for Counter {
    async fn new(state: State, _env: Env) -> Result<Self> {
        let value = Cell::new(state.storage().get("value")?.unwrap_or_default());
        Ok(Self { state, value })
    }

    async fn fetch(&self, request: Request) -> Result<Response> {
        if request.method() == http::Method::POST {
            self.value.set(self.value.get() + 1);
            self.state.storage().put("value", &self.value.get())?;
        }
        Ok(respond::text(self.value.get().to_string()))
    }
}

static LOG: OnceLock<Log> = OnceLock::new();

/// A number, too; each sum is appended to the bare log of all, and answered when it is synced.
struct Logged {
    value: Cell<i64>,
}

impl DurableObject for Logged {
    async fn new(_state: State, _env: Env) -> Result<Self> {
        Ok(Self { value: Cell::new(0) })
    }

    async fn fetch(&self, _request: Request) -> Result<Response> {
        self.value.set(self.value.get() + 1);
        let sum = self.value.get().to_string();
        let (told, synced) = tokio::sync::oneshot::channel();
        LOG.get().ok_or_else(|| Error::failed("there is no log"))?.append(Entry::of(told));
        synced.await.map_err(|_| Error::failed("the log ended"))?;
        Ok(respond::text(sum))
    }
}
