//! The id of an object: 32 bytes that say which object, and nothing about where it is.
//!
//! **Invariant:** an id is a plain value. Making, printing or comparing one touches no object.
//! **Invariant:** equality looks at the 32 bytes alone; an id does not know the name it was made from.

#[cfg(feature = "server")]
mod key;
#[cfg(feature = "server")]
mod serde;

use std::fmt;
use std::str::FromStr;

#[cfg(feature = "server")]
pub use key::NamespaceKey;

use crate::error::{Error, Kind};

/// Identifies one object of one namespace.
///
/// Prints as 64 lower-case hex digits and parses from hex digits of either case. Ordered by its bytes,
/// which is also the order of the printed form. Parsing does not prove that the id belongs to a
/// namespace: that takes the namespace's key.
///
/// ```
/// use stubborn::ObjectId;
///
/// let id = ObjectId::from_bytes([0xab; 32]);
/// assert_eq!(id.to_hex(), "ab".repeat(32));
/// assert_eq!("AB".repeat(32).parse(), Ok(id));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId([u8; ObjectId::LEN]);

impl ObjectId {
    /// The length of an id in bytes.
    pub const LEN: usize = 32;

    /// Makes an id of its bytes.
    pub const fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// Returns its bytes.
    pub const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }

    /// Returns it as 64 lower-case hex digits.
    pub fn to_hex(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits: String =
            self.0.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(digit).collect();
        f.pad(&digits)
    }
}

impl fmt::Debug for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ObjectId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        parse(text).ok_or_else(|| invalid(text))
    }
}

impl TryFrom<&[u8]> for ObjectId {
    type Error = Error;

    /// Takes an id as it travels in a message.
    fn try_from(bytes: &[u8]) -> Result<Self, Error> {
        bytes.try_into().map(Self).map_err(|_| {
            let (want, got) = (Self::LEN, bytes.len());
            Error::new(Kind::InvalidId, format!("an id has {want} bytes, got {got}"))
        })
    }
}

/// Returns the id that `text` spells; none where it isn't 64 hex digits.
fn parse(text: &str) -> Option<ObjectId> {
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    let pairs: &[[u8; 2]; ObjectId::LEN] = pairs.try_into().ok()?;
    let mut bytes = [0; ObjectId::LEN];
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = value(*high)? << 4 | value(*low)?;
    }
    Some(ObjectId(bytes))
}

/// Says that `text` isn't an id, and shows as much of it as fits a line.
fn invalid(text: &str) -> Error {
    let count = text.chars().count();
    let shown: String = text.chars().take(SHOWN_CHARS_MAX).collect();
    let rest = if count > SHOWN_CHARS_MAX { "…" } else { "" };
    let message = format!("an id has 64 hex digits, got {shown:?}{rest} ({count} characters)");
    Error::new(Kind::InvalidId, message)
}

/// Returns the digit for `nibble`, which is below 16.
fn digit(nibble: u8) -> char {
    char::from_digit(nibble.into(), 16).expect("four bits are one hex digit")
}

/// Returns what a hex digit of either case stands for.
fn value(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| value.try_into().ok())
}

/// How much of a text that isn't an id its error shows: an id, and a little of what is too much.
const SHOWN_CHARS_MAX: usize = 80;

#[cfg(test)]
mod tests {
    use super::*;

    fn check_invalid(text: &str, message: &str) {
        let error = text.parse::<ObjectId>().unwrap_err();
        assert_eq!((error.kind, error.message.as_str()), (Kind::InvalidId, message));
    }

    #[test]
    fn what_is_printed_parses_to_the_same_id() {
        for seed in 0..=255_u8 {
            let id = ObjectId::from_bytes(std::array::from_fn(|i| seed.wrapping_mul(31) ^ i as u8));
            let text = id.to_hex();
            assert_eq!(text.len(), 64);
            assert_eq!(text.parse(), Ok(id));
            assert_eq!(text.to_uppercase().parse(), Ok(id));
            assert_eq!(format!("{id} {id:?}"), format!("{text} {text}"));
            assert_eq!(ObjectId::try_from(id.as_bytes().as_slice()), Ok(id));
        }
    }

    #[test]
    fn ids_are_ordered_as_their_text_is() {
        let ids: Vec<ObjectId> = (0..=255)
            .map(|i: u8| ObjectId::from_bytes([i.wrapping_mul(167); 32]))
            .chain((0..32).map(|i| ObjectId::from_bytes(std::array::from_fn(|j| (i == j).into()))))
            .collect();
        for (a, b) in ids.iter().flat_map(|a| ids.iter().map(move |b| (a, b))) {
            assert_eq!(a.cmp(b), a.to_hex().cmp(&b.to_hex()));
            assert_eq!(a == b, a.as_bytes() == b.as_bytes());
        }
    }

    #[test]
    fn what_is_not_64_hex_digits_is_refused_by_showing_it() {
        check_invalid("", r#"an id has 64 hex digits, got "" (0 characters)"#);
        check_invalid("lobby\n", r#"an id has 64 hex digits, got "lobby\n" (6 characters)"#);
        for text in ["+f".repeat(32), "é".repeat(32), format!("{} ", "0".repeat(63))] {
            assert_eq!(text.len(), 64);
            let count = text.chars().count();
            check_invalid(
                &text,
                &format!("an id has 64 hex digits, got {text:?} ({count} characters)"),
            );
        }
    }

    #[test]
    fn a_long_text_is_shown_in_part_and_cut_between_characters() {
        let shown = "日".repeat(80);
        check_invalid(
            &"日".repeat(100_000),
            &format!("an id has 64 hex digits, got \"{shown}\"… (100000 characters)"),
        );
    }

    #[test]
    fn bytes_of_another_length_are_no_id() {
        for length in [0, 1, 16, 31, 33, 64] {
            let error = ObjectId::try_from(vec![7; length].as_slice()).unwrap_err();
            assert_eq!(error.kind, Kind::InvalidId);
            assert_eq!(error.message, format!("an id has 32 bytes, got {length}"));
        }
    }
}
