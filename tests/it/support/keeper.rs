//! An object that does what its request's path says, one step after the other: what tests of storage, gates and
//! alarms need in one place.
//!
//! Answers are what its steps said, joined by spaces.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Mutex;

use bytes::Bytes;
use capnp::capability::get_resolved_cap;
use futures::FutureExt;
use futures::future::LocalBoxFuture;
use stubborn::clock::Clock;
use stubborn::demo_capnp::{listener, probe};
use stubborn::stubborn_capnp::stub;
use stubborn::{
    AlarmInfo, Body, BodyWriter, DurableObject, Env, List, Request, Response, Result, State,
    Storage, Stub, Target, respond,
};
use tokio::sync::watch;

/// The namespace of keepers.
pub(crate) const KEEPER: &str = "KEEPER";

/// What a keeper stores of an alarm that rang: scheduled, now, retries, whether it is one, its name.
pub(crate) type Fired = (u64, u64, u32, bool, String);

/// The names of those whose constructors fail no more.
static HEALED: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Has the constructor of a keeper that was told to fail do so no more.
pub(crate) fn heal(name: &str) {
    HEALED.lock().unwrap().push(name.to_owned());
}

/// An object that does what its request's path says.
#[derive(Clone)]
pub(crate) struct Keeper(Rc<Inner>);

struct Inner {
    state: State,
    env: Env,
    heard: RefCell<Vec<String>>,
    flags: watch::Sender<Vec<String>>,
    writer: RefCell<Option<BodyWriter>>,
    told: RefCell<Vec<LocalBoxFuture<'static, Result<Response>>>>,
    kept: RefCell<Option<listener::Client>>,
}

impl DurableObject for Keeper {
    async fn new(state: State, env: Env) -> Result<Self> {
        let name = state.name().unwrap_or_default();
        let fails = state.storage().get::<bool>("construct-fails")?.unwrap_or_default();
        if fails && !HEALED.lock().unwrap().iter().any(|healed| **healed == *name) {
            return Err("the constructor failed as asked".into());
        }
        let (heard, flags) = (RefCell::default(), watch::Sender::new(Vec::new()));
        let (writer, told, kept) = Default::default();
        Ok(Self(Rc::new(Inner { state, env, heard, flags, writer, told, kept })))
    }

    async fn fetch(&self, mut request: Request) -> Result<Response> {
        let path = request.uri().path().trim_matches('/').to_owned();
        // A body is noted chunk by chunk.
        let mut body = std::mem::take(request.body_mut());
        while let Some(chunk) = body.chunk().await {
            let chunk = String::from_utf8_lossy(&chunk?).into_owned();
            self.0.heard.borrow_mut().push(chunk);
        }
        let Some(rest) = path.strip_prefix("stream/") else {
            return Ok(respond::text(self.run(path.clone()).await?));
        };
        let (writer, body) = Body::pipe(64 << 10);
        *self.0.writer.borrow_mut() = Some(writer);
        let (this, rest) = (self.clone(), rest.to_owned());
        self.0.state.wait_until(async move {
            let outcome = this.run(rest).await;
            let writer = this.0.writer.take();
            match outcome {
                Ok(_) => writer.into_iter().for_each(BodyWriter::finish),
                Err(error) => writer.into_iter().for_each(|writer| writer.fail(error.clone())),
            }
        });
        Ok(Response::new(body))
    }

    async fn alarm(&self, alarm: AlarmInfo) -> Result<()> {
        let AlarmInfo { scheduled_ms, retry_count, is_retry, .. } = alarm;
        let (storage, now) = (self.storage(), Clock::system().unix_ms());
        let name = self.0.state.name().unwrap_or_default().to_string();
        let count = storage.list::<Fired>(&List::prefix("fired/"))?.len();
        let fired: Fired = (scheduled_ms, now, retry_count, is_retry, name);
        storage.put(&format!("fired/{count:03}"), &fired)?;
        let script = storage.get::<String>(&format!("script/{count}"))?;
        if let Some(script) = script {
            self.run(script).await?;
        }
        Ok(())
    }

    async fn before_shutdown(&self) {
        if let Ok(Some(script)) = self.storage().get::<String>("on-shutdown") {
            // Whether it worked is seen by what it did.
            let _ = self.run(script).await;
        }
    }
}

impl Keeper {
    fn storage(&self) -> Storage {
        self.0.state.storage()
    }

    fn stub(&self, name: &str) -> Result<Stub> {
        Ok(self.0.env.namespace(KEEPER)?.stub(&Target::Name(name.to_owned())))
    }

    fn kept(&self) -> Result<listener::Client> {
        self.0.kept.borrow().clone().ok_or_else(|| "it was given no reference".into())
    }

