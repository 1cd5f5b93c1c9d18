//! The file that `pullgate cache export` writes and `pullgate cache import` reads: evidence on its way to
//! another node.
//!
//! It carries what verdicts rest on and nothing that anybody would have to believe: no verdict, no
//! admission, no credential. Its tags are names for people and its times are claims; what an import
//! makes of them is decided in `admission::import`. The checksum finds accidents, not attackers.
//!
//! Form: JSON, one object a line, in UTF-8.
//!
//! ```text
//! {"pullgateCache":1,"createdAt":1764100000}
//! {"image":"ghcr.io/org/app@sha256:…","fetchedAt":1764099000,"tags":["v1"],"pieces":["base64",…]}
//! {"images":1,"sha256":"of every byte before this line, in hex"}
//! ```
//!
//! Images are sorted and each is there once. A reader goes through the whole file, its bounds and its
//! checksum before it hands out the first image, and again image by image, so that one is in memory at a
//! time. What is not exactly of this form is refused as a whole. A file is written under another name and
//! renamed, readable by its owner alone.

use std::ffi::OsString;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::marker::PhantomData;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{Context, SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::oci::{Digest, Repository};

/// The evidence of one image, as it travels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ImageEvidence {
    /// The image.
    pub image: ImageName,
    /// When it was fetched from its registry, in seconds since 1970, as whoever wrote this says.
    pub fetched_at: u64,
    /// The tags that were last verified as this digest; at most [`TAGS_LIMIT`].
    #[serde(deserialize_with = "at_most::<_, _, TAGS_LIMIT>")]
    pub tags: Vec<String>,
    /// The pieces, in the form in which the cache keeps them; at most [`PIECES_LIMIT`].
    #[serde(deserialize_with = "at_most::<_, _, PIECES_LIMIT>")]
    pub pieces: Vec<Piece>,
}

/// `repository@sha256:…`
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageName {
    /// The repository.
    pub repository: Repository,
    /// The digest.
    pub digest: Digest,
}

/// One piece of evidence; base64 in JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Piece(pub Vec<u8>);

/// Why a file is not imported.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// It cannot be read.
    #[error("{path} cannot be read: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What reading said.
        #[source]
        source: io::Error,
    },
    /// It is no file, or does not begin as one of ours does.
    #[error("{path} is not a file of `pullgate cache export`")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// Of another version.
    #[error("{path} has version {version} of the form, this pullgate reads {VERSION}: export again")]
    Version {
        /// The file.
        path: PathBuf,
        /// What it says.
        version: u64,
    },
    /// It does not end with its checksum.
    #[error("{path} is cut off or damaged: nothing of it was imported, copy it again")]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// Too large.
    #[error("{path} is larger than {limit} bytes, twice what cache.maxSize lets a node keep")]
    Large {
        /// The file.
        path: PathBuf,
        /// How large it may be.
        limit: u64,
    },
    /// A line in it is not what it should be.
    #[error("{path}: line {line} {problem}")]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// What is wrong with it.
        problem: LineProblem,
    },
}

/// What is wrong with a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LineProblem {
    /// Longer than [`LINE_LIMIT`].
    #[error("is too long")]
    Long,
    /// Not an image.
    #[error("is not an image with its evidence")]
    Form,
    /// Images are sorted, each is there once.
    #[error("is an image out of order")]
    Order,
    /// One image more than [`IMAGES_LIMIT`].
    #[error("is one image too many")]
    Many,
}

/// A file in the making; dropped before [`Writer::finish`] it leaves nothing.
pub struct Writer {
    file: BufWriter<File>,
    sum: Context,
    images: u64,
    temporary: PathBuf,
    path: PathBuf,
}

/// A file that was read through once.
pub struct Archive {
    path: PathBuf,
    file: BufReader<File>,
    images: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Head {
    pullgate_cache: u64,
    created_at: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Foot {
    images: u64,
    sha256: String,
}

impl TryFrom<String> for ImageName {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let (repository, digest) = text.rsplit_once('@').ok_or(NO_IMAGE)?;
        let repository = Repository::from_key(repository).map_err(|_| NO_IMAGE)?;
        let name = Self { repository, digest: digest.parse().map_err(|_| NO_IMAGE)? };
        // One spelling an image, or one of them could be there twice.
        if String::from(name.clone()) == text { Ok(name) } else { Err(NO_IMAGE) }
    }
}

impl From<ImageName> for String {
    fn from(name: ImageName) -> Self {
        super::record::image_key(&name.repository, &name.digest)
    }
}

impl TryFrom<String> for Piece {
    type Error = base64::DecodeError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        STANDARD.decode(text).map(Self)
    }
}

