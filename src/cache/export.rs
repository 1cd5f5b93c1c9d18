//! The export: every record but the blobs in one file, which memory is read from at the start.
//!
//! While nothing was written since it was made it is `<path>.export`, and says the same as the
//! database: a start reads it instead, without sled. Before the first write after that it is renamed
//! to `<path>.export.last`; that one is read only if the database is lost. It is made anew at most
//! every ten seconds, from memory, as a temporary file, with fsync and rename.
//!
//! Form: `[digest of the mark (see `mark`) and the rest: 32 bytes]` and then `[key length][key][value length][value]`, lengths in
//! 4 bytes little endian. Values are sealed as in the database, so each record is checked by itself
//! once more. Reading and writing go record by record: all of them at once would be most of the
//! memory that the daemon takes.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{Context, SHA256};

use super::mark::Mark;

/// Writes one record.
pub(super) type WriteRecord<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> io::Result<()>;

/// The export of the database at a path.
pub(super) struct Export {
    current: PathBuf,
    last: PathBuf,
    temporary: PathBuf,
}

impl Export {
    pub(super) fn of(database: &Path) -> Self {
        let file = |ending: &str| {
            let mut name = OsString::from(database);
            name.push(ending);
            PathBuf::from(name)
        };
        Self { current: file(".export"), last: file(".export.last"), temporary: file(".export.new") }
    }

    /// Shows every record to `visit` if the export says what the database says; whether it does.
    pub(super) fn read_current(&self, mark: &Mark, visit: &mut dyn FnMut(&[u8], &[u8])) -> bool {
        read(&self.current, mark, visit)
    }

    /// Shows every record of the newest export of this mark to `visit`.
    pub(super) fn read_any(&self, mark: &Mark, visit: &mut dyn FnMut(&[u8], &[u8])) {
        let _ = read(&self.current, mark, visit) || read(&self.last, mark, visit);
    }

    /// Must have returned before the database is written: from then on the export is behind.
    ///
    /// # Errors
    /// What renaming says. The file is durably renamed, or a write could be undone by a power cut.
    pub(super) fn outdate(&self) -> io::Result<()> {
        match std::fs::rename(&self.current, &self.last) {
            Ok(()) => File::open(self.current.parent().unwrap_or(Path::new("/")))?.sync_all(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Writes what `records` writes.
    ///
    /// # Errors
    /// What the disk says; an earlier export stays then.
    pub(super) fn write(
        &self,
        mark: &Mark,
        records: &dyn Fn(WriteRecord<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut file = BufWriter::new(File::create(&self.temporary)?);
        let mut sum = Context::new(&SHA256);
        sum.update(mark);
        file.write_all(&[0; SUM])?;
        records(&mut |key, value| {
            for part in [key, value] {
                let length = u32::try_from(part.len()).map_err(io::Error::other)?.to_le_bytes();
                for bytes in [&length[..], part] {
                    sum.update(bytes);
                    file.write_all(bytes)?;
                }
            }
            Ok(())
        })?;
        file.seek(SeekFrom::Start(0))?;
        file.write_all(sum.finish().as_ref())?;
        let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        std::fs::rename(&self.temporary, &self.current)
    }
}

/// Nothing is shown of a file whose digest is wrong.
fn read(path: &Path, mark: &Mark, visit: &mut dyn FnMut(&[u8], &[u8])) -> bool {
    match File::open(path).and_then(|file| read_from(file, mark, visit)) {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => {
            tracing::error!(path = %path.display(), %error, "cache export is not used");
            false
        }
    }
}

/// Shows every record in `file` to `visit`.
pub(super) fn read_from(
    file: impl Read + Seek,
    mark: &[u8],
    visit: &mut dyn FnMut(&[u8], &[u8]),
) -> io::Result<()> {
    let mut file = BufReader::with_capacity(BUFFER, file);
    let mut wanted = [0; SUM];
    file.read_exact(&mut wanted)?;
    let mut sum = Context::new(&SHA256);
    sum.update(mark);
    let mut buffer = vec![0; BUFFER];
    loop {
        let length = file.read(&mut buffer)?;
        match buffer.get(..length) {
            Some([]) | None => break,
            Some(bytes) => sum.update(bytes),
        }
    }
    if sum.finish().as_ref() != wanted {
        return Err(io::Error::other("it is damaged, or from before something was taken back"));
    }
    file.seek(SeekFrom::Start(SUM as u64))?;
    let (mut key, mut value) = (Vec::new(), Vec::new());
    while part(&mut file, &mut key)? {
        if !part(&mut file, &mut value)? {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        visit(&key, &value);
    }
    Ok(())
}

/// Reads one part into `into`; whether there was one.
fn part(file: &mut impl Read, into: &mut Vec<u8>) -> io::Result<bool> {
    let mut length = [0; 4];
    if file.read(&mut length[..1])? == 0 {
        return Ok(false);
    }
    let [_, rest @ ..] = &mut length;
    file.read_exact(rest)?;
    let length = u32::from_le_bytes(length);
    if length > PART_LIMIT {
        return Err(io::Error::other("a record is too long"));
    }
    into.clear();
    let read = file.take(length.into()).read_to_end(into)?;
    if read < usize::try_from(length).unwrap_or(usize::MAX) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(true)
}

/// Of the digest, in bytes.
const SUM: usize = 32;
const BUFFER: usize = 64 * 1024;
/// An admission with all its pullers has some 2 KiB.
const PART_LIMIT: u32 = 1024 * 1024;
