//! Runs every example in Rust. They are compiled in here, so that what is tested is never an old binary.

#![cfg(test)]

macro_rules! examples {
    ($($name:ident = $path:literal),* $(,)?) => {$(
        #[path = $path]
        #[expect(dead_code, reason = "an example's `main` is for a person")]
        mod $name;
    )*};
}

examples!(
    axum_router = "../examples/axum.rs",
    client = "../examples/client.rs",
    durable = "../examples/durable.rs",
    hello = "../examples/hello.rs",
    send = "../examples/send.rs",
);

#[path = "../examples/typed.rs"]
mod typed;

use stubborn::{Server, ServerBuilder};
use stubborn_client::{http, send as many};

async fn start(server: ServerBuilder) -> (Server, String) {
    let server = server.listen("127.0.0.1:0").unwrap().start().await.unwrap();
    let address = server.addresses()[0].to_string();
    (server, address)
}

#[tokio::test(flavor = "local")]
async fn a_client_is_greeted_by_the_object_of_that_name() {
    let (_server, address) = start(hello::server()).await;
    assert_eq!(client::greeting(&address, "lobby").await.unwrap(), "hello from lobby");
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_on_many_threads_share_a_connection() {
    let (_server, address) = start(hello::server()).await;
    let greetings = send::greetings(&address, &["ann", "bob"]).await.unwrap();
    assert_eq!(greetings, ["hello from ann", "hello from bob"]);
}

#[tokio::test]
async fn an_object_remembers_its_guests_when_the_server_starts_again() {
    let data = std::env::temp_dir().join(format!("stubborn-guests-{}", std::process::id()));
    let data = data.to_str().unwrap();
    for (url, told) in [
        ("http://do/?name=ann", "1 visits, the last by ann"),
        ("http://do/?name=bob", "2 visits, the last by bob, ann"),
        ("http://do/", "2 visits, the last by bob, ann"),
    ] {
        let (server, address) = start(durable::server(data)).await;
        let client = many::Client::connect(&address).await.unwrap();
        let stub = client.namespace("GUESTS").get_by_name("book");
        let response = stub.fetch(http::Request::get(url).body("").unwrap()).await.unwrap();
        assert_eq!(response.into_body().text().await.unwrap(), told);
        server.stop().await;
    }
    std::fs::remove_dir_all(data).unwrap();
}

#[test]
fn a_typed_interface_passes_capabilities_both_ways() {
    typed::main().unwrap();
}

#[tokio::test]
async fn an_axum_router_serves_inside_an_object() {
    let (_server, address) = start(axum_router::server()).await;
    let client = many::Client::connect(&address).await.unwrap();
    let stub = client.namespace("COUNTER").get_by_name("axum");
    let post = |body| http::Request::post("http://do/increment").body(body).unwrap();
    for (request, status, text) in [
        (post("2"), 200, "2"),
        (post("3"), 200, "5"),
        (post("x"), 400, "`x`: invalid digit found in string"),
        (http::Request::get("http://do/").body("").unwrap(), 200, "5"),
        (http::Request::get("http://do/nowhere").body("").unwrap(), 404, ""),
    ] {
        let response = stub.fetch(request).await.unwrap();
        assert_eq!(response.status(), status);
        assert_eq!(response.into_body().text().await.unwrap(), text);
    }
}
