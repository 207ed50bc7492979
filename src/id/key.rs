//! How a namespace makes ids, and tells its own from others.
//!
//! An id is a *base* of 16 bytes followed by a *check*: 16 bytes of a keyed hash of the base. The base
//! is a keyed hash of the name, or random. Only who has the key can make an id that passes, so an id
//! proves by itself that it belongs to its namespace, and nothing has to be looked up.
//!
//! **Invariant:** the same key and name give the same id for ever, and the one that the platform's own
//! runtime gives: stored data is found under it (`tests/data/id-vectors.json`).
//! **Invariant:** the key is never printed, and checks are compared in constant time.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use super::ObjectId;
use crate::error::{Error, Kind, Result};

/// Makes and checks the ids of one namespace.
///
/// ```
/// use stubborn::id::NamespaceKey;
///
/// let key = NamespaceKey::new("a secret of the configuration");
/// let id = key.id_from_name("lobby");
/// assert_eq!(key.id_from_string(&id.to_hex()), Ok(id));
/// assert!(NamespaceKey::new("another").check(&id).is_err());
/// ```
#[derive(Clone)]
pub struct NamespaceKey {
    /// The keyed hash before its first byte: cloned for each use, so that the key is set up once.
    keyed: Hmac<Sha256>,
}

impl NamespaceKey {
    /// Derives the key from the namespace's secret configuration string.
    pub fn new(unique_key: &str) -> Self {
        let key = Sha256::digest(unique_key.as_bytes());
        Self { keyed: Hmac::new_from_slice(&key).expect("a keyed hash takes a key of any length") }
    }

    /// Returns the id that belongs to `name`. Any text is a name, also the empty one.
    pub fn id_from_name(&self, name: &str) -> ObjectId {
        self.id_of_base(self.hash(name.as_bytes()))
    }

    /// Returns the id with the random base `entropy`, which no name leads to.
    pub fn new_unique_id(&self, entropy: [u8; BASE_LEN]) -> ObjectId {
        self.id_of_base(entropy)
    }

    /// Parses an id and checks that it belongs here.
    ///
    /// Fails with kind *invalid id* where `text` isn't 64 hex digits, and with *wrong namespace* where
    /// it is an id of another namespace, or forged.
    pub fn id_from_string(&self, text: &str) -> Result<ObjectId> {
        let id = text.parse()?;
        self.check(&id)?;
        Ok(id)
    }

    /// Fails with kind *wrong namespace* unless `id` was made with this key.
    pub fn check(&self, id: &ObjectId) -> Result<()> {
        let (base, check) = id.as_bytes().split_at(BASE_LEN);
        self.keyed.clone().chain_update(base).verify_truncated_left(check).map_err(|_| {
            let message = format!("id {id} is not of this namespace");
            Error::new(Kind::WrongNamespace, message)
        })
    }

    /// Returns what tells this key from others and does not give it away: stored data is filed under it.
    pub fn fingerprint(&self) -> [u8; 16] {
        // No name hashes to it: a name is UTF-8, and this is not.
        self.hash(b"\xffstorage")
    }

    fn id_of_base(&self, base: [u8; BASE_LEN]) -> ObjectId {
        let mut bytes = [0; ObjectId::LEN];
        let (first, second) = bytes.split_at_mut(BASE_LEN);
        first.copy_from_slice(&base);
        second.copy_from_slice(&self.hash(&base));
        let id = ObjectId::from_bytes(bytes);
        debug_assert!(self.check(&id).is_ok(), "an id that was just made passes its check");
        id
    }

    /// Returns the first half of the keyed hash of `bytes`.
    fn hash(&self, bytes: &[u8]) -> [u8; BASE_LEN] {
        let whole: [u8; 32] = self.keyed.clone().chain_update(bytes).finalize().into_bytes().into();
        *whole.first_chunk().expect("half of the hash fits the hash")
    }
}

impl fmt::Debug for NamespaceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NamespaceKey").finish_non_exhaustive()
    }
}

