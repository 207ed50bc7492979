//! Where the pages of a database come from.

use bytes::Bytes;

use crate::error::Result;

/// The bytes of a page, and of a row of [`Table::Page`](crate::storage::row::Table::Page).
pub const PAGE_BYTES: usize = 4096;

/// Where the pages of one database come from: what was taken from it, durable or not.
///
/// It must not use the database that it is of: that fails.
pub trait Pages {
    /// Returns a page, of [`PAGE_BYTES`] bytes; none where it isn't there, which below
    /// [`count`](Self::count) is damage.
    ///
    /// # Errors
    /// Where it can't be read: the database is broken from then on, and says why.
    fn page(&self, number: u32) -> Result<Option<Bytes>>;

    /// Returns how many pages there are: from 0 on, without a gap. It is asked once, at the start.
    ///
    /// # Errors
    /// Where it can't be told.
    fn count(&self) -> Result<u32>;
}
