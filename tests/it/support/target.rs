//! An object to attack: it holds, keeps and shouts as it is told.

use bytes::Bytes;
use futures::FutureExt;
use stubborn::{Body, DurableObject, Env, Request, Response, Result, State, Target, respond};

/// The namespace of the objects to attack.
pub(crate) const TARGET: &str = "TARGET";

/// Reflects, and can be told to hold back answers until it is released.
pub(crate) struct Aim {
    state: State,
    env: Env,
    released: tokio::sync::watch::Sender<bool>,
    /// What `/keep` was given, unread.
    kept: std::cell::RefCell<Vec<Body>>,
}

impl DurableObject for Aim {
    async fn new(state: State, env: Env) -> Result<Self> {
        let (released, _) = tokio::sync::watch::channel(false);
        Ok(Self { state, env, released, kept: std::cell::RefCell::default() })
    }

    async fn fetch(&self, mut request: Request) -> Result<Response> {
        let uri = request.uri().clone();
        let argument = |key: &str| {
            let pairs = uri.query().unwrap_or_default().split('&');
            pairs.filter_map(|pair| pair.split_once('=')).find(|(k, _)| *k == key).map(|(_, v)| v)
        };
        let number = |key: &str| argument(key).and_then(|v| v.parse::<usize>().ok()).unwrap_or(0);
        match uri.path() {
            "/hi" => Ok(respond::text("hi")),
            "/echo" => Ok(Response::new(std::mem::take(request.body_mut()))),
            "/forever" => std::future::pending().await,
            // Answers with a body once it is told to by `/release`.
            "/hold" => {
                let mut released = self.released.subscribe();
                released
                    .wait_for(|released| *released)
                    .await
                    .expect("this object holds the other end");
                Ok(Response::new(Body::from(vec![7; number("bytes")])))
            }
            "/release" => {
                self.released.send_replace(true);
                Ok(respond::text("released"))
            }
            // Keeps its body, asked for once and not read on.
            "/want" => {
                let mut body = std::mem::take(request.body_mut());
                let _ = body.chunk().now_or_never();
                self.kept.borrow_mut().push(body);
                Ok(respond::text("wanted"))
            }
            // Keeps its body unread.
            "/keep" => {
                self.kept.borrow_mut().push(std::mem::take(request.body_mut()));
                Ok(respond::text(self.kept.borrow().len().to_string()))
            }
            "/count" => {
                let mut body = std::mem::take(request.body_mut());
                let mut bytes = 0;
                while let Some(chunk) = body.chunk().await {
                    bytes += chunk?.len();
                }
                Ok(respond::text(bytes.to_string()))
            }
            "/stream" => Ok(Response::new(self.stream(number("bytes"), number("chunk").max(1)))),
            "/shout" => Err("!".repeat(number("bytes")).into()),
            // Fetches from another object and relays.
            "/call" => {
                let namespace = self.env.namespace(argument("namespace").unwrap_or_default())?;
                let name = argument("name").unwrap_or_default().to_owned();
                let path = argument("path").unwrap_or_default().replace('+', "&");
                let stub = namespace.stub(&Target::Name(name));
                let body = std::mem::take(request.body_mut());
                stub.fetch(
                    http::Request::post(format!("http://do/{path}")).body(body).expect("it is one"),
                )
                .await
            }
            path => respond::status(404, format!("nothing at {path}")),
        }
    }
}

impl Aim {
    /// Streams `bytes` zeros in pieces of `chunk`.
    fn stream(&self, bytes: usize, chunk: usize) -> Body {
        let (mut writer, body) = Body::pipe(64 << 10);
        self.state.wait_until(async move {
            let zeros = Bytes::from(vec![0; chunk]);
            let mut left = bytes;
            while left > 0 {
                let size = left.min(chunk);
                if writer.write(zeros.slice(..size)).await.is_err() {
                    return;
                }
                left -= size;
            }
            writer.finish();
        });
        body
    }
}

impl stubborn::stubborn_capnp::stub::Server for Aim {}
impl stubborn::demo_capnp::probe::Server for Aim {}
