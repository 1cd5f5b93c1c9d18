//! Files in `certs.d`: which of them count, when they are read, and what becomes of those that cannot be.

use std::os::unix::fs::symlink;

use super::mirrors::{Configured, claims, digest};
use super::*;
use crate::registry::folders::{FolderError, Folders};

fn to(mirror: &Server) -> String {
    format!("server = 'http://{}'\n", mirror.address)
}

#[tokio::test]
async fn the_first_folder_that_is_there_counts() {
    let (registry, mirror) = (claims("registry").await, claims("mirror").await);
    let port = registry.address.port();
    let node = Configured::new();
    let away = "server = 'http://127.0.0.1:1'\n";
    for name in ["_default".to_owned(), format!("127.0.0.1:{port}"), format!("127.0.0.1_{port}_")] {
        node.write(&name, "hosts.toml", to(&mirror));
        assert_eq!(node.resolve(&registry).await, Ok(digest("mirror")), "{name}");
        // Before the next, which must win over it.
        node.write(&name, "hosts.toml", away);
        assert_eq!(node.resolve(&registry).await.unwrap_err().reason, FaultReason::RegistryUnreachable);
    }
}

#[tokio::test]
async fn a_file_that_changes_is_read_again() {
    let (registry, mirror) = (claims("registry").await, claims("mirror").await);
    let node = Configured::new();
    let name = registry.address.to_string();
    assert_eq!(node.resolve(&registry).await, Ok(digest("registry")));
    let path = node.write(&name, "hosts.toml", to(&mirror));
    assert_eq!(node.resolve(&registry).await, Ok(digest("mirror")));
    node.write(&name, "hosts.toml", "server = 5\n");
    let fault = node.resolve(&registry).await.unwrap_err();
    let message = format!("{name}/app:v1: {}:1: `server` must be a string", path.display());
    assert_eq!(fault, Fault::new(FaultReason::RegistryError, message));
    // By a rename, as careful tools write it.
    let other = node.write(&name, "new", to(&mirror));
    std::fs::rename(other, &path).unwrap();
    assert_eq!(node.resolve(&registry).await, Ok(digest("mirror")));
    std::fs::remove_file(&path).unwrap();
    assert_eq!(node.resolve(&registry).await, Ok(digest("registry")));
}

#[tokio::test]
async fn d4_what_cannot_be_read_is_an_error_that_asks_nobody_and_passes_nowhere() {
    let registry = claims("registry").await;
    let name = registry.address.to_string();
    let text = |keys: &str| format!("[host.'http://127.0.0.1:1']\n{keys}\n");
    let pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let files: [(&str, String, &str); 8] = [
        ("hosts.toml", "[[".to_owned(), "hosts.toml:1: not TOML: "),
        ("hosts.toml", "capabilities = ['pul']".to_owned(), "hosts.toml:1: no capability of a host"),
        ("hosts.toml", text("ca = 'none.pem'"), "none.pem: cannot be read: entity not found"),
        ("hosts.toml", text("ca = '/dev/null'"), "/dev/null: not a file"),
        ("hosts.toml", text("ca = 'hosts.toml'"), "hosts.toml: not a file of PEM certificates"),
        (
            "hosts.toml",
            text("client = 'hosts.toml'"),
            "hosts.toml: not a PEM certificate with its private key",
        ),
        ("ca.crt", pem.to_owned(), " cannot be used"),
        ("hosts.toml", " ".repeat(1024 * 1024 + 1), "hosts.toml: larger than 1048576 bytes"),
    ];
    for (file, content, words) in files {
        let node = Configured::new();
        node.write(&name, file, content);
        let fault = node.resolve(&registry).await.unwrap_err();
        assert!(fault.message.contains(words), "{fault}");
        assert_eq!((fault.reason, fault.contact), (FaultReason::RegistryError, Contact::Answered));
        assert_eq!(node.client.configuration_complaints().errors.len(), 1);
    }
    assert_eq!(registry.lines(), [""; 0]);
}