    /// Runs the steps of `path`, and returns what they said.
    fn run(&self, path: String) -> LocalBoxFuture<'static, Result<String>> {
        let this = self.clone();
        async move {
            let steps: Vec<&str> = path.split('/').filter(|step| !step.is_empty()).collect();
            let (mut said, mut at) = (Vec::new(), 0);
            while let Some(step) = steps.get(at) {
                at += 1;
                let mut words = step.split('.');
                let (verb, one) = (words.next().unwrap(), words.next().unwrap_or_default());
                let two = words.next().unwrap_or_default();
                // These run as many of the next steps inside of something.
                if matches!(verb, "block" | "txn" | "cut" | "later" | "beside") {
                    let end = at + one.parse::<usize>().unwrap();
                    let inside = this.run(steps[at..end].join("/"));
                    at = end;
                    said.extend(this.around(verb, inside, two).await?);
                    continue;
                }
                said.extend(this.step(verb, one, two).await?);
            }
            Ok(said.join(" "))
        }
        .boxed_local()
    }

    async fn around(
        &self,
        verb: &str,
        inside: LocalBoxFuture<'static, Result<String>>,
        two: &str,
    ) -> Result<Option<String>> {
        let (state, storage) = (&self.0.state, self.storage());
        match verb {
            "block" => Ok(Some(state.block_concurrency_while(inside).await)),
            "txn" => match storage.transaction(inside).await {
                Err(error) if two == "caught" => Ok(Some(error.message)),
                outcome => outcome.map(Some),
            },
            // A transaction that is dropped while it waits.
            "cut" => {
                let transaction = std::pin::pin!(storage.transaction(inside));
                let waited = std::pin::pin!(tokio::task::yield_now());
                drop(futures::future::select(transaction, waited).await);
                Ok(None)
            }
            // Beside the handler, which goes on.
            _ => {
                state.wait_until(async move { drop(inside.await) });
                Ok(None)
            }
        }
    }

    async fn step(&self, verb: &str, one: &str, two: &str) -> Result<Option<String>> {
        let storage = self.storage();
        let now = Clock::system().unix_ms();
        match verb {
            "put" => storage.put(one, two)?,
            "quiet" => storage.unconfirmed().put(one, two)?,
            "get" => return Ok(Some(storage.get(one)?.unwrap_or("none".to_owned()))),
            "delete" => drop(storage.delete(one)?),
            "sync" => storage.sync().await?,
            // The second statement fails, the first one has happened.
            "half-sql" => {
                storage.sql().exec("CREATE TABLE half (a); nonsense", ()).unwrap_err();
            }
            "script" => storage
                .put(&format!("script/{one}"), &two.replace(['!', '+'], "/").replace(':', "."))?,
            "on-shutdown" => {
                storage.put("on-shutdown", &one.replace('+', "/").replace(':', "."))?
            }
            "construct-fails" => storage.put("construct-fails", &true)?,
            "yield" => tokio::task::yield_now().await,
            "hear" => self.0.heard.borrow_mut().push(one.to_owned()),
            "heard" => return Ok(Some(self.0.heard.borrow().join(","))),
            "activation" => return Ok(Some(self.0.state.activation().to_string())),
            "name" => return Ok(Some(self.0.state.name().unwrap_or_default().to_string())),
            "open" => self.0.flags.send_modify(|flags| flags.push(one.to_owned())),
            "wait" => {
                let mut flags = self.0.flags.subscribe();
                let is_open = |flags: &Vec<String>| flags.iter().any(|flag| flag == one);
                flags.wait_for(is_open).await.expect("this object holds the other end");
            }
            "forever" => std::future::pending().await,
            "fail" => return Err("failed as asked".into()),
            "panic" => panic!("panicked as asked"),
            "abort" => self.0.state.abort("aborted as asked"),
            "alarm" => storage.set_alarm(now + one.parse::<u64>().unwrap())?,
            "alarm-at" => storage.set_alarm(one.parse().unwrap())?,
            "unalarm" => storage.delete_alarm()?,
            "get-alarm" => {
                let alarm = storage.get_alarm()?;
                let text = alarm.map_or("none".to_owned(), |at| at.to_string());
                storage.put("seen-alarm", &text)?;
                return Ok(Some(text));
            }
            "fired" => {
                let fired = storage.list::<Fired>(&List::prefix("fired/"))?;
                let text = fired.into_iter().map(|(_, (scheduled, at, retries, again, name))| {
                    format!("{scheduled},{at},{retries},{again},{name}")
                });
                return Ok(Some(text.collect::<Vec<_>>().join(" ")));
            }
            _ => return self.say(verb, one, two).await,
        }
        Ok(None)
    }

    /// What leaves the object before it answers.
    async fn say(&self, verb: &str, one: &str, two: &str) -> Result<Option<String>> {
        match verb {
            "call" => {
                let answer = self.stub(one)?.fetch(format!("http://do/hear.{two}/heard")).await?;
                return Ok(Some(answer.into_body().text().await?));
            }
            // Called in order; answered at `answers`.
            "tell" => {
                let call = self.stub(one)?.fetch(format!("http://do/hear.{two}"));
                self.0.told.borrow_mut().push(call.boxed_local());
            }
            "answers" => {
                let told = self.0.told.take();
                for call in told {
                    call.await?;
                }
            }
            "log" => {
                let typed: probe::Client = self.stub(one)?.cast();
                let mut call = typed.log_request();
                call.get().set_n(two.parse().unwrap());
                call.send().promise.await?;
            }
            // Hands on the reference that it was given.
            "give" => {
                let typed: probe::Client = self.stub(one)?.cast();
                let mut call = typed.notify_request();
                call.get().set_listener(self.kept()?);
                call.send().promise.await?;
            }
            "call-kept" => {
                let mut call = self.kept()?.heard_request();
                call.get().set_n(one.parse().unwrap());
                call.send().promise.await?;
            }
            "chunk" => {
                let mut writer = self.0.writer.take().expect("the answer is streamed");
                writer.write(Bytes::from(one.to_owned())).await?;
                *self.0.writer.borrow_mut() = Some(writer);
            }
            // Sends `a`, writes once it may, then sends `b`.
            "upload" => {
                let (mut writer, body) = Body::pipe(64 << 10);
                let this = self.clone();
                self.0.state.wait_until(async move {
                    let _ = writer.write(Bytes::from("a")).await;
                    let _ = this.run("wait.go/put.k.1".to_owned()).await;
                    let _ = writer.write(Bytes::from("b")).await;
                    writer.finish();
                });
                let request = http::Request::post("http://do/heard").body(body).unwrap();
                let answer = self.stub(one)?.fetch(request).await?;
                return Ok(Some(answer.into_body().text().await?));
            }
            _ => return Err(format!("no such step: {verb}").into()),
        }
        Ok(None)
    }
}

