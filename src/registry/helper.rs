//! docker's credential helpers: programs that say who this machine is to a registry.
//!
//! `docker-credential-<name> get` is given the server's name on standard input and prints
//! `{"Username": …, "Secret": …}`; a user `<token>` means an identity token (docker/docker-credential-helpers).
//! The docker config files, the administrator's, name helpers; a name is letters, digits, `-` and `_`, and
//! the program is looked for in `PATH` alone, so no file can name another program.
//!
//! A helper is bounded in time and output, ends with the request that asked for it together with what it
//! started, and is asked once for all who wait. What it says is kept for [`KEPT`], in memory, and that it failed
//! for [`FAILURE_KEPT`]: one that hangs must not take its time for each request of a verification. Its standard error
//! is not read: some print secrets there. That a helper has no credentials is an answer; that it fails is an error,
//! which says the helper's name and the server's and nothing of what it printed.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};

use super::credentials::{Audience, Credentials};

/// The name of a helper: what follows `docker-credential-`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct HelperName(String);

/// All helpers, with what they said last.
pub(super) struct Helpers {
    /// As in `PATH`.
    folders: OsString,
    patience: Duration,
    failure_kept: Duration,
    known: Mutex<HashMap<(HelperName, String), Arc<Slot>>>,
}

/// Why a helper said nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum HelperError {
    /// The program is not in `PATH`.
    #[error("is not installed")]
    Missing,
    /// It cannot be run, or ended with a failure.
    #[error("failed")]
    Failed,
    /// It took too long.
    #[error("took too long")]
    Late,
    /// It printed something else than credentials.
    #[error("printed no credentials")]
    Unreadable,
}

type Slot = tokio::sync::Mutex<Option<(Instant, Said)>>;

type Said = Result<Option<Credentials>, HelperError>;

/// What a helper prints.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Printed {
    username: String,
    secret: String,
}

impl HelperName {
    /// `None` for what could name another program.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        (!text.is_empty() && text.bytes().all(plain)).then(|| Self(text.to_owned()))
    }

    /// The program's name.
    pub(super) fn program(&self) -> String {
        format!("docker-credential-{}", self.0)
    }
}

impl Helpers {
    /// Those in the folders of `PATH`.
    pub(super) fn of_path() -> Self {
        Self::of(std::env::var_os("PATH").unwrap_or_default(), PATIENCE)
    }

    pub(super) fn of(folders: OsString, patience: Duration) -> Self {
        Self { folders, patience, failure_kept: FAILURE_KEPT, known: Mutex::default() }
    }

    /// The credentials for a server, as docker names it; `None` if the helper has none.
    pub(super) async fn credentials(&self, name: &HelperName, server: &str) -> Said {
        let slot = {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            // Servers' names come from pods: forget those that nobody waits for before there are too many.
            if known.len() >= SLOTS_LIMIT {
                known.retain(|_, slot| Arc::strong_count(slot) > 1);
            }
            Arc::clone(known.entry((name.clone(), server.to_owned())).or_default())
        };
        let mut kept = slot.lock().await;
        if let Some((at, said)) = kept.as_ref()
            && at.elapsed() < if said.is_ok() { KEPT } else { self.failure_kept }
        {
            return said.clone();
        }
        let said = tokio::time::timeout(self.patience, self.ask(name, server));
        let said = said.await.unwrap_or(Err(HelperError::Late));
        *kept = Some((Instant::now(), said.clone()));
        said
    }

