//! The socket that the kubelet connects to.
//!
//! A new socket is made under another name, given its mode and renamed, so that it never stands there
//! with a wider mode and replaces the one of a dead process in one step. A socket on which somebody
//! still answers is left alone, and so is anything that is not a socket.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

/// Why there is no listener.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The path has no file name or no folder.
    #[error("`{0}` is not a path for a socket")]
    Path(PathBuf),
    /// Another process answers there.
    #[error("another process listens on `{0}`")]
    InUse(PathBuf),
    /// Something else is there.
    #[error("`{0}` is not a socket; remove it")]
    NotASocket(PathBuf),
    /// The folder cannot be made.
    #[error("cannot make the folder `{0}`")]
    Folder(PathBuf, #[source] io::Error),
    /// The socket cannot be made.
    #[error("cannot make the socket `{0}`")]
    Bind(PathBuf, #[source] io::Error),
    /// A socket that was handed over cannot be used.
    #[error("cannot use the socket that was handed over")]
    HandedOver(#[source] io::Error),
}

/// Listens at `path`: mode 0660, in a folder that is made with mode 0750 if it is not there.
///
/// # Errors
/// [`SocketError`]; nothing that is not a dead socket is replaced.
pub fn bind(path: &Path) -> Result<UnixListener, SocketError> {
    let (Some(name), Some(folder)) = (path.file_name(), path.parent()) else {
        return Err(SocketError::Path(path.to_owned()));
    };
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o750)
        .create(folder)
        .map_err(|error| SocketError::Folder(folder.to_owned(), error))?;
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => return Err(SocketError::NotASocket(path.to_owned())),
        Ok(_) if std::os::unix::net::UnixStream::connect(path).is_ok() => {
            return Err(SocketError::InUse(path.to_owned()));
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(SocketError::Bind(path.to_owned(), error)),
    }

    let mut temporary = OsString::from(".");
    temporary.push(name);
    temporary.push(".new");
    let temporary = folder.join(temporary);
    let failed = |error| SocketError::Bind(path.to_owned(), error);
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = UnixListener::bind(&temporary).map_err(failed)?;
    fs::set_permissions(&temporary, fs::Permissions::from_mode(0o660)).map_err(failed)?;
    fs::rename(&temporary, path).map_err(failed)?;
    Ok(listener)
}

/// Takes over a listening socket that systemd made.
///
/// # Errors
/// [`SocketError::HandedOver`].
pub fn handed_over(listener: std::os::unix::net::UnixListener) -> Result<UnixListener, SocketError> {
    listener.set_nonblocking(true).map_err(SocketError::HandedOver)?;
    UnixListener::from_std(listener).map_err(SocketError::HandedOver)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[tokio::test]
    async fn binds_with_narrow_modes_and_replaces_a_dead_socket() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/p.sock");
        let first = bind(&path).unwrap();
        assert_eq!((mode(path.parent().unwrap()), mode(&path)), (0o750, 0o660));
        assert!(matches!(bind(&path), Err(SocketError::InUse(_))));
        drop(first);
        let _second = bind(&path).unwrap();
        assert!(std::os::unix::net::UnixStream::connect(&path).is_ok());
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn leaves_what_is_not_a_socket() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p.sock");
        fs::write(&path, b"mine").unwrap();
        assert!(matches!(bind(&path), Err(SocketError::NotASocket(_))));
        assert_eq!(fs::read(&path).unwrap(), b"mine");
        assert!(matches!(bind(Path::new("/")), Err(SocketError::Path(_))));
    }

    #[tokio::test]
    async fn takes_over_a_socket_of_systemd() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p.sock");
        let listener = handed_over(std::os::unix::net::UnixListener::bind(&path).unwrap()).unwrap();
        let (accepted, connected) = tokio::join!(listener.accept(), tokio::net::UnixStream::connect(&path));
        assert!(accepted.is_ok() && connected.is_ok());
    }
}
