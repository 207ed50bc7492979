//! The client of stubborn: what a program names that calls objects, and nothing of what hosts them.
//!
//! Connecting, finding an object by its name and sending it a request cost one round trip:
//!
//! ```
//! use stubborn_client::{Client, Result};
//!
//! async fn greet(address: &str) -> Result<String> {
//!     let client = Client::connect(address).await?;
//!     let lobby = client.namespace("HELLO").get_by_name("lobby");
//!     let response = lobby.fetch("http://do/greeting").await?;
//!     response.into_body().text().await
//! }
//! # use stubborn::{DurableObject, Env, Request, Response, Server, State, respond};
//! # struct Hello;
//! # impl DurableObject for Hello {
//! #     async fn new(_: State, _: Env) -> Result<Self> { Ok(Self) }
//! #     async fn fetch(&self, _: Request) -> Result<Response> { Ok(respond::text("hello")) }
//! # }
//! # let mut runtime = tokio::runtime::Builder::new_current_thread();
//! # let runtime = runtime.enable_all().build_local(Default::default())?;
//! # runtime.block_on(async {
//! #     let server = Server::builder().namespace::<Hello>("HELLO").listen("127.0.0.1:0")?;
//! #     let server = server.start().await?;
//! #     assert_eq!(greet(&server.addresses()[0].to_string()).await?, "hello");
//! #     Ok::<(), stubborn_client::Error>(())
//! # })?;
//! # Ok::<(), stubborn_client::Error>(())
//! ```
//!
//! A [`Client`] belongs to one thread, as everything of Cap'n Proto does: it wants a
//! [`tokio::runtime::LocalRuntime`] or a [`tokio::task::LocalSet`]. A program of many threads takes
//! [`send::Client`] instead, which has the same methods.
//!
//! An object's typed interface is its author's own schema, which imports `/stubborn.capnp`. Compile it with
//! `capnpc` (the directory to import from is in `DEP_STUBBORN_CLIENT_INCLUDE`) and
//! `crate_provides("stubborn_client", [0xd9d54ba743abcc01])`, and cast the stub
//! to it ([`Stub::cast`]).

pub mod send;

pub use http;
pub use stubborn::body::{self, Body, BodyWriter};
pub use stubborn::error::{self, Error, Kind, Result};
pub use stubborn::message::{self, IntoRequest, Request, Response, ResponseExt};
pub use stubborn::redirect;
pub use stubborn::socket::{self, Closed, Message, WebSocket};
pub use stubborn::stub::{
    Address, Client, Fetch, Namespace, NamespaceInfo, ObjectInfo, Opening, Page, Retry, Stub,
    Target,
};
pub use stubborn::{Limits, ObjectId};

#[doc(hidden)]
pub use stubborn::{REVISION, byte_stream_capnp, stubborn_capnp};