    async fn ask(&self, name: &HelperName, server: &str) -> Said {
        let program = self.find(&name.program()).ok_or(HelperError::Missing)?;
        let mut child = Command::new(program)
            .arg("get")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .process_group(0)
            .spawn()
            .map_err(|_| HelperError::Failed)?;
        let group = Group::of(&child);
        let (Some(mut input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(HelperError::Failed);
        };
        // One that knows without reading hangs up; what it prints counts.
        drop(input.write_all(server.as_bytes()).await);
        drop(input);
        // Closed at the limit, so that one that prints for ever ends.
        let reading = async move {
            let mut printed = Vec::new();
            output.take(OUTPUT_LIMIT + 1).read_to_end(&mut printed).await.map(|_| printed)
        };
        let ending = async {
            let status = child.wait().await;
            // What it left behind may hold its output open.
            drop(group);
            status
        };
        let (printed, status) = tokio::join!(reading, ending);
        let printed = printed.map_err(|_| HelperError::Failed)?;
        if u64::try_from(printed.len()).is_ok_and(|length| length > OUTPUT_LIMIT) {
            return Err(HelperError::Unreadable);
        }
        let status = status.map_err(|_| HelperError::Failed)?;
        let text = String::from_utf8(printed).map_err(|_| HelperError::Unreadable)?;
        if !status.success() {
            // docker recognises it by this text.
            return if text.trim() == NOT_FOUND { Ok(None) } else { Err(HelperError::Failed) };
        }
        read(&text)
    }

    fn find(&self, program: &str) -> Option<PathBuf> {
        // A relative folder would be whatever the working folder is.
        let folders = std::env::split_paths(&self.folders).filter(|folder| folder.is_absolute());
        folders.map(|folder| folder.join(program)).find(|file| file.is_file())
    }
}

/// A helper and what it started, which end with this.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // Nobody may be left.
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}

fn read(text: &str) -> Result<Option<Credentials>, HelperError> {
    // serde's own error would quote the secret.
    let printed: Printed = serde_json::from_str(text).map_err(|_| HelperError::Unreadable)?;
    // It was asked for one host.
    let audience = Audience::Registry;
    Ok(match (printed.username.as_str(), printed.secret) {
        (_, secret) if secret.is_empty() => None,
        ("<token>", token) => Some(Credentials::IdentityToken { token, audience }),
        (_, password) => Some(Credentials::Basic { user: printed.username, password, audience }),
    })
}

