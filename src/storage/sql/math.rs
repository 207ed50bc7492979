//! SQLite's mathematical functions, which the bundled build leaves out: as its documentation has them.
//!
//! **Invariant:** an argument that is no number, and a result that is none, is null.

use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, Result};

/// Adds the functions to `connection`.
pub(super) fn add(connection: &Connection) -> Result<()> {
    for (name, function) in ROUNDING {
        connection.create_scalar_function(name, 1, flags(), move |context| {
            Ok(match number(context, 0) {
                Some(Number::Integer(number)) => Value::Integer(number),
                Some(Number::Real(number)) => real(function(number)),
                None => Value::Null,
            })
        })?;
    }
    for (name, function) in UNARY {
        connection.create_scalar_function(name, 1, flags(), move |context| {
            Ok(number(context, 0).map_or(Value::Null, |x| real(function(x.real()))))
        })?;
    }
    for (name, function) in BINARY {
        connection.create_scalar_function(name, 2, flags(), move |context| {
            Ok(match (number(context, 0), number(context, 1)) {
                (Some(x), Some(y)) => real(function(x.real(), y.real())),
                _ => Value::Null,
            })
        })?;
    }
    connection.create_scalar_function("pi", 0, flags(), |_| Ok(std::f64::consts::PI))
}

type Unary = (&'static str, fn(f64) -> f64);

/// What leaves a whole number as it is.
const ROUNDING: [Unary; 4] =
    [("ceil", f64::ceil), ("ceiling", f64::ceil), ("floor", f64::floor), ("trunc", f64::trunc)];

const UNARY: [Unary; 20] = [
    ("acos", f64::acos),
    ("acosh", f64::acosh),
    ("asin", f64::asin),
    ("asinh", f64::asinh),
    ("atan", f64::atan),
    ("atanh", f64::atanh),
    ("cos", f64::cos),
    ("cosh", f64::cosh),
    ("degrees", f64::to_degrees),
    ("exp", f64::exp),
    ("ln", |x| positive(x).ln()),
    ("log", |x| positive(x).log10()),
    ("log10", |x| positive(x).log10()),
    ("log2", |x| positive(x).log2()),
    ("radians", f64::to_radians),
    ("sin", f64::sin),
    ("sinh", f64::sinh),
    ("sqrt", f64::sqrt),
    ("tan", f64::tan),
    ("tanh", f64::tanh),
];

type Binary = (&'static str, fn(f64, f64) -> f64);

const BINARY: [Binary; 5] = [
    ("atan2", f64::atan2),
    ("log", |base, x| positive(x).ln() / positive(positive(base).ln())),
    ("mod", |x, y| x % y),
    ("pow", f64::powf),
    ("power", f64::powf),
];

/// Logarithms are of positive numbers only.
fn positive(x: f64) -> f64 {
    if x > 0.0 { x } else { f64::NAN }
}

fn real(number: f64) -> Value {
    if number.is_nan() { Value::Null } else { Value::Real(number) }
}

fn flags() -> FunctionFlags {
    FunctionFlags::SQLITE_UTF8
        | FunctionFlags::SQLITE_DETERMINISTIC
        | FunctionFlags::SQLITE_INNOCUOUS
}

enum Number {
    Integer(i64),
    Real(f64),
}

impl Number {
    fn real(self) -> f64 {
        match self {
            Self::Integer(number) => number as f64,
            Self::Real(number) => number,
        }
    }
}

/// Returns an argument as a number; none where it is none. A text that looks like a number is one.
fn number(context: &Context<'_>, index: usize) -> Option<Number> {
    match context.get_raw(index) {
        ValueRef::Integer(number) => Some(Number::Integer(number)),
        ValueRef::Real(number) => Some(Number::Real(number)),
        ValueRef::Text(text) => {
            let text = std::str::from_utf8(text).ok()?.trim_ascii();
            // Rust also reads words as numbers: infinity.
            let looks = |c: char| c.is_ascii_digit() || "+-.eE".contains(c);
            let text = Some(text).filter(|text| text.chars().all(looks))?;
            let integer = text.parse().map(Number::Integer);
            integer.or_else(|_| text.parse().map(Number::Real)).ok()
        }
        ValueRef::Null | ValueRef::Blob(_) => None,
    }
}
