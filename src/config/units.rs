//! Values as people write them: `"10s"`, `"4MiB"`.

use std::fmt;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error, Visitor};

/// A number of bytes: an integer, or text as `"64KiB"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes(pub usize);

/// A number of things, at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count(pub usize);

/// A depth, at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Depth(pub i32);

/// A length of time: text as `"10s"`, more than nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time(pub Duration);

/// A length of time, or `"none"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeOrNone(pub Option<Duration>);

/// Parses digits and the unit behind them; none where that is not what `text` is.
fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at_checked(end)?;
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim_start())?;
    digits.parse::<u64>().ok()?.checked_mul(*factor)
}

fn parse_time(text: &str) -> Option<Duration> {
    parse(text, &TIME_UNITS).filter(|ms| *ms > 0).map(Duration::from_millis)
}

/// Reads text or an integer with `read`, or says what was wanted.
struct Wanted<R> {
    wanted: &'static str,
    read: R,
}

enum Raw<'a> {
    Text(&'a str),
    Integer(u64),
}

impl<T, R: Fn(Raw<'_>) -> Option<T>> Visitor<'_> for Wanted<R> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.wanted)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        let wrong = || E::custom(format!("{text:?} is not {}", self.wanted));
        (self.read)(Raw::Text(text)).ok_or_else(wrong)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        let wrong = || E::custom(format!("{number} is not {}", self.wanted));
        (self.read)(Raw::Integer(number)).ok_or_else(wrong)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        let wrong = || E::custom(format!("{number} is not {}", self.wanted));
        let number = u64::try_from(number).map_err(|_| wrong())?;
        (self.read)(Raw::Integer(number)).ok_or_else(wrong)
    }
}

/// How each type is written, and read.
macro_rules! written {
    ($($type:ident: $wanted:expr, $read:expr;)*) => {$(
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let read: fn(Raw<'_>) -> Option<Self> = $read;
                from.deserialize_any(Wanted { wanted: $wanted, read })
            }
        }
    )*};
}

written! {
    Bytes: "a number of bytes, as 65536 or \"64KiB\" (B, KiB, MiB, GiB)", |raw| match raw {
        Raw::Text(text) => parse(text, &BYTE_UNITS)?.try_into().ok().map(Self),
        Raw::Integer(bytes) => bytes.try_into().ok().map(Self),
    };
    Count: "a number from 1", |raw| match raw {
        Raw::Integer(count) if count > 0 => count.try_into().ok().map(Self),
        _ => None,
    };
    Depth: "a number from 1", |raw| match raw {
        Raw::Integer(depth) if depth > 0 => depth.try_into().ok().map(Self),
        _ => None,
    };
    Time: "a time more than nothing, as \"10s\" (ms, s, m, h)", |raw| match raw {
        Raw::Text(text) => parse_time(text).map(Self),
        Raw::Integer(_) => None,
    };
    TimeOrNone: "\"none\", or a time more than nothing, as \"10s\" (ms, s, m, h)", |raw| match raw {
        Raw::Text("none") => Some(Self(None)),
        Raw::Text(text) => parse_time(text).map(|time| Self(Some(time))),
        Raw::Integer(_) => None,
    };
}

/// In milliseconds.
const TIME_UNITS: [(&str, u64); 4] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];
const BYTE_UNITS: [(&str, u64); 4] =
    [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_times_are_read_in_their_units_and_nothing_else_is() {
        for (text, bytes) in [
            ("0B", Some(0)),
            ("64KiB", Some(64 << 10)),
            ("4 MiB", Some(4 << 20)),
            ("1GiB", Some(1 << 30)),
            ("64", None),
            ("64kb", None),
            ("-1B", None),
            ("1.5MiB", None),
            ("99999999999GiB", None),
            ("", None),
            ("é", None),
        ] {
            assert_eq!(parse(text, &BYTE_UNITS), bytes, "{text:?}");
        }
        for (text, ms) in [
            ("5ms", Some(5)),
            ("10s", Some(10_000)),
            ("2m", Some(120_000)),
            ("1h", Some(3_600_000)),
        ] {
            assert_eq!(parse_time(text).map(|time| time.as_millis()), ms, "{text:?}");
        }
        for text in ["0s", "10", "s", "1d", "1.5s", "99999999999999999h"] {
            assert_eq!(parse_time(text), None, "{text:?}");
        }
    }
}