impl From<Piece> for String {
    fn from(piece: Piece) -> Self {
        STANDARD.encode(piece.0)
    }
}

/// A list that is refused once it is too long: three bytes an empty text, and many more in memory.
fn at_most<'de, D, T, const MOST: usize>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct List<T, const MOST: usize>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>, const MOST: usize> Visitor<'de> for List<T, MOST> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a list of at most {MOST}")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Self::Value, A::Error> {
            let mut list = Vec::new();
            while let Some(item) = sequence.next_element()? {
                if list.len() == MOST {
                    return Err(de::Error::invalid_length(MOST + 1, &self));
                }
                list.push(item);
            }
            Ok(list)
        }
    }

    deserializer.deserialize_seq(List::<T, MOST>(PhantomData))
}

impl Writer {
    /// Begins a file that will be at `path`.
    ///
    /// # Errors
    /// What the disk says.
    pub fn create(path: &Path, created_at: u64) -> io::Result<Self> {
        let mut temporary = OsString::from(path);
        temporary.push(".new");
        let temporary = PathBuf::from(temporary);
        match std::fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // Never through a link that somebody put there.
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        let (file, path) = (BufWriter::new(file), path.to_owned());
        let mut writer = Self { file, sum: Context::new(&SHA256), images: 0, temporary, path };
        writer.line(&Head { pullgate_cache: VERSION, created_at })?;
        Ok(writer)
    }

    /// Adds one image. They come sorted.
    ///
    /// # Errors
    /// What the disk says.
    pub fn image(&mut self, image: &ImageEvidence) -> io::Result<()> {
        self.images += 1;
        self.line(image)
    }

    /// Puts the file in its place, and says how many images it has.
    ///
    /// # Errors
    /// What the disk says.
    pub fn finish(mut self) -> io::Result<u64> {
        let sha256 = hex::encode(self.sum.clone().finish());
        self.line(&Foot { images: self.images, sha256 })?;
        self.file.flush()?;
        self.file.get_ref().sync_all()?;
        std::fs::rename(&self.temporary, &self.path)?;
        Ok(self.images)
    }

    fn line(&mut self, line: &impl Serialize) -> io::Result<()> {
        let mut bytes = serde_json::to_vec(line).map_err(io::Error::other)?;
        bytes.push(b'\n');
        self.sum.update(&bytes);
        self.file.write_all(&bytes)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // After `finish` it is not there any more.
        drop(std::fs::remove_file(&self.temporary));
    }
}

impl Archive {
    /// Reads the file at `path` through, which may have `limit` bytes.
    ///
    /// # Errors
    /// [`ArchiveError`] for whatever is not one whole file of ours.
    pub fn open(path: &Path, limit: u64) -> Result<Self, ArchiveError> {
        let failed = |source| ArchiveError::Read { path: path.to_owned(), source };
        // Before it is opened: a pipe would be waited for.
        if !std::fs::metadata(path).map_err(failed)?.is_file() {
            return Err(ArchiveError::Foreign { path: path.to_owned() });
        }
        let file = File::open(path).map_err(failed)?;
        let about = file.metadata().map_err(failed)?;
        if about.len() > limit {
            return Err(ArchiveError::Large { path: path.to_owned(), limit });
        }
        let mut file = BufReader::with_capacity(BUFFER, file);
        let images = read_through(&mut file).map_err(|problem| problem.of(path))?;
        file.seek(SeekFrom::Start(0)).map_err(failed)?;
        let mut archive = Self { path: path.to_owned(), file, images };
        archive.line(1)?;
        Ok(archive)
    }

    /// How many images it has.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.images
    }

    /// Whether it has none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.images == 0
    }

    /// The images, each read when it is asked for. Whoever changes the file meanwhile changes what comes out:
    /// nothing of it is believed anyway.
    pub fn images(mut self) -> impl Iterator<Item = Result<ImageEvidence, ArchiveError>> {
        let images = self.images;
        (0..images).map(move |number| {
            let number = number + 2;
            let line = self.line(number)?;
            let problem = LineProblem::Form;
            serde_json::from_slice(&line).map_err(|_| Problem::Line { line: number, problem }.of(&self.path))
        })
    }

    fn line(&mut self, number: u64) -> Result<Vec<u8>, ArchiveError> {
        let mut line = Vec::new();
        match next_line(&mut self.file, &mut line, number) {
            Ok(true) => Ok(line),
            Ok(false) => Err(Problem::Damaged.of(&self.path)),
            Err(problem) => Err(problem.of(&self.path)),
        }
    }
}

