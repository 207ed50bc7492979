//! What SQLite stores, and how Rust's types become it and come of it.

use bytes::Bytes;
use rusqlite::types::{ToSqlOutput, ValueRef};

use crate::error::{Error, Result};

/// One value of a row, or one binding.
///
/// ```
/// use stubborn::storage::sql::value::{FromValue, Value};
///
/// let value = Value::from("seven");
/// assert_eq!(String::from_value(value)?, "seven");
/// assert_eq!(Option::<i64>::from_value(Value::Null)?, None);
/// # Ok::<_, stubborn::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Value {
    /// Nothing.
    #[default]
    Null,
    /// A whole number.
    Integer(i64),
    /// A number. Not-a-number is stored as [`Null`](Self::Null).
    Real(f64),
    /// A text. What is not UTF-8 in the database comes out with replacement characters.
    Text(String),
    /// Bytes.
    Blob(Bytes),
}

impl Value {
    /// Returns SQLite's name of its type.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Integer(_) => "integer",
            Self::Real(_) => "real",
            Self::Text(_) => "text",
            Self::Blob(_) => "blob",
        }
    }

    /// Returns about how many bytes it takes in memory.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>()
            + match self {
                Self::Text(text) => text.len(),
                Self::Blob(bytes) => bytes.len(),
                _ => 0,
            }
    }

    pub(super) fn of(value: ValueRef<'_>) -> Self {
        match value {
            ValueRef::Null => Self::Null,
            ValueRef::Integer(number) => Self::Integer(number),
            ValueRef::Real(number) => Self::Real(number),
            ValueRef::Text(text) => Self::Text(String::from_utf8_lossy(text).into_owned()),
            ValueRef::Blob(bytes) => Self::Blob(Bytes::copy_from_slice(bytes)),
        }
    }
}

/// How a value is handed to SQLite.
pub(super) struct Bound<'a>(pub(super) &'a Value);

impl rusqlite::ToSql for Bound<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self.0 {
            Value::Null => ValueRef::Null,
            Value::Integer(number) => ValueRef::Integer(*number),
            Value::Real(number) => ValueRef::Real(*number),
            Value::Text(text) => ValueRef::Text(text.as_bytes()),
            Value::Blob(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

/// What can be bound to a parameter.
pub trait IntoValue {
    /// Makes a value of it.
    ///
    /// # Errors
    /// *invalid request* where SQLite has no such value: whole numbers from 2⁶³ on.
    fn into_value(self) -> Result<Value>;
}

/// What a value can be read as.
pub trait FromValue: Sized {
    /// Reads it.
    ///
    /// # Errors
    /// *failed* where the value is of another type, or does not fit.
    fn from_value(value: Value) -> Result<Self>;
}

impl IntoValue for Value {
    fn into_value(self) -> Result<Value> {
        Ok(self)
    }
}

impl FromValue for Value {
    fn from_value(value: Value) -> Result<Self> {
        Ok(value)
    }
}

impl<T: IntoValue> IntoValue for Option<T> {
    /// None is null.
    fn into_value(self) -> Result<Value> {
        self.map_or(Ok(Value::Null), T::into_value)
    }
}

impl<T: FromValue> FromValue for Option<T> {
    /// Null is none.
    fn from_value(value: Value) -> Result<Self> {
        if value == Value::Null { Ok(None) } else { T::from_value(value).map(Some) }
    }
}

impl<T> From<Option<T>> for Value
where
    Self: From<T>,
{
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Self::from)
    }
}

impl<T: IntoValue + Clone> IntoValue for &T {
    fn into_value(self) -> Result<Value> {
        self.clone().into_value()
    }
}

/// Types that always have a value of SQLite.
macro_rules! into_value {
    ($($type:ty: $name:ident => $value:expr;)*) => {$(
        impl From<$type> for Value {
            fn from($name: $type) -> Self {
                $value
            }
        }

        impl IntoValue for $type {
            fn into_value(self) -> Result<Value> {
                Ok(Value::from(self))
            }
        }
    )*};
}

into_value! {
    bool: value => Self::Integer(i64::from(value));
    i8: value => Self::Integer(i64::from(value));
    i16: value => Self::Integer(i64::from(value));
    i32: value => Self::Integer(i64::from(value));
    i64: value => Self::Integer(value);
    u8: value => Self::Integer(i64::from(value));
    u16: value => Self::Integer(i64::from(value));
    u32: value => Self::Integer(i64::from(value));
    f32: value => Self::Real(f64::from(value));
    f64: value => Self::Real(value);
    &str: value => Self::Text(value.to_owned());
    String: value => Self::Text(value);
    &[u8]: value => Self::Blob(Bytes::copy_from_slice(value));
    Vec<u8>: value => Self::Blob(value.into());
    Bytes: value => Self::Blob(value);
}

/// Whole numbers that may be too large.
macro_rules! try_into_value {
    ($($type:ty),*) => {$(
        impl TryFrom<$type> for Value {
            type Error = Error;

            fn try_from(value: $type) -> Result<Self> {
                i64::try_from(value).map(Self::Integer).map_err(|_| {
                    Error::invalid_request(format!("{value} is too large for an integer of sql"))
                })
            }
        }

        impl IntoValue for $type {
            fn into_value(self) -> Result<Value> {
                Value::try_from(self)
            }
        }
    )*};
}

try_into_value!(u64, usize);

/// Types that a value can be read as.
macro_rules! from_value {
    ($($type:ty: $($pattern:pat => $read:expr),+;)*) => {$(
        impl FromValue for $type {
            fn from_value(value: Value) -> Result<Self> {
                match value {
                    $($pattern => $read,)+
                    other => Err(mismatch::<Self>(&other)),
                }
            }
        }

        impl TryFrom<Value> for $type {
            type Error = Error;

            fn try_from(value: Value) -> Result<Self> {
                Self::from_value(value)
            }
        }
    )*};
}

from_value! {
    bool: Value::Integer(number) => Ok(number != 0);
    i8: Value::Integer(number) => fit(number);
    i16: Value::Integer(number) => fit(number);
    i32: Value::Integer(number) => fit(number);
    i64: Value::Integer(number) => Ok(number);
    u8: Value::Integer(number) => fit(number);
    u16: Value::Integer(number) => fit(number);
    u32: Value::Integer(number) => fit(number);
    u64: Value::Integer(number) => fit(number);
    usize: Value::Integer(number) => fit(number);
    f64: Value::Real(number) => Ok(number), Value::Integer(number) => Ok(number as f64);
    String: Value::Text(text) => Ok(text);
    Bytes: Value::Blob(bytes) => Ok(bytes);
    Vec<u8>: Value::Blob(bytes) => Ok(bytes.into());
}

fn fit<T: TryFrom<i64>>(number: i64) -> Result<T> {
    let kind = std::any::type_name::<T>();
    T::try_from(number).map_err(|_| Error::failed(format!("{number} does not fit into {kind}")))
}

fn mismatch<T>(value: &Value) -> Error {
    let (found, kind) = (value.type_name(), std::any::type_name::<T>());
    Error::failed(format!("the value is of type {found}, and was read as {kind}"))
}
