//! The checksum of a page.
//!
//! **Invariant:** a change within one word (eight bytes at a multiple of eight) changes the sum for certain; any
//! other change leaves it as it is with a chance of 2⁻⁶⁴.
//!
//! Four lanes take a word each in turn, so that a processor works on all four at once. Taking a word is
//! reversible, for the lane and for the word, and so is bringing the lanes together: what differs once differs
//! to the end.

/// Returns the sum of bytes that lie at `offset` of a file.
pub(super) fn of(bytes: &[u8], offset: u64) -> u64 {
    let [mut a, mut b, mut c, mut d] = LANES.map(|lane| take(lane, offset));
    let (blocks, rest) = bytes.as_chunks::<32>();
    for block in blocks {
        let (words, _) = block.as_chunks::<8>();
        if let [w, x, y, z] = words {
            a = take(a, u64::from_le_bytes(*w));
            b = take(b, u64::from_le_bytes(*x));
            c = take(c, u64::from_le_bytes(*y));
            d = take(d, u64::from_le_bytes(*z));
        }
    }
    let (words, rest) = rest.as_chunks::<8>();
    for word in words {
        a = take(a, u64::from_le_bytes(*word));
    }
    for byte in rest {
        a = take(a, u64::from(*byte));
    }
    let count = bytes.len() as u64;
    [a, b, c, d, count].into_iter().fold(offset, take)
}

/// Takes a word into a lane.
fn take(lane: u64, word: u64) -> u64 {
    let product = (lane ^ word).wrapping_mul(ODD);
    product ^ (product >> 32)
}

/// Odd, so that multiplying is reversible; the fraction of the golden ratio, which has no pattern.
const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
/// Where the lanes begin: the fractions of the square roots of 2, 3, 5 and 7.
const LANES: [u64; 4] =
    [0x6a09_e667_f3bc_c908, 0xbb67_ae85_84ca_a73b, 0x3c6e_f372_fe94_f82b, 0xa54f_f53a_5f1d_36f1];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::of;

    #[test]
    fn every_flipped_bit_gives_another_sum() {
        for length in [504, 8184] {
            let mut page: Vec<u8> = (0..length).map(|n| (n * 7 % 251) as u8).collect();
            let mut sums = HashSet::from([of(&page, 8192)]);
            for bit in 0..length * 8 {
                page[bit / 8] ^= 1 << (bit % 8);
                assert!(sums.insert(of(&page, 8192)), "bit {bit} of {length} bytes");
                page[bit / 8] ^= 1 << (bit % 8);
            }
        }
    }

    #[test]
    fn place_length_and_order_count() {
        let page = [7; 4088];
        let places: HashSet<u64> = (0..1000).map(|page_no| of(&page, page_no * 4096)).collect();
        assert_eq!(places.len(), 1000);
        assert_ne!(of(&[0; 504], 0), of(&[0; 512], 0));
        assert_ne!(of(&[0; 504], 0), 0);
        let mut swapped = [0; 504];
        swapped[0] = 1;
        let first = of(&swapped, 0);
        swapped.swap(0, 32);
        let later = of(&swapped, 0);
        swapped.swap(32, 8);
        assert!(first != later && later != of(&swapped, 0));
    }

    /// Files are read by later versions.
    #[test]
    fn the_sum_stays_what_it_is() {
        let page: Vec<u8> = (0..504_u64).map(|n| (n * 31 % 256) as u8).collect();
        assert_eq!(of(&page, 0), 0x4871_89f8_0096_8e07);
        assert_eq!(of(&page, 512), 0xb986_0569_e457_b5b1);
    }
}
