//! Stored values as people read them: JSON, and bytes as text where they are text.
//!
//! **Invariant:** whatever is stored, writing it takes time and stack in proportion to its size.

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// Returns a stored value as people read it: as JSON, or as the bytes that it consists of where it is no value.
pub fn shown(stored: &[u8]) -> String {
    match super::value::decode::<Readable>(stored) {
        Ok(Readable(text)) => text,
        Err(_) => format!("not a value: {}", stored.escape_ascii()),
    }
}

/// Returns bytes as they are written within a value: `bytes"…"`, escaped.
pub fn bytes(bytes: &[u8]) -> String {
    format!("bytes\"{}\"", bytes.escape_ascii())
}

/// Any value that serde knows, written as JSON.
struct Readable(String);

impl<'de> Deserialize<'de> for Readable {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let mut text = String::new();
        Writer { text: &mut text, depth: 0 }.deserialize(from)?;
        Ok(Self(text))
    }
}

/// Appends one value to a text.
struct Writer<'a> {
    text: &'a mut String,
    depth: u32,
}

impl Writer<'_> {
    fn push(self, text: &str) {
        self.text.push_str(text);
    }

    fn within<E: Error>(&mut self) -> Result<Writer<'_>, E> {
        match self.depth < DEPTH_MAX {
            true => Ok(Writer { text: &mut *self.text, depth: self.depth + 1 }),
            false => Err(E::custom("it is nested too deeply")),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Writer<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Writer<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.push(if value { "true" } else { "false" });
        Ok(())
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.push(&value.to_string());
        Ok(())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.push(&value.to_string());
        Ok(())
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.push(&value.to_string());
        Ok(())
    }

    fn visit_str<E>(self, value: &str) -> Result<(), E> {
        self.push(&serde_json::Value::from(value).to_string());
        Ok(())
    }

    fn visit_bytes<E>(self, value: &[u8]) -> Result<(), E> {
        self.push(&bytes(value));
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.push("null");
        Ok(())
    }

    fn visit_none<E: Error>(self) -> Result<(), E> {
        self.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(mut self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self.within()?)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut from: A) -> Result<(), A::Error> {
        self.text.push('[');
        while from.next_element_seed(self.within()?)?.is_some() {
            self.text.push(',');
        }
        self.end(']');
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut from: A) -> Result<(), A::Error> {
        self.text.push('{');
        while from.next_key_seed(self.within()?)?.is_some() {
            self.text.push(':');
            from.next_value_seed(self.within()?)?;
            self.text.push(',');
        }
        self.end('}');
        Ok(())
    }
}

impl Writer<'_> {
    /// Closes a bracket in place of the comma before it.
    fn end(self, bracket: char) {
        if self.text.ends_with(',') {
            self.text.pop();
        }
        self.text.push(bracket);
    }
}

/// As deep as JSON is read.
const DEPTH_MAX: u32 = 128;

#[cfg(test)]
mod tests {
    use super::super::value;
    use super::*;

    #[test]
    fn whatever_is_stored_is_written_as_people_read_it() {
        let json = serde_json::json!({
            "a": [1, -2, 2.5, null, true, [], {}, ","],
            "b": { "c": "x\"y" },
        });
        assert_eq!(shown(&value::encode(&json).unwrap()), json.to_string());
        assert_eq!(shown(&value::encode_bytes(b"a\0\xff")), r#"bytes"a\x00\xff""#);
        assert_eq!(shown(&value::encode("text").unwrap()), r#""text""#);
        assert_eq!(shown(b"\xc1"), "not a value: \\xc1");
    }

    #[test]
    fn what_is_nested_too_deeply_is_shown_as_its_bytes() {
        let nested = |depth| [&vec![0x91; depth][..], &[0xc0]].concat();
        assert_eq!(shown(&nested(128)), format!("{}null{}", "[".repeat(128), "]".repeat(128)));
        for depth in [129, 1_000, 100_000] {
            assert!(shown(&nested(depth)).starts_with("not a value: \\x91"));
        }
    }
}
