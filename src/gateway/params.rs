//! The parameters of a question.

use std::borrow::Cow;
use std::ops::RangeInclusive;

use super::path::decode;
use crate::error::{Error, Result};
use crate::id::ObjectId;
use crate::runtime::{Key, Shard};

/// The parameters of a question, each `name=value`, percent-encoded.
pub(super) struct Params(Vec<(String, String)>);

impl Params {
    /// Reads a query. What is no parameter is passed over.
    pub(super) fn of(query: &str) -> Self {
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let decoded = pairs.filter_map(|(name, value)| {
            Some((name.to_owned(), decode(value).map(Cow::into_owned)?))
        });
        Self(decoded.collect())
    }

    /// Returns a parameter that is there and not empty.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        let known = self.0.iter().find(|(known, value)| known == name && !value.is_empty());
        known.map(|(_, value)| value.as_str())
    }

    /// Returns a number within bounds; `default` where none is given.
    pub(super) fn number(
        &self,
        name: &str,
        default: usize,
        bounds: RangeInclusive<usize>,
    ) -> Result<usize> {
        let Some(text) = self.text(name) else { return Ok(default) };
        let number = text.parse().ok().filter(|number| bounds.contains(number));
        number.ok_or_else(|| {
            let (min, max) = (bounds.start(), bounds.end());
            Error::invalid_request(format!("{name}={text:.100} is not {min} to {max}"))
        })
    }

    /// Returns the number of the namespace that is named.
    pub(super) fn namespace(&self, shard: &Shard) -> Result<usize> {
        shard.namespaces().find(self.text("namespace").unwrap_or_default())
    }

    /// Returns the object that is named by its id.
    pub(super) fn object(&self, shard: &Shard) -> Result<Key> {
        key(shard, self.text("namespace").unwrap_or_default(), self.text("id").unwrap_or_default())
    }

    /// Returns the id behind which to go on.
    pub(super) fn after(&self) -> Result<Option<ObjectId>> {
        let wrong = |text| Error::invalid_request(format!("cursor={text:.100} is not a cursor"));
        let cursor = self.text("cursor");
        cursor.map(|text| text.parse().map_err(|_| wrong(text))).transpose()
    }
}

/// Returns the object of a namespace with an id.
pub(super) fn key(shard: &Shard, namespace: &str, id: &str) -> Result<Key> {
    let namespace = shard.namespaces().find(namespace)?;
    let id = shard.namespaces().at(namespace).ids().id_from_string(id)?;
    Ok(Key { namespace, id })
}

/// Writes bytes as digits.
pub(super) fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads bytes that were written as digits.
pub(super) fn of_hex(text: &str) -> Result<Vec<u8>> {
    let digits: Option<Vec<u32>> = text.chars().map(|digit| digit.to_digit(16)).collect();
    let bytes = digits.as_ref().and_then(|digits| {
        let (pairs, []) = digits.as_chunks() else { return None };
        pairs.iter().map(|[high, low]| u8::try_from(high << 4 | low).ok()).collect()
    });
    bytes.ok_or_else(|| Error::invalid_request(format!("cursor={text:.100} is not a cursor")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_is_decoded_and_a_number_within_its_bounds() {
        let params = Params::of("a=x%26%20%22y&b=&limit=7&bad=%zz&c");
        assert_eq!(params.text("a"), Some("x& \"y"));
        for missing in ["b", "bad", "c", "d"] {
            assert_eq!(params.text(missing), None, "{missing}");
        }
        assert_eq!(params.number("limit", 3, 7..=9), Ok(7));
        assert_eq!(params.number("other", 3, 7..=9), Ok(3));
        for bounds in [1..=6, 8..=9] {
            assert!(params.number("limit", 3, bounds).is_err());
        }
        assert!(params.number("a", 3, 1..=9).is_err());
        assert_eq!(of_hex(&to_hex(b"a\0\xff")), Ok(b"a\0\xff".to_vec()));
        assert!(of_hex("0").is_err() && of_hex("0g").is_err());
    }
}
