//! containerd's `certs.d`: the folder of a registry, and what lies in it.
//!
//! The first of `host_port_`, `host:port` and `_default` that is there counts, in the first of the
//! configured folders that has one of them. In it `hosts.toml` (`hosts` reads it) or, where there is
//! none or an empty one, Docker's files: `*.crt` are certificate authorities, `*.cert` with `*.key` of the
//! same name who we are.
//!
//! Files are read when they are first needed, and again when one of them (by device, inode, size and
//! times) is another: containerd reads them at every pull. A look that finds nothing new costs a `stat`
//! for each. What could not be read is read anew each time: the machine may have been short of descriptors or
//! memory, which no time of a file tells. What cannot be read or understood is an error for that registry as long as it stays so, and
//! never means that the registry itself is asked: it may be the mirror that was meant to be used instead.
//! (containerd itself goes to the registry where it does not understand `hosts.toml`, and fails where a
//! certificate cannot be read.)
//!
//! The folders are root's. A host's name comes from a pod, and is no more than a name in here.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use nix::fcntl::OFlag;
use reqwest::{Certificate, Identity};

use super::Complaints;
use super::connections::{HostAccess, Verification, certificates_in};
use super::hosts::{Access, Address, Capabilities, ClientPair, HostEntry, HostsFile, Remark, SyntaxError};

/// The configured folders.
pub(super) struct Folders {
    roots: Vec<PathBuf>,
    loaded: Mutex<HashMap<PathBuf, Loaded>>,
}

/// What the folder of a registry says.
pub(super) struct RegistryFolder {
    /// In the order in which they are asked; never empty.
    pub(super) hosts: Vec<ConfiguredHost>,
    remarks: Vec<String>,
}

/// One host and how it is spoken to.
pub(super) struct ConfiguredHost {
    /// None: the registry that the image's name carries.
    pub(super) address: Option<Address>,
    pub(super) capabilities: Capabilities,
    /// Whether anything is said about TLS: such a host is asked by TLS first, also at an http address.
    pub(super) names_tls: bool,
    /// None: as any host.
    pub(super) access: Option<Arc<HostAccess>>,
    /// To tell whether two are asked in one way.
    settings: Access,
}

/// Why it is not known how a registry is reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum FolderError {
    #[error("{}:{}: {problem}", path.display(), problem.line)]
    Syntax { path: PathBuf, problem: SyntaxError },
    #[error("{}: cannot be read: {cause}", path.display())]
    Unreadable { path: PathBuf, cause: io::ErrorKind },
    #[error("{}: not a file", path.display())]
    NotAFile { path: PathBuf },
    #[error("{}: larger than {FILE_LIMIT} bytes", path.display())]
    TooLarge { path: PathBuf },
    #[error("{}: more than {ENTRIES_LIMIT} files", path.display())]
    TooMany { path: PathBuf },
    #[error("{}: not a file of PEM certificates", path.display())]
    Certificates { path: PathBuf },
    #[error("{}: not a PEM certificate with its private key", path.display())]
    ClientCertificate { path: PathBuf },
    #[error("certificates of {} cannot be used", path.display())]
    Unusable { path: PathBuf },
    #[error("registry's name is not one of a host")]
    Name,
}

/// What was read, and from which files.
#[derive(Clone)]
struct Loaded {
    watched: Vec<(PathBuf, Stamp)>,
    folder: Result<Arc<RegistryFolder>, FolderError>,
}

/// Whether a folder says something else than before.
#[derive(Clone, Copy, PartialEq, Eq)]
enum News {
    Nothing,
    Changed,
}

