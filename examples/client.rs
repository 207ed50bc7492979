//! A client: it calls the server of `hello.rs`, in one round trip.

use stubborn_client::{Client, Result};

/// Connecting waits for the connection; what follows is sent together, and answered together.
pub(crate) async fn greeting(address: &str, name: &str) -> Result<String> {
    let client = Client::connect(address).await?;
    let stub = client.namespace("HELLO").get_by_name(name);
    let response = stub.fetch("http://do/").await?;
    response.into_body().text().await
}

#[tokio::main(flavor = "local")]
async fn main() -> Result<()> {
    println!("{}", greeting("127.0.0.1:7400", "lobby").await?);
    Ok(())
}
