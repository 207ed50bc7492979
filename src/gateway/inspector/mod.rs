//! The inspector: a page that shows namespaces, their objects, what these store and how they fare; and what the
//! page asks for, as JSON.
//!
//! **Invariant:** nothing that is stored is changed, unless that is configured and asked for, and no object comes into
//! memory to be looked at.
//! **Invariant:** who may not list gets no data. The page itself has none: it is for all who may have a token.
//! **Invariant:** the page loads nothing but itself, and puts what others wrote into it as text only.

mod api;
mod page;
mod routes;
mod shape;

pub(super) use routes::{answer, is_at};