/// A file as it was; none: it was not there.
type Stamp = Option<FileStamp>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileStamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Folders {
    /// `paths` is containerd's `config_path`: folders, with a colon between them.
    pub(super) fn new(paths: &Path) -> Self {
        let roots = std::env::split_paths(paths).filter(|path| !path.as_os_str().is_empty());
        Self { roots: roots.collect(), loaded: Mutex::default() }
    }

    /// What is said of the registry `host` (with its port, if it has one); none if nothing is.
    ///
    /// # Errors
    /// [`FolderError`]: then it is not known who is to be asked.
    pub(super) fn of(&self, host: &str) -> Result<Option<Arc<RegistryFolder>>, FolderError> {
        let Some(path) = self.find(host)? else {
            return Ok(None);
        };
        let (folder, news) = self.load(path);
        if news == News::Changed {
            match &folder {
                Ok(folder) => folder.remarks.iter().for_each(|remark| tracing::warn!("{remark}")),
                Err(error) => tracing::warn!("{error}: nothing is pulled from {host} until it is put right"),
            }
        }
        folder.map(Some)
    }

    /// What is wrong or without effect in any folder: a line each.
    pub(super) fn complaints(&self) -> Complaints {
        let mut complaints = Complaints::default();
        for root in &self.roots {
            let entries = match names(root) {
                Ok(entries) => entries,
                Err(error) => {
                    complaints.errors.push(error.to_string());
                    continue;
                }
            };
            for folder in entries.into_iter().map(|name| root.join(name)).filter(|path| path.is_dir()) {
                match self.load(folder).0 {
                    Ok(folder) => complaints.without_effect.extend(folder.remarks.iter().cloned()),
                    Err(error) => complaints.errors.push(error.to_string()),
                }
            }
        }
        complaints
    }

    fn find(&self, host: &str) -> Result<Option<PathBuf>, FolderError> {
        if !is_name(host) {
            return Err(FolderError::Name);
        }
        for root in &self.roots {
            for name in folder_names(host) {
                let path = root.join(name);
                match std::fs::metadata(&path) {
                    Ok(_) => return Ok(Some(path)),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(FolderError::Unreadable { path, cause: error.kind() }),
                }
            }
        }
        Ok(None)
    }

    fn load(&self, path: PathBuf) -> (Result<Arc<RegistryFolder>, FolderError>, News) {
        let known = self.loaded.lock().unwrap_or_else(PoisonError::into_inner).get(&path).cloned();
        if let Some(known) = known.as_ref().filter(|known| known.is_current()) {
            return (known.folder.clone(), News::Nothing);
        }
        let loaded = Loaded::read(&path);
        let folder = loaded.folder.clone();
        let same = known.is_some_and(|known| known.folder.err() == folder.as_ref().err().cloned());
        let news = if same && folder.is_err() { News::Nothing } else { News::Changed };
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner).insert(path, loaded);
        (folder, news)
    }
}

impl Loaded {
    fn read(path: &Path) -> Self {
        let mut reader = Reader { watched: Vec::new() };
        let folder = reader.folder(path).map(Arc::new);
        Self { watched: reader.watched, folder }
    }

    fn is_current(&self) -> bool {
        !matches!(self.folder, Err(FolderError::Unreadable { .. }))
            && self.watched.iter().all(|(path, stamp)| FileStamp::of(path) == *stamp)
    }
}

impl FileStamp {
    fn of(path: &Path) -> Stamp {
        std::fs::metadata(path).ok().map(|metadata| Self::new(&metadata))
    }

