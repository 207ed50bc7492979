//! Stored values as people read them: JSON, and bytes as text where they are text.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// Any value that serde knows, written as JSON. Bytes are written as `bytes"…"`, escaped.
pub struct Readable(String);

impl Readable {
    /// Writes bytes.
    pub fn bytes(bytes: &[u8]) -> Self {
        Self(format!("bytes\"{}\"", bytes.escape_ascii()))
    }
}

impl fmt::Display for Readable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Readable {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Writer).map(Self)
    }
}

struct Writer;

impl<'de> Visitor<'de> for Writer {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_i64<E>(self, value: i64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_u64<E>(self, value: u64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_f64<E>(self, value: f64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_str<E>(self, value: &str) -> Result<String, E> {
        Ok(serde_json::Value::from(value).to_string())
    }

    fn visit_bytes<E>(self, value: &[u8]) -> Result<String, E> {
        Ok(Readable::bytes(value).0)
    }

    fn visit_unit<E>(self) -> Result<String, E> {
        Ok("null".to_owned())
    }

    fn visit_none<E>(self) -> Result<String, E> {
        Ok("null".to_owned())
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<String, D::Error> {
        from.deserialize_any(self)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, from: D) -> Result<String, D::Error> {
        from.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<String, A::Error> {
        let mut items = Vec::new();
        while let Some(Readable(item)) = from.next_element()? {
            items.push(item);
        }
        Ok(format!("[{}]", items.join(",")))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<String, A::Error> {
        let mut items = Vec::new();
        while let Some((Readable(key), Readable(value))) = from.next_entry()? {
            items.push(format!("{key}:{value}"));
        }
        Ok(format!("{{{}}}", items.join(",")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::value;

    #[test]
    fn whatever_is_stored_is_written_as_people_read_it() {
        let shown = |stored: bytes::Bytes| value::decode::<Readable>(&stored).unwrap().to_string();
        let json = serde_json::json!({ "a": [1, -2, 2.5, null, true], "b": { "c": "x\"y" } });
        assert_eq!(shown(value::encode(&json).unwrap()), json.to_string());
        assert_eq!(shown(value::encode_bytes(b"a\0\xff")), r#"bytes"a\x00\xff""#);
        assert_eq!(shown(value::encode("text").unwrap()), r#""text""#);
    }
}
