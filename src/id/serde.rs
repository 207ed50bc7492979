//! Ids as text in configuration and listings.
//!
//! **Invariant:** the text is that of `Display`, so that an id looks the same wherever it is read.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::ObjectId;

impl Serialize for ObjectId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ObjectId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_in_json_is_its_hex_text() {
        let id = ObjectId::from_bytes([0x5a; 32]);
        let text = serde_json::to_string(&id).unwrap();
        assert_eq!(text, format!("\"{}\"", id.to_hex()));
        assert_eq!(serde_json::from_str::<ObjectId>(&text).unwrap(), id);
    }

    #[test]
    fn json_that_is_no_id_is_refused_by_naming_it() {
        let error = serde_json::from_str::<ObjectId>("\"lobby\"").unwrap_err();
        assert!(error.to_string().contains("\"lobby\""), "{error}");
    }
}
