//! The mark of what was last taken back.
//!
//! A purge, or a denial of an image on the node, must not be undone by a disk: a database whose log ends
//! early, or an export from before, would bring back what was taken back. So each time there is a new
//! mark, a random number, in a file of its own (`<path>.mark`); then, after the removal, in the database;
//! and then in each export. What carries another mark than the file is older and is not read. A mark that
//! is lost or damaged costs what the cache holds, like other damage (rule C4).
//!
//! Only whoever puts an older copy of all files in place brings back what they held.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

/// The mark.
pub(super) type Mark = [u8; 16];

/// The mark in this file; a new one, which nothing carries, where there is none.
///
/// # Errors
/// What the disk says.
pub(super) fn read(path: &Path) -> io::Result<Mark> {
    match std::fs::read(path).map(|bytes| Mark::try_from(bytes.as_slice())) {
        Ok(Ok(mark)) => Ok(mark),
        Ok(Err(_)) => renew(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => renew(path),
        Err(error) => Err(error),
    }
}

/// Writes a new mark, durably.
///
/// # Errors
/// What the disk says. There is no mark then, so that the next start reads nothing: to take a file away
/// needs neither room nor a descriptor.
pub(super) fn renew(path: &Path) -> io::Result<Mark> {
    let written = write(path);
    if written.is_err() {
        // Where not even that is possible nothing can be written at all.
        drop(std::fs::remove_file(path));
    }
    written
}

fn write(path: &Path) -> io::Result<Mark> {
    let mut mark = Mark::default();
    aws_lc_rs::rand::fill(&mut mark).map_err(io::Error::other)?;
    // Before anything changes: there may be no descriptor for it later.
    let folder = File::open(path.parent().unwrap_or(Path::new("/")))?;
    let temporary = path.with_extension("mark.new");
    let mut file = File::create(&temporary)?;
    file.write_all(&mark)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    folder.sync_all()?;
    Ok(mark)
}