impl stub::Server for Keeper {}

impl probe::Server for Keeper {
    /// Writes, and returns.
    async fn log(
        self: Rc<Self>,
        params: probe::LogParams,
        mut results: probe::LogResults,
    ) -> Result<(), capnp::Error> {
        let n = params.get()?.get_n();
        self.0.heard.borrow_mut().push(n.to_string());
        if n >= 100 {
            self.storage().put("k", &n.to_string())?;
        }
        results.get().set_position(n);
        Ok(())
    }

    /// Without a reference, returns one of its own. With one: writes, hands it out before it returns, and returns when
    /// `go` is open.
    async fn echo(
        self: Rc<Self>,
        params: probe::EchoParams,
        mut results: probe::EchoResults,
    ) -> Result<(), capnp::Error> {
        if !params.get()?.has_listener() {
            let voice = Voice(Keeper::clone(&self));
            results.get().set_listener(self.0.state.capability(voice));
            return Ok(());
        }
        self.storage().put("k", "1")?;
        results.get().set_listener(params.get()?.get_listener()?);
        results.set_pipeline()?;
        self.run("wait.go".to_owned()).await?;
        Ok(())
    }

    /// Keeps the reference, where the count is 0. Writes, and calls back; with count 6, what the reference has resolved
    /// to.
    async fn notify(
        self: Rc<Self>,
        params: probe::NotifyParams,
        _results: probe::NotifyResults,
    ) -> Result<(), capnp::Error> {
        let mut listener = params.get()?.get_listener()?;
        if params.get()?.get_count() == 0 {
            *self.0.kept.borrow_mut() = Some(listener);
            return Ok(());
        }
        self.storage().put("k", "1")?;
        if params.get()?.get_count() == 6 {
            listener = get_resolved_cap(listener).await;
        }
        let mut call = listener.heard_request();
        call.get().set_n(params.get()?.get_count().into());
        call.send().promise.await?;
        Ok(())
    }

    async fn note(self: Rc<Self>, _: probe::NoteParams) -> Result<(), capnp::Error> {
        Ok(())
    }

    /// Writes, and fails.
    async fn fail(
        self: Rc<Self>,
        params: probe::FailParams,
        _results: probe::FailResults,
    ) -> Result<(), capnp::Error> {
        self.storage().put("k", "1")?;
        Err(capnp::Error::failed(params.get()?.get_message()?.to_string()?))
    }
}

/// A capability of a keeper's own: does what is stored as the script of the number that it hears.
struct Voice(Keeper);

impl listener::Server for Voice {
    async fn heard(
        self: Rc<Self>,
        params: listener::HeardParams,
        _results: listener::HeardResults,
    ) -> Result<(), capnp::Error> {
        let n = params.get()?.get_n();
        let script = self.0.storage().get::<String>(&format!("script/{n}"))?;
        self.0.run(script.unwrap_or_default()).await?;
        Ok(())
    }
}
