//! A server whose objects greet: `cargo run --example hello`, then `cargo run --example client`.

use stubborn::{DurableObject, Env, Request, Response, Result, Server, ServerBuilder, State};

struct Hello(State);

impl DurableObject for Hello {
    async fn new(state: State, _env: Env) -> Result<Self> {
        Ok(Self(state))
    }
    async fn fetch(&self, _request: Request) -> Result<Response> {
        let name = self.0.name().unwrap_or("nobody".into());
        Ok(stubborn::respond::text(format!("hello from {name}")))
    }
}

pub(crate) fn server() -> ServerBuilder {
    Server::builder().namespace::<Hello>("HELLO")
}

#[tokio::main]
async fn main() -> Result<()> {
    server().listen("127.0.0.1:7400")?.run().await
}
