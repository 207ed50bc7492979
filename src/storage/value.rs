//! Values as they are stored: MessagePack, which says itself what it holds.
//!
//! **Invariant:** bytes that were stored by anybody decode or fail; they never panic.

use bytes::{Buf, Bytes};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};

/// Encodes a value. Structs keep the names of their fields.
///
/// # Errors
/// *failed* where the value can't be encoded.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Bytes> {
    let encoded = rmp_serde::to_vec_named(value);
    encoded.map(Bytes::from).map_err(|error| Error::failed(format!("can't be stored: {error}")))
}

/// Decodes a value.
///
/// # Errors
/// *failed* where the bytes are no `T`.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    rmp_serde::from_slice(bytes).map_err(|error| {
        let wanted = std::any::type_name::<T>();
        Error::failed(format!("what is stored is no {wanted}: {error}"))
    })
}

/// Encodes raw bytes.
pub fn encode_bytes(bytes: &[u8]) -> Bytes {
    let mut encoded = Vec::with_capacity(bytes.len() + 5);
    match u32::try_from(bytes.len()) {
        Ok(length) if length < 1 << 8 => encoded.extend([0xc4, length as u8]),
        Ok(length) if length < 1 << 16 => {
            encoded.push(0xc5);
            encoded.extend((length as u16).to_be_bytes());
        }
        // A value is far smaller: its size is checked before it is stored.
        length => {
            encoded.push(0xc6);
            encoded.extend(length.unwrap_or(u32::MAX).to_be_bytes());
        }
    }
    encoded.extend_from_slice(bytes);
    encoded.into()
}

/// Decodes raw bytes, or the bytes of a text.
///
/// # Errors
/// *failed* where something else is stored.
pub fn decode_bytes(mut stored: Bytes) -> Result<Bytes> {
    let wrong = || Error::failed("what is stored is not bytes");
    let (skipped, length) = match *stored.first().ok_or_else(wrong)? {
        marker @ 0xa0..=0xbf => (1, usize::from(marker & 0x1f)),
        0xc4 | 0xd9 => (2, number(&stored, 1).ok_or_else(wrong)?),
        0xc5 | 0xda => (3, number(&stored, 2).ok_or_else(wrong)?),
        0xc6 | 0xdb => (5, number(&stored, 4).ok_or_else(wrong)?),
        _ => return Err(wrong()),
    };
    if stored.len() != skipped + length {
        return Err(wrong());
    }
    stored.advance(skipped);
    Ok(stored)
}

/// Reads the number of `width` bytes behind the marker.
fn number(stored: &[u8], width: usize) -> Option<usize> {
    let digits = stored.get(1..=width)?;
    Some(digits.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Cart {
        items: Vec<(String, u32)>,
        total: f64,
        note: Option<String>,
    }

    #[test]
    fn a_value_comes_back_as_it_was_and_says_its_fields() {
        let cart = Cart { items: vec![("tea".into(), 2)], total: 9.5, note: None };
        let stored = encode(&cart).unwrap();
        assert_eq!(decode::<Cart>(&stored), Ok(cart));
        let seen: serde_json::Value = decode(&stored).unwrap();
        assert_eq!(seen.to_string(), r#"{"items":[["tea",2]],"note":null,"total":9.5}"#);
    }

    #[test]
    fn what_is_stored_as_something_else_is_an_error_that_says_so() {
        let error = decode::<u32>(&encode("text").unwrap()).unwrap_err();
        assert!(error.message.starts_with("what is stored is no u32: "), "{error}");
    }

    #[test]
    fn bytes_of_any_length_come_back() {
        for length in [0, 1, 31, 32, 255, 256, 65_535, 65_536, 2 << 20] {
            let bytes: Vec<u8> = (0..length).map(|i| i as u8).collect();
            let stored = encode_bytes(&bytes);
            assert_eq!(decode_bytes(stored.clone()).unwrap(), bytes);
            assert_eq!(decode::<serde_bytes::Owned>(&stored).unwrap().0, bytes);
        }
        assert_eq!(decode_bytes(encode("text").unwrap()).unwrap(), "text");
    }

    mod serde_bytes {
        //! Bytes as serde has them.
        use serde::de::{Deserialize, Deserializer, Error, Visitor};

        pub(super) struct Owned(pub(super) Vec<u8>);

        impl<'de> Deserialize<'de> for Owned {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                struct Of;
                impl Visitor<'_> for Of {
                    type Value = Owned;
                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str("bytes")
                    }
                    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Owned, E> {
                        Ok(Owned(bytes.to_vec()))
                    }
                }
                from.deserialize_bytes(Of)
            }
        }
    }

    #[test]
    fn no_bytes_make_decoding_panic() {
        let entropy = crate::entropy::Entropy::seeded(3);
        for length in 0..64 {
            for _ in 0..200 {
                let bytes: Vec<u8> = (0..length).map(|_| entropy.number() as u8).collect();
                let _ = decode::<serde_json::Value>(&bytes);
                let _ = decode::<Cart>(&bytes);
                let _ = decode_bytes(bytes.into());
            }
        }
    }
}