/// The length of an id's base, and of its check.
const BASE_LEN: usize = ObjectId::LEN / 2;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::Entropy;

    /// Calls `check` with the fields `names` of every vector in `section`; fails where there is none.
    fn each_vector<const N: usize>(section: &str, names: [&str; N], check: impl Fn([&str; N])) {
        let text = include_str!("../../tests/data/id-vectors.json");
        let vectors: serde_json::Value = serde_json::from_str(text).unwrap();
        let vectors = vectors[section].as_array().unwrap();
        assert!(!vectors.is_empty(), "{section}");
        for vector in vectors {
            check(names.map(|name| vector[name].as_str().unwrap()));
        }
    }

    fn random_ids(key: &NamespaceKey) -> impl Iterator<Item = ObjectId> {
        let entropy = Entropy::seeded(7);
        std::iter::repeat_with(move || key.new_unique_id(entropy.bytes())).take(200)
    }

    #[test]
    fn names_give_the_ids_of_the_platform() {
        each_vector("from_name", ["unique_key", "name", "id"], |[key, name, id]| {
            let key = NamespaceKey::new(key);
            assert_eq!(key.id_from_name(name).to_hex(), id, "{name:?}");
            assert_eq!(key.id_from_string(id), Ok(key.id_from_name(name)), "{name:?}");
        });
    }

    #[test]
    fn texts_that_the_platform_accepts_are_accepted() {
        each_vector("accepted", ["unique_key", "text", "id"], |[key, text, id]| {
            let got = NamespaceKey::new(key).id_from_string(text).unwrap();
            assert_eq!(got.to_hex(), id, "{text:?}");
        });
    }

    #[test]
    fn texts_that_the_platform_rejects_are_rejected_by_naming_them() {
        each_vector("rejected", ["unique_key", "text", "kind"], |[key, text, kind]| {
            let error = NamespaceKey::new(key).id_from_string(text).unwrap_err();
            assert_eq!(error.kind.as_str(), kind, "{text:?}");
            let shown: String = text.chars().take(80).collect();
            assert!(error.message.contains(&shown), "{error}");
        });
    }

    #[test]
    fn the_vectors_have_no_section_that_is_not_tested() {
        let text = include_str!("../../tests/data/id-vectors.json");
        let vectors: serde_json::Value = serde_json::from_str(text).unwrap();
        let sections: Vec<&String> = vectors.as_object().unwrap().keys().collect();
        assert_eq!(sections, ["about", "accepted", "algorithm", "from_name", "rejected"]);
    }

    #[test]
    fn an_id_keeps_its_random_base_and_passes_in_its_namespace_only() {
        let (ours, theirs) = (NamespaceKey::new("ours"), NamespaceKey::new("theirs"));
        for id in random_ids(&ours) {
            let base = *id.as_bytes().first_chunk().unwrap();
            assert_eq!(ours.new_unique_id(base), id);
            assert_eq!(ours.check(&id), Ok(()));
            assert_eq!(ours.id_from_string(&id.to_hex().to_uppercase()), Ok(id));
            let error = theirs.check(&id).unwrap_err();
            assert_eq!(error.kind, Kind::WrongNamespace);
            assert_eq!(error.message, format!("id {id} is not of this namespace"));
            assert_eq!(theirs.id_from_string(&id.to_hex()), Err(error));
        }
    }

    #[test]
    fn an_id_with_any_one_bit_changed_is_refused() {
        let key = NamespaceKey::new("mykey");
        for id in [key.id_from_name("foo"), key.new_unique_id([0; 16])] {
            for bit in 0..256 {
                let mut bytes = *id.as_bytes();
                bytes[bit / 8] ^= 1 << (bit % 8);
                let error = key.check(&ObjectId::from_bytes(bytes)).unwrap_err();
                assert_eq!(error.kind, Kind::WrongNamespace, "bit {bit}");
            }
        }
    }

    #[test]
    fn different_names_and_different_entropy_give_different_ids() {
        let key = NamespaceKey::new("mykey");
        let named = (0..200).map(|i| key.id_from_name(&format!("room-{i}")));
        let ids: std::collections::BTreeSet<ObjectId> = named.chain(random_ids(&key)).collect();
        assert_eq!(ids.len(), 400);
    }

    #[test]
    fn the_key_is_not_printed() {
        assert_eq!(format!("{:?}", NamespaceKey::new("secret")), "NamespaceKey { .. }");
    }
}
