//! An object that remembers: its visitors, the last of them in SQL, and an alarm that forgets them.
//! `cargo run --example durable`, then `stubborn fetch GUESTS book 'http://do/?name=ann' -X POST`.

use stubborn::{
    AlarmInfo, DurableObject, Env, Request, Response, Result, Server, ServerBuilder, State, respond,
};

struct Guests(State);

impl DurableObject for Guests {
    async fn new(state: State, _env: Env) -> Result<Self> {
        let table = "CREATE TABLE IF NOT EXISTS visits (id INTEGER PRIMARY KEY, name TEXT)";
        state.storage().sql().exec(table, ())?;
        Ok(Self(state))
    }

    async fn fetch(&self, request: Request) -> Result<Response> {
        let storage = self.0.storage();
        let name = request.uri().query().and_then(|query| query.strip_prefix("name="));
        if let Some(name) = name {
            // No await, no lock: both are stored together, and answered for only when they are.
            let count = storage.get::<u64>("count")?.unwrap_or(0) + 1;
            storage.put("count", &count)?;
            storage.sql().exec("INSERT INTO visits (name) VALUES (?1)", (name,))?;
            storage.set_alarm(self.0.now_ms() + FORGET_AFTER_MS)?;
        }
        let count = storage.get::<u64>("count")?.unwrap_or(0);
        let last = storage.sql().exec("SELECT name FROM visits ORDER BY id DESC LIMIT 3", ())?;
        let names = last.map(|row| row.get("name")).collect::<Result<Vec<String>>>()?;
        Ok(respond::text(format!("{count} visits, the last by {}", names.join(", "))))
    }

    async fn alarm(&self, _alarm: AlarmInfo) -> Result<()> {
        self.0.storage().sql().exec("DELETE FROM visits", ())?;
        Ok(())
    }
}

/// How long guests are remembered after the last visit.
const FORGET_AFTER_MS: u64 = 30 * 24 * 3600 * 1000;

pub(crate) fn server(data: &str) -> ServerBuilder {
    Server::builder().namespace::<Guests>("GUESTS").data(data)
}

#[tokio::main]
async fn main() -> Result<()> {
    server("./guests-data").listen("127.0.0.1:7400")?.run().await
}
