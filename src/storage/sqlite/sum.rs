//! The checksum of a row: what a disk gives back is what was written, or an error.
//!
//! **Invariant:** it covers the table, the key and the value, so that a row can't pass for another.

use crate::storage::row::Key;

/// Returns the checksum of a row, as its column has it.
pub(super) fn of_row(key: &Key, value: &[u8]) -> i64 {
    let length = u32::try_from(key.bytes().len()).unwrap_or(u32::MAX).to_be_bytes();
    let mut sum = !0;
    for part in [key.table().name().as_bytes(), &length, key.bytes(), value] {
        sum = add(sum, part);
    }
    // SQLite keeps an integer in as few bytes as it can: signed, four suffice.
    i64::from((!sum).cast_signed())
}

/// Goes on with a CRC-32C, eight bytes at a time.
fn add(sum: u32, bytes: &[u8]) -> u32 {
    let (words, rest) = bytes.as_chunks::<8>();
    let sum = words.iter().fold(sum, |sum, word| {
        let mixed = u64::from_le_bytes(*word) ^ u64::from(sum);
        let parts = TABLES.iter().rev().zip(mixed.to_le_bytes());
        parts.fold(0, |sum, (table, byte)| sum ^ entry(table, byte))
    });
    let [table, ..] = &TABLES;
    rest.iter().fold(sum, |sum, byte| {
        let [low, ..] = sum.to_le_bytes();
        entry(table, low ^ byte) ^ (sum >> 8)
    })
}

fn entry(table: &[u32; 256], byte: u8) -> u32 {
    table.get(usize::from(byte)).copied().unwrap_or_default()
}

/// What a byte adds to the sum, when so many bytes follow it in its word.
static TABLES: [[u32; 256]; 8] = tables();

#[expect(
    clippy::indexing_slicing,
    reason = "the compiler runs it, and would refuse an index out of bounds"
)]
const fn tables() -> [[u32; 256]; 8] {
    /// The polynomial of CRC-32C, its bits reversed.
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut sum = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            sum = if sum & 1 == 1 { sum >> 1 ^ POLYNOMIAL } else { sum >> 1 };
            bit += 1;
        }
        tables[0][byte] = sum;
        byte += 1;
    }
    let mut behind = 1;
    while behind < 8 {
        byte = 0;
        while byte < 256 {
            let sum = tables[behind - 1][byte];
            tables[behind][byte] = tables[0][(sum & 0xff) as usize] ^ sum >> 8;
            byte += 1;
        }
        behind += 1;
    }
    tables
}

#[cfg(test)]
mod tests {
    use super::add;

    #[test]
    fn it_is_the_crc_32c_that_others_know() {
        let sum = |bytes: &[u8]| !add(!0, bytes);
        assert_eq!(sum(b"123456789"), 0xe306_9283);
        assert_eq!(sum(&[0; 32]), 0x8a91_36aa);
        assert_eq!(sum(&[0xff; 32]), 0x62a8_ab43);
        for split in 0..9 {
            let (a, b) = b"123456789".split_at(split);
            assert_eq!(!add(add(!0, a), b), 0xe306_9283, "split at {split}");
        }
    }
}
