//! Bearer tokens.
//!
//! **Invariant:** only hashes are kept, and they are compared in a time that does not depend on what is equal.

use std::fmt;

use sha2::{Digest, Sha256};

/// The tokens that let their bearers list.
#[derive(Clone, Default)]
pub(crate) struct Tokens(Vec<[u8; 32]>);

impl Tokens {
    /// Adds one.
    pub(crate) fn add(&mut self, token: &str) {
        self.0.push(Sha256::digest(token.as_bytes()).into());
    }

    /// Returns whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns whether an empty one is among them, which everybody has.
    pub(super) fn has_empty(&self) -> bool {
        self.has(&[])
    }

    /// Returns whether `token` is one of them. Each is looked at, whichever it is.
    pub(super) fn has(&self, token: &[u8]) -> bool {
        let digest: [u8; 32] = Sha256::digest(token).into();
        let differences = |known: &[u8; 32]| {
            known
                .iter()
                .zip(digest)
                .fold(0, |differences, (known, given)| differences | (known ^ given))
        };
        let differences = self.0.iter().map(differences);
        differences.fold(false, |found, differences| found | (differences == 0))
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} tokens", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_known_by_all_of_its_bytes_and_never_printed() {
        let mut tokens = Tokens::default();
        assert!(tokens.is_empty() && !tokens.has(b""));
        tokens.add("alpha");
        tokens.add("beta");
        for (token, known) in
            [("alpha", true), ("beta", true), ("", false), ("alph", false), ("alphab", false)]
        {
            assert_eq!(tokens.has(token.as_bytes()), known, "{token}");
        }
        assert_eq!(format!("{tokens:?}"), "2 tokens");
    }
}
