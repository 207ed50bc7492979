//! Where randomness enters.
//!
//! **Invariant:** nothing else that decides anything asks the operating system for random bytes, so that a
//! test that seeds this repeats. (The name of a run of the server is a UUID: it decides nothing.)

use std::cell::Cell;

/// Yields random bytes: of the operating system, or repeatable ones from a seed.
///
/// Not shared between threads: each has its own.
#[derive(Debug)]
pub struct Entropy {
    source: Source,
}

#[derive(Debug)]
enum Source {
    System,
    Seeded(Cell<u64>),
}

impl Entropy {
    /// Makes one that asks the operating system: its bytes can't be guessed.
    pub const fn system() -> Self {
        Self { source: Source::System }
    }

    /// Makes one that yields the same bytes for the same seed. For tests: they can be guessed.
    pub const fn seeded(seed: u64) -> Self {
        Self { source: Source::Seeded(Cell::new(seed)) }
    }

    /// Yields 16 random bytes: all 128 bits of them.
    ///
    /// # Panics
    ///
    /// When the operating system has no randomness to give: nothing secret can be made then.
    pub fn bytes(&self) -> [u8; 16] {
        let (high, low) = (self.number(), self.number());
        (u128::from(high) << 64 | u128::from(low)).to_le_bytes()
    }

    /// Yields a random number: for jitter, and for seeds of others.
    ///
    /// # Panics
    ///
    /// As [`bytes`](Self::bytes).
    #[expect(clippy::disallowed_methods, reason = "randomness enters here")]
    pub fn number(&self) -> u64 {
        match &self.source {
            Source::System => getrandom::u64().expect("the operating system gives random bytes"),
            Source::Seeded(state) => {
                let (next, number) = split_mix(state.get());
                state.set(next);
                number
            }
        }
    }
}

/// Takes one step of the SplitMix64 generator: the next state, and the number it yields.
const fn split_mix(state: u64) -> (u64, u64) {
    let next = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (next ^ (next >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (next, mixed ^ (mixed >> 31))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_seed_repeats_and_another_seed_differs() {
        let draw = |seed| {
            let entropy = Entropy::seeded(seed);
            (0..100).map(|_| entropy.bytes()).collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }

    #[test]
    fn seeded_numbers_are_those_of_the_published_generator() {
        let entropy = Entropy::seeded(1_234_567);
        assert_eq!(entropy.number(), 6_457_827_717_110_365_317);
        assert_eq!(entropy.number(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn every_one_of_the_128_bits_varies_and_nothing_comes_twice() {
        for entropy in [Entropy::system(), Entropy::seeded(0)] {
            let drawn: Vec<u128> = (0..256).map(|_| u128::from_le_bytes(entropy.bytes())).collect();
            assert_eq!(drawn.iter().fold(0, |bits, one| bits | one), u128::MAX);
            assert_eq!(drawn.iter().fold(u128::MAX, |bits, one| bits & one), 0);
            assert_eq!(drawn.iter().collect::<HashSet<_>>().len(), drawn.len());
        }
    }
}