/// What a helper prints, with exit code 1, for a server that it does not know.
const NOT_FOUND: &str = "credentials not found in native keychain";
/// How long an answer counts. Tokens of cloud registries live for hours; one that was withdrawn is
/// refused by the registry until then.
const KEPT: Duration = Duration::from_secs(60);
/// How long a failure counts: as long as the kubelet waits before its next try.
const FAILURE_KEPT: Duration = Duration::from_secs(10);
/// How long a helper may take: some ask a service on the network.
const PATIENCE: Duration = Duration::from_secs(10);
/// Tokens of cloud registries have some 4 KiB.
const OUTPUT_LIMIT: u64 = 64 << 10;
const SLOTS_LIMIT: usize = 1000;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// A folder with the helper `test`, which runs `script`; each run adds a line to `runs`.
    fn helper(script: &str) -> (tempfile::TempDir, Helpers) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("docker-credential-test");
        let runs = folder.path().join("runs");
        let text =
            format!("#!/bin/sh\n[ \"$1\" = get ] || exit 9\necho run >> {}\n{script}\n", runs.display());
        crate::registry::tests::write_program(&file, &text);
        let helpers = Helpers::of(folder.path().as_os_str().to_owned(), Duration::from_secs(20));
        (folder, helpers)
    }

    fn runs(folder: &Path) -> usize {
        std::fs::read_to_string(folder.join("runs")).map_or(0, |text| text.lines().count())
    }

    fn test() -> HelperName {
        HelperName::parse("test").unwrap()
    }

    #[tokio::test]
    async fn what_a_helper_prints_are_credentials() {
        let basic = |user: &str, password: &str| {
            let (user, password) = (user.to_owned(), password.to_owned());
            Some(Credentials::Basic { user, password, audience: Audience::Registry })
        };
        for (script, wanted) in [
            (
                r#"read server; echo "{\"ServerURL\":\"$server\",\"Username\":\"u\",\"Secret\":\"for $server\"}""#,
                Ok(basic("u", "for a.io")),
            ),
            (r#"echo '{"Username":"u","Secret":"it hangs up"}'"#, Ok(basic("u", "it hangs up"))),
            (
                r#"echo '{"Username":"<token>","Secret":"t"}'"#,
                Ok(Some(Credentials::IdentityToken { token: "t".into(), audience: Audience::Registry })),
            ),
            (r#"echo '{"Username":"","Secret":""}'"#, Ok(None)),
            ("echo 'credentials not found in native keychain'; exit 1", Ok(None)),
            ("echo 'no session with the service'; exit 1", Err(HelperError::Failed)),
            (r#"echo '{"Username":"u","Secret":"s"}'; exit 1"#, Err(HelperError::Failed)),
            ("kill -9 $$", Err(HelperError::Failed)),
            ("echo nothing of use", Err(HelperError::Unreadable)),
            ("printf '\\377'", Err(HelperError::Unreadable)),
            ("cat /dev/zero", Err(HelperError::Unreadable)),
        ] {
            let (_folder, helpers) = helper(script);
            assert_eq!(helpers.credentials(&test(), "a.io").await, wanted, "{script}");
        }
    }

    #[tokio::test]
    async fn a_helper_is_asked_once_for_all_who_wait_and_again_for_another_server() {
        let (folder, helpers) = helper(r#"sleep 0.2; echo '{"Username":"u","Secret":"s"}'"#);
        let name = test();
        let all = futures_util::future::join_all((0..20).map(|_| helpers.credentials(&name, "a.io"))).await;
        assert!(all.iter().all(|answer| matches!(answer, Ok(Some(_)))));
        assert_eq!(runs(folder.path()), 1);
        helpers.credentials(&name, "b.io").await.unwrap();
        assert_eq!(runs(folder.path()), 2);
    }

    #[tokio::test]
    async fn a_failure_is_remembered_for_a_while() {
        for (kept, expected) in [(Duration::from_secs(3600), 1), (Duration::ZERO, 3)] {
            let (folder, mut helpers) = helper("exit 1");
            helpers.failure_kept = kept;
            for _ in 0..3 {
                assert_eq!(helpers.credentials(&test(), "a.io").await, Err(HelperError::Failed));
            }
            assert_eq!(runs(folder.path()), expected);
        }
    }

    #[tokio::test]
    async fn what_a_helper_leaves_behind_is_ended_and_not_waited_for() {
        let script = r#"sleep 1000 & echo $! > "$(dirname "$0")/pid"; echo '{"Username":"u","Secret":"s"}'"#;
        let (folder, helpers) = helper(script);
        assert!(matches!(helpers.credentials(&test(), "a.io").await, Ok(Some(_))));
        assert_gone(folder.path()).await;
    }

    #[tokio::test]
    async fn a_helper_that_hangs_is_ended() {
        let (folder, mut helpers) = helper("echo $$ > \"$(dirname \"$0\")/pid\"; exec sleep 1000");
        helpers.patience = Duration::from_secs(2);
        assert_eq!(helpers.credentials(&test(), "a.io").await, Err(HelperError::Late));
        assert_gone(folder.path()).await;
    }

    #[tokio::test]
    async fn a_helper_that_hangs_is_ended_with_what_it_waits_for() {
        let (folder, mut helpers) = helper("sleep 1000 & echo $! > \"$(dirname \"$0\")/pid\"; wait");
        helpers.patience = Duration::from_secs(2);
        assert_eq!(helpers.credentials(&test(), "a.io").await, Err(HelperError::Late));
        assert_gone(folder.path()).await;
    }

    /// The process whose number is in the folder has ended, or does so soon.
    async fn assert_gone(folder: &Path) {
        let pid = std::fs::read_to_string(folder.join("pid")).unwrap();
        let status = PathBuf::from(format!("/proc/{}/stat", pid.trim()));
        // Killed at once, and reaped by the runtime a little later.
        let gone = || std::fs::read_to_string(&status).map_or(true, |text| text.contains(") Z "));
        for _ in 0..200 {
            if gone() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the helper is still running");
    }

    #[tokio::test]
    async fn no_name_is_another_program() {
        for text in ["", "../sh", "a/b", "a b", "a;b", "ä", "a.b", "-x\n"] {
            assert_eq!(HelperName::parse(text), None, "{text:?}");
        }
        let (_folder, helpers) = helper("exit 0");
        let other = HelperName::parse("other").unwrap();
        assert_eq!(helpers.credentials(&other, "a.io").await, Err(HelperError::Missing));
    }
}
