//! All objects of one class, for every thread of a program.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use stubborn::entropy::Entropy;

use super::call::Call;
use super::shared::{Lease, Parcel, Shared};
use super::stub::Stub;
use crate::{self as local, NamespaceInfo, ObjectId, Page, Result, Retry, Target};

/// All objects of one class, for every thread of a program.
///
/// Making an id or a stub creates nothing; the first event creates the object. Dropping a namespace ends
/// nothing else.
#[derive(Clone)]
pub struct Namespace {
    place: Arc<Place>,
}

/// What every clone of a namespace, and its stubs, share.
pub(super) struct Place {
    lease: Arc<Lease>,
    key: u64,
    name: String,
    /// Whether the owner may have its local end.
    used: AtomicBool,
}

impl Place {
    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.lease.0
    }

    pub(super) fn key(&self) -> u64 {
        self.key
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn note_use(&self) {
        self.used.store(true, Ordering::Relaxed);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if *self.used.get_mut() {
            self.shared().tell(Parcel::CloseNamespace(self.key));
        }
    }
}

impl Namespace {
    pub(super) fn new(lease: Arc<Lease>, name: &str) -> Self {
        let (key, name) = (lease.0.key(), name.to_owned());
        Self { place: Arc::new(Place { lease, key, name, used: AtomicBool::new(false) }) }
    }

    /// Returns the stub of the object with this id, at once; calls may be made straight away.
    ///
    /// There is always an object behind it. Where `id` is of another namespace, calls fail with
    /// *wrong namespace*.
    pub fn get(&self, id: ObjectId) -> Stub {
        self.stub(&Target::Id(id))
    }

    /// Returns the stub of the object that `name` leads to, at once. The object then knows its name.
    pub fn get_by_name(&self, name: &str) -> Stub {
        self.stub(&Target::Name(name.to_owned()))
    }

    /// Returns a stub whose calls fail with *no such object* where nothing was stored and nothing runs.
    pub fn get_existing(&self, id: ObjectId) -> Stub {
        self.stub(&Target::Existing(id))
    }

    /// Returns the stub of `target`, at once.
    pub fn stub(&self, target: &Target) -> Stub {
        Stub::new(self.place.clone(), target.clone())
    }

    /// Asks for the id that belongs to `name`: always the same one.
    ///
    /// # Errors
    /// Where the server can't be reached.
    ///
    /// # Cancel safety
    /// Dropping the future drops the question.
    pub async fn id_from_name(&self, name: &str) -> Result<ObjectId> {
        let name = name.to_owned();
        self.ask(async move |namespace| namespace.id_from_name(&name).await).await
    }

    /// Parses 64 hex digits and proves that the id belongs to this namespace.
    ///
    /// # Errors
    /// *invalid id*, *wrong namespace*, or where the server can't be reached.
    ///
    /// # Cancel safety
    /// Dropping the future drops the question.
    pub async fn id_from_string(&self, text: &str) -> Result<ObjectId> {
        let text = text.to_owned();
        self.ask(async move |namespace| namespace.id_from_string(&text).await).await
    }

    /// Asks for a new random id, which no name leads to.
    ///
    /// # Errors
    /// Where the server can't be reached.
    ///
    /// # Cancel safety
    /// Dropping the future drops the question.
    pub async fn new_unique_id(&self) -> Result<ObjectId> {
        self.ask(async |namespace| namespace.new_unique_id().await).await
    }

    /// Lists up to `limit` objects that exist, ordered by id, from after `cursor`.
    ///
    /// # Errors
    /// *invalid request* where `limit` is not 1 to 10,000 or `cursor` came from elsewhere.
    ///
    /// # Cancel safety
    /// Dropping the future drops the question.
    pub async fn list(&self, limit: u32, cursor: Option<&str>) -> Result<Page> {
        let cursor = cursor.map(str::to_owned);
        self.ask(async move |namespace| namespace.list(limit, cursor.as_deref()).await).await
    }

    /// Asks for its name and class.
    ///
    /// # Errors
    /// *no such namespace* where the server has none of that name.
    ///
    /// # Cancel safety
    /// Dropping the future drops the question.
    pub async fn about(&self) -> Result<NamespaceInfo> {
        self.ask(async |namespace| namespace.about().await).await
    }

    /// Runs `attempt` with a new stub of `target` until it succeeds or `policy` says to stop.
    ///
    /// # Errors
    /// The last attempt's error.
    ///
    /// # Cancel safety
    /// Dropping the future drops the attempt under way, and makes no further one.
    pub async fn retry<T, R>(
        &self,
        target: &Target,
        policy: &Retry,
        mut attempt: impl FnMut(Stub) -> R,
    ) -> Result<T>
    where
        R: Future<Output = Result<T>>,
    {
        let mut number = 1;
        loop {
            match attempt(self.stub(target)).await {
                Err(error) if policy.allows(number, &error) => {
                    let random = Entropy::system().number();
                    self.sleep(policy.delay(number, random)).await?;
                    number += 1;
                }
                outcome => return outcome,
            }
        }
    }

    /// Waits on the owner's clock: the caller may be in any runtime.
    async fn sleep(&self, delay: Duration) -> Result<()> {
        self.ask(async move |_| {
            tokio::time::sleep(delay).await;
            Ok(())
        })
        .await
    }

    fn ask<T, F>(&self, question: F) -> Call<T>
    where
        T: Send + 'static,
        F: AsyncFnOnce(local::Namespace) -> Result<T> + Send + 'static,
    {
        let place = self.place.clone();
        place.note_use();
        self.place.shared().call(|reply| {
            Parcel::Run(Box::new(move |owner| {
                let namespace = owner.namespace(&place);
                reply.answer_with(async move { question(namespace).await });
            }))
        })
    }
}

impl fmt::Debug for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Namespace").field("name", &self.place.name).finish_non_exhaustive()
    }
}
