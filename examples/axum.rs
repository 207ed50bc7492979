//! An axum `Router` that serves inside an object: each object has its own routes and state.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::extract::State as Shared;
use axum::http::StatusCode;
use axum::routing::{get, post};
use stubborn::{Body, DurableObject, Env, Request, Response, Result, Server, ServerBuilder, State};
use tower::ServiceExt;

struct Counter {
    routes: Router,
}

impl DurableObject for Counter {
    async fn new(_state: State, _env: Env) -> Result<Self> {
        // axum's own state must be `Send`, though the object's need not be.
        let count = Arc::new(AtomicU64::new(0));
        let routes = Router::new()
            .route("/", get(read))
            .route("/increment", post(increment))
            .with_state(count);
        Ok(Self { routes })
    }

    async fn fetch(&self, request: Request) -> Result<Response> {
        let response = match self.routes.clone().oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        Ok(response.map(Body::new))
    }
}

async fn read(Shared(count): Shared<Arc<AtomicU64>>) -> String {
    count.load(Ordering::Relaxed).to_string()
}

async fn increment(
    Shared(count): Shared<Arc<AtomicU64>>,
    body: String,
) -> Result<String, (StatusCode, String)> {
    let bad = |error| (StatusCode::BAD_REQUEST, format!("`{body}`: {error}"));
    let by = body.parse::<u64>().map_err(bad)?;
    Ok((count.fetch_add(by, Ordering::Relaxed) + by).to_string())
}

pub(crate) fn server() -> ServerBuilder {
    Server::builder().namespace::<Counter>("COUNTER")
}

#[tokio::main]
async fn main() -> Result<()> {
    server().listen("127.0.0.1:7400")?.run().await
}
