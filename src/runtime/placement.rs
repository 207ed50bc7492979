//! Says which shard an object lives on.

use crate::id::ObjectId;
use crate::storage::row::{VIRTUAL_SHARDS, virtual_shard};

/// Maps ids to the shards (threads) of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    shards: usize,
}

impl Placement {
    /// Spreads the virtual shards over `shards` threads (at least one).
    pub fn new(shards: usize) -> Self {
        Self { shards: shards.clamp(1, usize::from(VIRTUAL_SHARDS)) }
    }

    /// Returns how many threads there are.
    pub fn shards(self) -> usize {
        self.shards
    }

    /// Returns the thread that `id` lives on.
    pub fn shard(self, id: &ObjectId) -> usize {
        usize::from(virtual_shard(id)) % self.shards
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_lives_on_one_shard_and_ids_spread_evenly() {
        let placement = Placement::new(3);
        let mut counts = [0; 3];
        for n in 0..6000u16 {
            let mut bytes = [0; 32];
            bytes[..2].copy_from_slice(&n.wrapping_mul(40_503).to_be_bytes());
            let id = ObjectId::from_bytes(bytes);
            assert_eq!(placement.shard(&id), placement.shard(&id.clone()));
            counts[placement.shard(&id)] += 1;
        }
        assert!(counts.iter().all(|count| (1800..2200).contains(count)), "{counts:?}");
    }
}
