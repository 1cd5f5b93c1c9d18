//! Policy files: reading them from the configured paths, and keeping the last good ones.
//!
//! A path is a file or a folder; in a folder the files that end in `.yaml`, `.yml` or `.json` and do
//! not start with a dot are read, in the order of their names, without descending. A path that is
//! not there or cannot be read is an error, never an empty set. After a snapshot was built, its
//! sources are kept under the state folder (temporary file, fsync, rename), and used at a later
//! start whose own files do not load (rule D6). The kept file is a JSON list of `{file, text}`.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::policy::PolicySource;

/// Why policy files could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A file or folder is missing or cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which one.
        path: PathBuf,
        /// What reading said.
        #[source]
        source: std::io::Error,
    },
    /// A file is larger than [`FILE_LIMIT`] bytes, or all are together.
    #[error("{path} is larger than {limit} bytes; split it")]
    TooLarge {
        /// Which one.
        path: PathBuf,
        /// The limit in bytes.
        limit: u64,
    },
    /// Not UTF-8.
    #[error("{path} is not UTF-8 text")]
    NotText {
        /// Which one.
        path: PathBuf,
    },
}

/// Reads the policy files of `paths`.
///
/// # Errors
/// [`SourceError`] for the first path that cannot be read whole.
pub fn read(paths: &[PathBuf]) -> Result<Vec<PolicySource>, SourceError> {
    let mut sources = Vec::new();
    for path in paths {
        let failed = |source| SourceError::Read { path: path.clone(), source };
        if !fs::metadata(path).map_err(failed)?.is_dir() {
            sources.push(read_file(path)?);
            continue;
        }
        let mut files = Vec::new();
        for entry in fs::read_dir(path).map_err(failed)? {
            let file = entry.map_err(failed)?.path();
            // A link that leads nowhere is an error: what it named must not go missing silently.
            let is_folder = || fs::metadata(&file).map(|metadata| metadata.is_dir());
            if is_policy_file(&file)
                && !is_folder().map_err(|source| SourceError::Read { path: file.clone(), source })?
            {
                files.push(file);
            }
        }
        files.sort();
        for file in files {
            sources.push(read_file(&file)?);
        }
    }
    Ok(sources)
}

/// Keeps the sources of a good snapshot.
///
/// # Errors
/// Whatever writing says; the file that was there stays then.
pub(super) fn keep(state: &Path, sources: &[PolicySource]) -> std::io::Result<()> {
    let kept: Vec<Kept> =
        sources.iter().map(|source| Kept { file: source.file.clone(), text: source.text.clone() }).collect();
    let bytes = serde_json::to_vec(&kept).map_err(std::io::Error::other)?;
    // Most starts and reloads find what is kept already, and need not wait for the disk.
    if fs::read(state.join(KEPT)).is_ok_and(|found| found == bytes) {
        return Ok(());
    }
    fs::create_dir_all(state)?;
    let temporary = state.join("policies.json.new");
    let mut file = fs::File::create(&temporary)?;
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, state.join(KEPT))
}

/// The sources of the last good snapshot; `None` where none were ever kept.
///
/// # Errors
/// Whatever reading says of a file that is there.
pub(super) fn kept(state: &Path) -> std::io::Result<Option<Vec<PolicySource>>> {
    let bytes = match fs::read(state.join(KEPT)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let kept: Vec<Kept> = serde_json::from_slice(&bytes).map_err(std::io::Error::other)?;
    Ok(Some(kept.into_iter().map(|kept| PolicySource { file: kept.file, text: kept.text }).collect()))
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    file: PathBuf,
    text: String,
}

fn is_policy_file(path: &Path) -> bool {
    let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
    let ending = path.extension().and_then(|ending| ending.to_str());
    !hidden && matches!(ending, Some("yaml" | "yml" | "json"))
}

fn read_file(path: &Path) -> Result<PolicySource, SourceError> {
    let failed = |source| SourceError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    fs::File::open(path).map_err(failed)?.take(FILE_LIMIT + 1).read_to_end(&mut bytes).map_err(failed)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > FILE_LIMIT) {
        return Err(SourceError::TooLarge { path: path.to_owned(), limit: FILE_LIMIT });
    }
    let text = String::from_utf8(bytes).map_err(|_| SourceError::NotText { path: path.to_owned() })?;
    Ok(PolicySource { file: path.to_owned(), text })
}

const KEPT: &str = "policies.json";
/// Kubernetes stores no object over 1.5 MiB; several may share a file.
const FILE_LIMIT: u64 = 8 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_policy_files_in_order_and_skips_the_rest() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b.yaml", "a.json", "c.yml", ".hidden.yaml", "notes.txt"] {
            fs::write(folder.path().join(name), name).unwrap();
        }
        let read = read(&[folder.path().to_owned(), folder.path().join("notes.txt")]).unwrap();
        let texts: Vec<_> = read.iter().map(|source| source.text.as_str()).collect();
        assert_eq!(texts, ["a.json", "b.yaml", "c.yml", "notes.txt"]);
    }

    #[test]
    fn a_missing_path_is_an_error() {
        let error = read(&[PathBuf::from("/nonexistent/policies")]).unwrap_err();
        assert!(error.to_string().starts_with("cannot read /nonexistent/policies: "), "{error}");
    }

    #[test]
    fn a_file_that_is_too_large_or_no_text_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let large = folder.path().join("large.yaml");
        fs::File::create(&large).unwrap().set_len(FILE_LIMIT + 1).unwrap();
        assert!(matches!(read(&[large]), Err(SourceError::TooLarge { .. })));
        std::os::unix::fs::symlink("/nonexistent/gone", folder.path().join("gone.yaml")).unwrap();
        let dangling = read(&[folder.path().to_owned()]).unwrap_err();
        assert!(dangling.to_string().contains("gone.yaml"), "{dangling}");
        let binary = folder.path().join("binary.yaml");
        fs::write(&binary, [0xff, 0xfe]).unwrap();
        assert!(matches!(read(&[binary]), Err(SourceError::NotText { .. })));
    }

    #[test]
    fn d6_keeps_the_last_good_sources() {
        let folder = tempfile::tempdir().unwrap();
        assert!(kept(folder.path()).unwrap().is_none());
        let source = PolicySource { file: "a.yaml".into(), text: "x".into() };
        keep(folder.path(), &[source]).unwrap();
        let kept = kept(folder.path()).unwrap().unwrap();
        assert_eq!((kept[0].file.as_path(), kept[0].text.as_str()), (Path::new("a.yaml"), "x"));
        fs::write(folder.path().join(KEPT), "broken").unwrap();
        assert!(super::kept(folder.path()).is_err());
    }
}
