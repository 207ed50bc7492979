//! A client on many threads: its tasks share one connection to the server of `hello.rs`.

use stubborn_client::Result;
use stubborn_client::send::Client;

pub(crate) async fn greetings(address: &str, names: &[&str]) -> Result<Vec<String>> {
    let namespace = Client::connect(address).await?.namespace("HELLO");
    let tasks: Vec<_> = names
        .iter()
        .map(|name| {
            // Stubs are `Send`: a task may hold its own, or share another's.
            let stub = namespace.get_by_name(name);
            tokio::spawn(async move { stub.fetch("http://do/").await?.into_body().text().await })
        })
        .collect();
    let mut greetings = Vec::new();
    for task in tasks {
        greetings.push(task.await.expect("no task panics")?);
    }
    Ok(greetings)
}

#[tokio::main]
async fn main() -> Result<()> {
    for greeting in greetings("127.0.0.1:7400", &["ann", "bob", "cid"]).await? {
        println!("{greeting}");
    }
    Ok(())
}