    fn new(metadata: &std::fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

impl ConfiguredHost {
    /// Whether asking `other` after this one would be the same request again.
    pub(super) fn is_asked_as(&self, other: &Self) -> bool {
        self.address == other.address && self.settings == other.settings
    }
}

/// Reads files and remembers which.
struct Reader {
    watched: Vec<(PathBuf, Stamp)>,
}

impl Reader {
    fn folder(&mut self, path: &Path) -> Result<RegistryFolder, FolderError> {
        let file = path.join("hosts.toml");
        let text = self.file(&file)?.unwrap_or_default();
        let (hosts, mut remarks) = if text.is_empty() {
            (vec![self.docker_files(path)?], Vec::new())
        } else {
            let error = |problem| FolderError::Syntax { path: file.clone(), problem };
            let HostsFile { hosts, remarks } = HostsFile::parse(&text, path).map_err(error)?;
            let said = |Remark { line, message }: Remark| format!("{}:{line}: {message}", file.display());
            (hosts, remarks.into_iter().map(said).collect())
        };
        if hosts.iter().any(|host| host.access.client.len() > 1) {
            remarks.push(format!("{}: of several client certificates the first is used", path.display()));
        }
        let hosts = hosts.into_iter().map(|host| self.host(path, host)).collect::<Result<_, _>>()?;
        Ok(RegistryFolder { hosts, remarks })
    }

    fn host(&mut self, folder: &Path, entry: HostEntry) -> Result<ConfiguredHost, FolderError> {
        let HostEntry { address, capabilities, access: settings } = entry;
        let mut certificates: Vec<Certificate> = Vec::new();
        for path in &settings.ca {
            let pem = self.present(path)?;
            let found = certificates_in(&pem);
            certificates.extend(found.ok_or_else(|| FolderError::Certificates { path: path.clone() })?);
        }
        let identity = settings.client.first().map(|pair| self.identity(pair)).transpose()?;
        let names_tls =
            !settings.ca.is_empty() || !settings.client.is_empty() || settings.skip_verify.is_some();
        let plain = settings == Access { skip_verify: settings.skip_verify, ..Access::default() }
            && settings.skip_verify != Some(true);
        let access = if plain {
            None
        } else {
            let verification = match settings.skip_verify {
                Some(true) => Verification::Skipped,
                Some(false) | None => Verification::Required,
            };
            let (headers, dial_timeout) = (settings.headers.clone(), settings.dial_timeout);
            let access = HostAccess::new(headers, certificates, identity, verification, dial_timeout);
            Some(Arc::new(access.ok_or_else(|| FolderError::Unusable { path: folder.to_owned() })?))
        };
        Ok(ConfiguredHost { address, capabilities, names_tls, access, settings })
    }

    fn identity(&mut self, pair: &ClientPair) -> Result<Identity, FolderError> {
        let mut pem = self.present(&pair.certificate)?;
        if let Some(key) = &pair.key {
            // Last: of several private keys the last is used.
            pem.push(b'\n');
            pem.extend(self.present(key)?);
        }
        Identity::from_pem(&pem)
            .map_err(|_| FolderError::ClientCertificate { path: pair.certificate.clone() })
    }

    /// Docker's files: what they give is for the registry itself.
    fn docker_files(&mut self, folder: &Path) -> Result<HostEntry, FolderError> {
        self.watched.push((folder.to_owned(), FileStamp::of(folder)));
        let mut access = Access::default();
        for name in names(folder)? {
            let path = folder.join(&name);
            let bytes = name.as_encoded_bytes();
            if bytes.ends_with(b".crt") && !is_folder(&path) {
                access.ca.push(path);
            } else if bytes.ends_with(b".cert") && !is_folder(&path) {
                let key = path.with_extension("key");
                let stamp = FileStamp::of(&key);
                self.watched.push((key.clone(), stamp));
                access.client.push(ClientPair { certificate: path, key: stamp.map(|_| key) });
            }
        }
        Ok(HostEntry::registry(access))
    }

    fn present(&mut self, path: &Path) -> Result<Vec<u8>, FolderError> {
        let absent = || FolderError::Unreadable { path: path.to_owned(), cause: io::ErrorKind::NotFound };
        self.file(path)?.ok_or_else(absent)
    }

    /// A file's content; none if it is not there. The stamp is that of the file that was opened.
    fn file(&mut self, path: &Path) -> Result<Option<Vec<u8>>, FolderError> {
        let unreadable =
            |error: io::Error| FolderError::Unreadable { path: path.to_owned(), cause: error.kind() };
        // A pipe would otherwise be waited for.
        let file: File = match OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)
        {
            Ok(file) => file,
            Err(error) => {
                self.watched.push((path.to_owned(), FileStamp::of(path)));
                return if error.kind() == io::ErrorKind::NotFound {
                    Ok(None)
                } else {
                    Err(unreadable(error))
                };
            }
        };
        let metadata = file.metadata().map_err(unreadable)?;
        self.watched.push((path.to_owned(), Some(FileStamp::new(&metadata))));
        if !metadata.is_file() {
            return Err(FolderError::NotAFile { path: path.to_owned() });
        }
        let mut content = Vec::new();
        file.take(FILE_LIMIT + 1).read_to_end(&mut content).map_err(unreadable)?;
        if content.len() as u64 > FILE_LIMIT {
            return Err(FolderError::TooLarge { path: path.to_owned() });
        }
        Ok(Some(content))
    }
}

/// The names of the folders that may be a registry's, in containerd's order.
fn folder_names(host: &str) -> Vec<String> {
    let mut names = Vec::new();
    // Of `[::1]` without a port it makes `[:_1]_`, and looks there.
    if let Some((start, end)) = host.rsplit_once(':').filter(|(start, _)| !start.is_empty()) {
        names.push(format!("{start}_{end}_"));
    }
    names.push(host.to_owned());
    names.push("_default".to_owned());
    names
}

/// Whether a name stays in the folder that it is looked for in. Whoever parses references sees to that; it
/// is not relied on.
fn is_name(host: &str) -> bool {
    let may = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':' | b'[' | b']');
    !host.is_empty() && !host.starts_with('.') && host.bytes().all(may)
}

fn is_folder(path: &Path) -> bool {
    // A link to a folder is one that cannot be read, for containerd too.
    std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir())
}

/// What is in a folder, in order; nothing if it is not there.
fn names(folder: &Path) -> Result<Vec<OsString>, FolderError> {
    let unreadable =
        |error: io::Error| FolderError::Unreadable { path: folder.to_owned(), cause: error.kind() };
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        if names.len() == ENTRIES_LIMIT {
            return Err(FolderError::TooMany { path: folder.to_owned() });
        }
        names.push(entry.map_err(unreadable)?.file_name());
    }
    names.sort();
    Ok(names)
}

/// A bundle of all the world's certificate authorities has a quarter of that.
const FILE_LIMIT: u64 = 1024 * 1024;
const ENTRIES_LIMIT: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    /// As when the system has no descriptor left: nothing about the file itself is another afterwards.
    #[test]
    fn what_could_not_be_read_once_is_read_again_though_the_file_is_the_same() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("a.io");
        std::fs::create_dir(&folder).unwrap();
        let file = folder.join("hosts.toml");
        std::fs::write(&file, "server = 'https://b.io'\n").unwrap();
        let folders = Folders::new(root.path());
        let watched = vec![(file.clone(), FileStamp::of(&file))];
        let lack = FolderError::Unreadable { path: file, cause: io::ErrorKind::Other };
        let loaded = Loaded { watched, folder: Err(lack) };
        folders.loaded.lock().unwrap().insert(folder, loaded);
        let found = folders.of("a.io").unwrap().unwrap();
        let hosts: Vec<_> = found.hosts.iter().map(|host| host.address.clone().unwrap().authority).collect();
        assert_eq!(hosts, ["b.io"]);
    }
}