/// An [`ArchiveError`] that does not know its path yet.
#[derive(Debug)]
pub(super) enum Problem {
    Read(io::Error),
    Foreign,
    Version(u64),
    Damaged,
    Line { line: u64, problem: LineProblem },
}

impl Problem {
    fn of(self, path: &Path) -> ArchiveError {
        let path = path.to_owned();
        match self {
            Self::Read(source) => ArchiveError::Read { path, source },
            Self::Foreign => ArchiveError::Foreign { path },
            Self::Version(version) => ArchiveError::Version { path, version },
            Self::Damaged => ArchiveError::Damaged { path },
            Self::Line { line, problem } => ArchiveError::Line { path, line, problem },
        }
    }
}

/// How many images there are, if all of it is as it should be.
pub(super) fn read_through(file: &mut impl BufRead) -> Result<u64, Problem> {
    let (mut sum, mut line) = (Context::new(&SHA256), Vec::new());
    // A foreign file is not searched for the end of its first line.
    let mut head = file.by_ref().take(HEAD_LIMIT);
    head.read_until(b'\n', &mut line).map_err(Problem::Read)?;
    let version = serde_json::from_slice::<serde_json::Value>(&line).ok();
    let version = version.as_ref().and_then(|head| head.get("pullgateCache")?.as_u64());
    match version {
        None => return Err(Problem::Foreign),
        Some(VERSION) => {}
        Some(version) => return Err(Problem::Version(version)),
    }
    serde_json::from_slice::<Head>(&line).map_err(|_| Problem::Foreign)?;
    sum.update(&line);
    let (mut images, mut last) = (0, None::<ImageName>);
    loop {
        let number = images + 2;
        if !next_line(file, &mut line, number)? {
            return Err(Problem::Damaged);
        }
        if line.starts_with(FOOT) {
            break;
        }
        let wrong = |problem| Err(Problem::Line { line: number, problem });
        if images == IMAGES_LIMIT {
            return wrong(LineProblem::Many);
        }
        sum.update(&line);
        images += 1;
        let Ok(ImageEvidence { image, .. }) = serde_json::from_slice(&line) else {
            return wrong(LineProblem::Form);
        };
        if last.is_some_and(|last| last >= image) {
            return wrong(LineProblem::Order);
        }
        last = Some(image);
    }
    let foot: Foot = serde_json::from_slice(&line).map_err(|_| Problem::Damaged)?;
    let whole = foot.images == images && foot.sha256 == hex::encode(sum.finish());
    let nothing_follows = file.fill_buf().map_err(Problem::Read)?.is_empty();
    if whole && nothing_follows { Ok(images) } else { Err(Problem::Damaged) }
}

/// Reads one line with its line feed; whether there was one.
fn next_line(file: &mut impl BufRead, line: &mut Vec<u8>, number: u64) -> Result<bool, Problem> {
    line.clear();
    let read = file.by_ref().take(LINE_LIMIT).read_until(b'\n', line).map_err(Problem::Read)?;
    match line.last() {
        Some(b'\n') => Ok(true),
        Some(_) if read as u64 == LINE_LIMIT => {
            Err(Problem::Line { line: number, problem: LineProblem::Long })
        }
        Some(_) | None => Ok(false),
    }
}

/// Of the form.
const VERSION: u64 = 1;
/// How the last line begins; an image's begins with its name.
const FOOT: &[u8] = b"{\"images\":";
const NO_IMAGE: &str = "not repository@sha256:…";
/// The first line has some 50 bytes.
const HEAD_LIMIT: u64 = 1024;
/// Tags of one image: they are for people.
pub const TAGS_LIMIT: usize = 1000;
/// Pieces of one image: a look at one repository opens at most a thousand.
pub const PIECES_LIMIT: usize = 10_000;
/// Bytes of evidence of one image that travel: somewhat more than one verdict reads.
pub const EVIDENCE_LIMIT: u64 = 33 * 1024 * 1024;
/// Of one line: the same in base64, and room for names.
pub const LINE_LIMIT: u64 = 48 * 1024 * 1024;
/// Ten times as many as the largest node has.
pub const IMAGES_LIMIT: u64 = 1_000_000;
const BUFFER: usize = 64 * 1024;

#[cfg(test)]
#[path = "archive_tests.rs"]
mod tests;
