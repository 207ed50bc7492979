//! The gRPC echo: its server and its client.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, LocalBoxFuture};
use stubborn::bench::{Line, Subject, announce, check_echo, parent_gone};
use stubborn::{Error, Result};
use tonic::body::Body;
use tonic::server::{NamedService, UnaryService};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status};
use tower::Service;

use super::codec::Raw;

/// An echo over gRPC.
pub(crate) struct Grpc;

const METHOD: &str = "/bench.Echo/Echo";

impl Subject for Grpc {
    fn name(&self) -> &'static str {
        "grpc"
    }

    fn serve(&self) -> LocalBoxFuture<'_, Result<()>> {
        async {
            let address = "127.0.0.1:0".parse().map_err(failed)?;
            let incoming = TcpIncoming::bind(address).map_err(failed)?.with_nodelay(Some(true));
            announce(incoming.local_addr()?)?;
            let server = Server::builder().add_service(Echo);
            let serving = server.serve_with_incoming_shutdown(incoming, parent_gone());
            serving.await.map_err(failed)
        }
        .boxed_local()
    }

    fn connect<'a>(&'a self, address: &'a str) -> LocalBoxFuture<'a, Result<Rc<dyn Line>>> {
        async move {
            let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(failed)?;
            let channel = endpoint.tcp_nodelay(true).connect().await.map_err(failed)?;
            Ok(Rc::new(Calls { client: tonic::client::Grpc::new(channel) }) as Rc<dyn Line>)
        }
        .boxed_local()
    }
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::failed(error.to_string())
}

struct Calls {
    client: tonic::client::Grpc<Channel>,
}

impl Line for Calls {
    fn call(&self, payload: &Bytes) -> LocalBoxFuture<'static, Result<()>> {
        let (mut client, payload) = (self.client.clone(), payload.clone());
        async move {
            client.ready().await.map_err(failed)?;
            let path = http::uri::PathAndQuery::from_static(METHOD);
            let request = Request::new(payload.clone());
            let answer = client.unary(request, path, Raw).await.map_err(failed)?;
            check_echo(answer.get_ref(), &payload)
        }
        .boxed_local()
    }
}

#[derive(Clone)]
struct Echo;

impl NamedService for Echo {
    const NAME: &'static str = "bench.Echo";
}

struct EchoCall;

impl UnaryService<Bytes> for EchoCall {
    type Response = Bytes;
    type Future = Ready<Result<Response<Bytes>, Status>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        ready(Ok(Response::new(request.into_inner())))
    }
}

impl Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        async move { Ok(tonic::server::Grpc::new(Raw).unary(EchoCall, request).await) }.boxed()
    }
}
