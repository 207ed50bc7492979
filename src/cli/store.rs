//! `stubborn backup`, `stubborn restore` and `stubborn verify`: a data directory as a whole.

use std::path::Path;

use super::args::{Backup, Restore, Verify};
use super::failure::REFUSED;
use super::output;
use super::progress::Progress;
use crate::error::Result;
use crate::storage::sqlite;

/// Copies a data directory, whether a server runs on it or not.
pub async fn backup(args: Backup) -> anyhow::Result<i32> {
    copy("backing up", |progress| sqlite::backup(&args.data, &args.to, progress))?;
    told("backed up", &args.data, &args.to).await
}

/// Makes a data directory of a backup.
pub async fn restore(args: Restore) -> anyhow::Result<i32> {
    copy("restoring", |progress| sqlite::restore(&args.backup, &args.data, progress))?;
    told("restored", &args.backup, &args.data).await
}

/// Looks at every page and every row of a data directory.
pub async fn verify(args: Verify) -> anyhow::Result<i32> {
    let damages = sqlite::verify(&args.data)?;
    for damage in &damages {
        let at = damage.offset.map_or(String::new(), |offset| format!(" at byte {offset}"));
        output::write(format!("{}{at}: {}\n", damage.file.display(), damage.what)).await?;
    }
    if damages.is_empty() {
        output::write(format!("{} is whole\n", args.data.display())).await?;
    }
    Ok(if damages.is_empty() { 0 } else { REFUSED })
}

/// Runs a copy, which tells how many pages of how many are done.
fn copy(
    what: &'static str,
    copy: impl FnOnce(&mut dyn FnMut(u64, u64)) -> Result<()>,
) -> Result<()> {
    let mut shown: Option<(Progress, u64)> = None;
    let copied = copy(&mut |done, all| {
        let (progress, before) = shown.get_or_insert_with(|| {
            (Progress::new(what, Some(all * u64::from(sqlite::PAGE_BYTES))), 0)
        });
        let more = done.saturating_sub(*before) * u64::from(sqlite::PAGE_BYTES);
        progress.advance(usize::try_from(more).unwrap_or(usize::MAX));
        *before = done;
    });
    if let Some((progress, _)) = shown {
        progress.finish();
    }
    copied
}

async fn told(what: &str, from: &Path, to: &Path) -> anyhow::Result<i32> {
    output::write(format!("{what} {} to {}\n", from.display(), to.display())).await?;
    Ok(0)
}
