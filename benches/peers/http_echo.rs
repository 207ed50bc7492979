//! A bare hyper server, as a floor for the gateway: `http_echo ADDR THREADS`. `GET` answers 100 bytes, anything
//! else its own body. It ends with its standard input.

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::Either;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

async fn echo(
    request: http::Request<Incoming>,
) -> Result<http::Response<Either<Full<Bytes>, Incoming>>, Infallible> {
    static ANSWER: [u8; 100] = [b'x'; 100];
    let body = match request.method() {
        &http::Method::GET => Either::Left(Full::new(Bytes::from_static(&ANSWER))),
        _ => Either::Right(request.into_body()),
    };
    Ok(http::Response::new(body))
}

#[expect(clippy::disallowed_methods, reason = "a program of its own")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let address = args.next().ok_or("an address")?;
    let threads = args.next().ok_or("a number of threads")?.parse()?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
    runtime.spawn(async move {
        let listener = TcpListener::bind(address).await.expect("the address is free");
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            let _ = stream.set_nodelay(true);
            tokio::spawn(async move {
                let service = service_fn(echo);
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    Ok(())
}
