//! How much a database may take.

/// What one database may take: the defaults are what an object needs that was not thought about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the database, in pages of 4 KiB.
    pub database_bytes_max: u64,
    /// Bytes of pages that may wait to be taken: what statements have written since the last time.
    pub transaction_bytes_max: u64,
    /// Bytes of one text, blob or row.
    pub value_bytes_max: u32,
    /// Bytes of the SQL text of one call.
    pub statement_bytes_max: u32,
    /// Parameters of one statement.
    pub parameters_max: u32,
    /// Bytes of the result of [`exec`](super::database::Database::exec), which is held in memory.
    pub result_bytes_max: usize,
    /// Steps of SQLite's machine that one statement may take; a few tens of millions go into a second.
    pub steps_max: u64,
    /// Bytes of pages that SQLite keeps in memory beside those that wait to be taken.
    pub cache_bytes: u32,
    /// Statements that stay prepared.
    pub statements_cached: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            database_bytes_max: 10 << 30,
            transaction_bytes_max: 64 << 20,
            value_bytes_max: 2 << 20,
            statement_bytes_max: 1 << 20,
            parameters_max: 1000,
            result_bytes_max: 16 << 20,
            steps_max: 1_000_000_000,
            cache_bytes: 256 << 10,
            statements_cached: 16,
        }
    }
}
