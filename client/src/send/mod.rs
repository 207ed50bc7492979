//! The client for programs of many threads: what is here is `Send`, `Sync` and `Clone`.
//!
//! One thread owns the connection; what is here posts to it. The names are those of the client for
//! one thread, so that a program which outgrows one thread changes its `use` lines and little else: hence
//! a module that tells the two apart, and not a prefix on every type. The futures ask for no runtime.
//!
//! ```
//! use stubborn_client::{Result, send::Client};
//!
//! async fn both(address: &str) -> Result<()> {
//!     let namespace = Client::connect(address).await?.namespace("HELLO");
//!     let calls = ["ann", "bob"].map(|name| {
//!         let stub = namespace.get_by_name(name);
//!         tokio::spawn(async move { stub.fetch("http://do/").await })
//!     });
//!     for call in calls {
//!         assert_eq!(call.await.expect("no task panicked")?.status(), 200);
//!     }
//!     Ok(())
//! }
//! # use stubborn::{DurableObject, Env, Request, Response, Server, State, respond};
//! # struct Hello;
//! # impl DurableObject for Hello {
//! #     async fn new(_: State, _: Env) -> Result<Self> { Ok(Self) }
//! #     async fn fetch(&self, _: Request) -> Result<Response> { Ok(respond::text("hello")) }
//! # }
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! #     let server = Server::builder().namespace::<Hello>("HELLO").listen("127.0.0.1:0")?;
//! #     let server = server.start().await?;
//! #     both(&server.addresses()[0].to_string()).await
//! # })?;
//! # Ok::<(), stubborn_client::Error>(())
//! ```
//!
//! **Invariant:** calls made on one stub are posted, sent and delivered in the order in which they were
//! made: from one thread, or from several of which one made its call after it knew of the other's.
//! **Invariant:** nothing here waits for the owner's thread under a lock, and at most `connection_calls_max`
//! (of [`Limits`](crate::Limits)) calls are unanswered; a further one fails *overloaded* at once.

mod call;
mod client;
mod namespace;
mod owner;
mod queue;
mod shared;
mod stub;

pub use call::{Call, Fetch};
pub use client::Client;
pub use namespace::Namespace;
pub use stub::Stub;