#[tokio::test]
async fn a_folder_that_is_something_else_is_an_error() {
    let registry = claims("registry").await;
    let node = Configured::new();
    let folder = node.write("x", "y", "").parent().unwrap().parent().unwrap().to_owned();
    let own = folder.join(registry.address.to_string());
    // A file in its place, a folder in the file's place, a pipe that nobody writes to.
    std::fs::write(&own, "").unwrap();
    let words = [
        ("hosts.toml: cannot be read: not a directory"),
        ("hosts.toml: not a file"),
        ("hosts.toml: not a file"),
    ];
    let make: [fn(&Path); 2] = [
        |file| std::fs::create_dir_all(file).unwrap(),
        |file| {
            std::fs::create_dir(file.parent().unwrap()).unwrap();
            nix::unistd::mkfifo(file, nix::sys::stat::Mode::S_IRUSR).unwrap();
        },
    ];
    let fault = node.resolve(&registry).await.unwrap_err();
    assert!(fault.message.ends_with(words[0]), "{fault}");
    std::fs::remove_file(&own).unwrap();
    for (make, words) in make.into_iter().zip(&words[1..]) {
        make(&own.join("hosts.toml"));
        let fault = node.resolve(&registry).await.unwrap_err();
        assert!(fault.message.ends_with(words), "{fault}");
        std::fs::remove_dir_all(&own).unwrap();
    }
    // A link to nowhere is nothing there; a link to a file is the file.
    let mirror = claims("mirror").await;
    let target = node.write("shared", "hosts.toml", to(&mirror));
    std::fs::create_dir(&own).unwrap();
    symlink("nowhere", own.join("hosts.toml")).unwrap();
    assert_eq!(node.resolve(&registry).await, Ok(digest("registry")));
    std::fs::remove_file(own.join("hosts.toml")).unwrap();
    symlink(target, own.join("hosts.toml")).unwrap();
    assert_eq!(node.resolve(&registry).await, Ok(digest("mirror")));
}

#[test]
fn a_name_is_never_a_way_out_of_the_folder() {
    let root = tempfile::tempdir().unwrap();
    let inside = root.path().join("certs.d");
    std::fs::create_dir_all(inside.join("a")).unwrap();
    std::fs::write(root.path().join("hosts.toml"), "server = 'http://127.0.0.1:1'\n").unwrap();
    let folders = Folders::new(&inside);
    for name in ["..", ".", "", "a/../..", "../certs.d", "/", "a\0", "_default", "a b", ".hidden", "\u{e9}"] {
        assert_eq!(folders.of(name).err(), Some(FolderError::Name), "{name:?}");
    }
    for name in ["a.io", "a.io:5000", "[::1]", "[::1]:5000", "127.0.0.1", "x-y.z"] {
        assert!(folders.of(name).unwrap().is_none(), "{name}");
    }
}

#[test]
fn several_folders_are_looked_through_in_order() {
    let root = tempfile::tempdir().unwrap();
    let (one, two) = (root.path().join("one"), root.path().join("two"));
    for (folder, name, keys) in [
        (&two, "a.io", "[host.'https://m']"),
        (&one, "_default", "[host.'https://m']\n[host.'https://n']"),
        (&two, "b.io", "unknown = 1"),
        (&two, "c.io", "["),
    ] {
        std::fs::create_dir_all(folder.join(name)).unwrap();
        std::fs::write(folder.join(name).join("hosts.toml"), keys).unwrap();
    }
    let hosts = |paths: &str, name: &str| {
        Folders::new(Path::new(paths)).of(name).unwrap().map(|folder| folder.hosts.len())
    };
    let (first, second) = (one.display(), two.display());
    assert_eq!(hosts(&format!("{second}:{first}"), "a.io"), Some(2));
    assert_eq!(hosts(&format!("{second}:{first}"), "other.io"), Some(3));
    assert_eq!(hosts(&format!("{first}:{second}"), "a.io"), Some(3));
    assert_eq!(hosts("/nowhere", "a.io"), None);
    assert_eq!(hosts("", "a.io"), None);
    let complaints = Folders::new(Path::new(&format!("{first}:/nowhere:{second}"))).complaints();
    assert_eq!(complaints.without_effect, [format!("{second}/b.io/hosts.toml:1: unknown key `unknown`")]);
    let [error] = complaints.errors.try_into().unwrap();
    assert!(error.starts_with(&format!("{second}/c.io/hosts.toml:1: not TOML: ")), "{error}");
}
