//! What is bound to the parameters of a statement.
//!
//! **Invariant:** every parameter has a binding, and every binding a parameter.

use std::borrow::Cow;

use rusqlite::Statement;

use super::value::{Bound, IntoValue, Value};
use crate::error::Result;

/// What can be bound: `()`, a tuple, an array, a slice or a `Vec` for `?`, `?1` …; [`Named`] for `:name`.
pub trait Bindings {
    /// Makes values of it.
    ///
    /// # Errors
    /// Where one of them has no value in SQL: see [`IntoValue`].
    fn into_values(self) -> Result<Values>;
}

/// Values for the parameters of a statement.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// By their numbers, from 1 on.
    Positional(Vec<Value>),
    /// By their names.
    Named(Vec<(Cow<'static, str>, Value)>),
}

/// Bindings by name: `:name`, `@name` or `$name`. A name without such a mark is one with `:`.
///
/// ```
/// use stubborn::storage::sql::bindings::{Bindings, Named, Values};
///
/// let named = Named::new().with(":id", 7).with("name", "seven").into_values()?;
/// assert!(matches!(named, Values::Named(values) if values.len() == 2));
/// # Ok::<_, stubborn::Error>(())
/// ```
#[derive(Debug)]
pub struct Named(Result<Vec<(Cow<'static, str>, Value)>>);

impl Default for Named {
    fn default() -> Self {
        Self::new()
    }
}

impl Named {
    /// Starts without any.
    pub fn new() -> Self {
        Self(Ok(Vec::new()))
    }

    /// Adds one. That a value does not exist in SQL is told by the call that uses the bindings.
    pub fn with(mut self, name: impl Into<Cow<'static, str>>, value: impl IntoValue) -> Self {
        match (value.into_value(), &mut self.0) {
            (Ok(value), Ok(values)) => values.push((name.into(), value)),
            (Err(error), Ok(_)) => self.0 = Err(error),
            (_, Err(_)) => {}
        }
        self
    }
}

impl Bindings for Named {
    fn into_values(self) -> Result<Values> {
        self.0.map(Values::Named)
    }
}

impl Bindings for Values {
    fn into_values(self) -> Result<Values> {
        Ok(self)
    }
}

impl Bindings for () {
    fn into_values(self) -> Result<Values> {
        Ok(Values::Positional(Vec::new()))
    }
}

impl<T: IntoValue> Bindings for Vec<T> {
    fn into_values(self) -> Result<Values> {
        positional(self)
    }
}

impl<T: IntoValue, const N: usize> Bindings for [T; N] {
    fn into_values(self) -> Result<Values> {
        positional(self)
    }
}

impl<T: IntoValue + Clone> Bindings for &[T] {
    fn into_values(self) -> Result<Values> {
        positional(self)
    }
}

impl<T: IntoValue + Clone, const N: usize> Bindings for &[T; N] {
    fn into_values(self) -> Result<Values> {
        positional(self)
    }
}

impl<T: IntoValue + Clone> Bindings for &Vec<T> {
    fn into_values(self) -> Result<Values> {
        positional(self)
    }
}

fn positional<T: IntoValue>(values: impl IntoIterator<Item = T>) -> Result<Values> {
    values.into_iter().map(T::into_value).collect::<Result<_>>().map(Values::Positional)
}

macro_rules! tuples {
    ($($first:ident $($rest:ident)*)?) => {$(
        impl<$first: IntoValue, $($rest: IntoValue),*> Bindings for ($first, $($rest,)*) {
            fn into_values(self) -> Result<Values> {
                #[expect(non_snake_case, reason = "the names of the types serve twice")]
                let ($first, $($rest,)*) = self;
                Ok(Values::Positional(vec![$first.into_value()?, $($rest.into_value()?),*]))
            }
        }

        tuples!($($rest)*);
    )?};
}

tuples!(A B C D E F G H I J K L M N O P);

impl Values {
    /// Binds them to the parameters of `statement`; otherwise, says why not.
    pub(super) fn bind(&self, statement: &mut Statement<'_>) -> Result<(), String> {
        let parameters = statement.parameter_count();
        let bindings = match self {
            Self::Positional(values) => values.len(),
            Self::Named(values) => values.len(),
        };
        if parameters != bindings {
            return Err(format!("{parameters} parameters and {bindings} bindings"));
        }
        match self {
            Self::Positional(values) => {
                for (value, index) in values.iter().zip(1..) {
                    bind(statement, index, value)?;
                }
            }
            Self::Named(values) => {
                let mut bound = vec![false; parameters];
                for (name, value) in values {
                    let index = index_of(statement, name)?;
                    match bound.get_mut(index.wrapping_sub(1)) {
                        Some(bound) if !*bound => *bound = true,
                        _ => return Err(format!("two bindings of {name}")),
                    }
                    bind(statement, index, value)?;
                }
            }
        }
        Ok(())
    }
}

fn bind(statement: &mut Statement<'_>, index: usize, value: &Value) -> Result<(), String> {
    let outcome = statement.raw_bind_parameter(index, Bound(value));
    outcome.map_err(|error| format!("binding {index}: {error}"))
}

fn index_of(statement: &Statement<'_>, name: &str) -> Result<usize, String> {
    let name = match name.starts_with([':', '@', '$']) {
        true => Cow::Borrowed(name),
        false => Cow::Owned(format!(":{name}")),
    };
    let index = statement.parameter_index(&name).ok().flatten();
    index.ok_or_else(|| format!("no parameter {name}"))
}
