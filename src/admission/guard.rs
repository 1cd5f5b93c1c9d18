//! The five minutes in which an image that was there is not answered as absent (rule S2).
//!
//! The kubelet asks ImageStatus once more after a pull, to find the user of the image. "Absent"
//! there makes it run the container as root; an error makes it try again. So a name that was
//! answered present or pulled within [`WINDOW`] is refused with an error, never hidden.
//!
//! The window must outlive a restart, and a purge of the cache, in its middle. Names are therefore
//! appended to a small file of their own (`<seconds since 1970> <name>` a line), without fsync: it
//! guards against the death of this process, and after the death of the node the kubelet starts
//! anew too. The file is written again from memory when it has grown past [`FILE_LIMIT`].

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// Names that were answered present or pulled lately.
pub(super) struct Guard {
    state: Mutex<State>,
}

struct State {
    seen: HashMap<String, SystemTime>,
    path: PathBuf,
    file: Option<File>,
    written: u64,
}

impl Guard {
    /// Reads what an earlier process left in `path`. A file that cannot be read or written is said
    /// in the log; memory serves then.
    pub(super) fn open(path: Option<&Path>, now: SystemTime) -> Self {
        let Some(path) = path else {
            let state = State { seen: HashMap::new(), path: PathBuf::new(), file: None, written: 0 };
            return Self { state: Mutex::new(state) };
        };
        let mut seen = HashMap::new();
        if let Ok(file) = File::open(path) {
            for line in BufReader::new(file).lines().map_while(Result::ok) {
                if let Some((name, at)) = parse(&line)
                    && within(at, now)
                {
                    seen.insert(name, at);
                }
            }
        }
        let mut state = State { seen, path: path.to_owned(), file: None, written: 0 };
        state.rewrite(now);
        Self { state: Mutex::new(state) }
    }

    /// Remembers that `name` was answered present or was pulled at `now`.
    pub(super) fn present(&self, name: &str, now: SystemTime) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let known = state.seen.get(name).copied();
        let young = known.is_some_and(|at| now.duration_since(at).is_ok_and(|age| age < REFRESH));
        if young {
            return;
        }
        state.seen.insert(name.to_owned(), now);
        state.append(name, now);
        if state.written > FILE_LIMIT {
            state.rewrite(now);
        }
    }

    /// Whether `name` may be answered as absent at `now`.
    pub(super) fn may_hide(&self, name: &str, now: SystemTime) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.seen.get(name).is_none_or(|at| !within(*at, now))
    }
}

impl State {
    fn append(&mut self, name: &str, at: SystemTime) {
        let line = line(name, at);
        let written = self.file.as_mut().map(|file| file.write_all(line.as_bytes()));
        match written {
            Some(Ok(())) => self.written += u64::try_from(line.len()).unwrap_or(FILE_LIMIT),
            Some(Err(error)) => {
                tracing::warn!(%error, path = %self.path.display(), "names shown lately are kept in memory only");
                self.file = None;
            }
            None => {}
        }
    }

    fn rewrite(&mut self, now: SystemTime) {
        self.seen.retain(|_, at| within(*at, now));
        let text: String = self.seen.iter().map(|(name, at)| line(name, *at)).collect();
        let temporary = self.path.with_extension("new");
        let replaced = std::fs::write(&temporary, &text)
            .and_then(|()| std::fs::rename(&temporary, &self.path))
            .and_then(|()| OpenOptions::new().append(true).open(&self.path));
        match replaced {
            Ok(file) => self.file = Some(file),
            Err(error) => {
                tracing::warn!(%error, path = %self.path.display(), "names shown lately are kept in memory only");
                self.file = None;
            }
        }
        self.written = u64::try_from(text.len()).unwrap_or(FILE_LIMIT);
    }
}

/// A time in the future counts as now: a clock that was set back must not open the window early.
fn within(at: SystemTime, now: SystemTime) -> bool {
    // A shown name is refreshed at most once in REFRESH, so the recorded time may be that much early.
    now.duration_since(at).map_or(true, |age| age < WINDOW + REFRESH)
}

fn line(name: &str, at: SystemTime) -> String {
    let seconds = at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |age| age.as_secs());
    let name: String = name.chars().filter(|character| !character.is_control()).collect();
    format!("{seconds} {name}\n")
}

fn parse(line: &str) -> Option<(String, SystemTime)> {
    let (seconds, name) = line.split_once(' ')?;
    let at = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds.parse().ok()?))?;
    Some((name.to_owned(), at))
}

/// Rule S2; the kubelet's own sequence takes seconds, its back-off ends at five minutes.
const WINDOW: Duration = Duration::from_secs(300);
/// A name that is shown again and again is written at most this often.
const REFRESH: Duration = Duration::from_secs(30);
/// Some thousand names.
const FILE_LIMIT: u64 = 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn guard() -> (tempfile::TempDir, Guard, SystemTime) {
        let folder = tempfile::tempdir().unwrap();
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let guard = Guard::open(Some(&folder.path().join("shown")), now);
        (folder, guard, now)
    }

    #[test]
    fn s2_never_absent_within_five_minutes_of_present() {
        let (_folder, guard, start) = guard();
        assert!(guard.may_hide("a", start));
        guard.present("a", start);
        assert!(!guard.may_hide("a", start + WINDOW));
        assert!(guard.may_hide("b", start));
        assert!(guard.may_hide("a", start + WINDOW + REFRESH));
        assert!(!guard.may_hide("a", start - WINDOW), "a clock that was set back");
    }

    #[test]
    fn s2_the_window_outlives_a_restart() {
        let (folder, guard, start) = guard();
        guard.present("docker.io/library/a:1", start);
        drop(guard);
        let again = Guard::open(Some(&folder.path().join("shown")), start + Duration::from_secs(10));
        assert!(!again.may_hide("docker.io/library/a:1", start + Duration::from_secs(10)));
        let later = Guard::open(Some(&folder.path().join("shown")), start + WINDOW * 2);
        assert!(later.state.lock().unwrap().seen.is_empty());
    }

    #[test]
    fn a_broken_file_or_folder_is_no_obstacle() {
        let (folder, _, start) = guard();
        std::fs::write(folder.path().join("shown"), b"\xff\xfe broken\nx y\n18446744073709551615 z\n")
            .unwrap();
        Guard::open(Some(&folder.path().join("shown")), start).present("a", start);
        let guard = Guard::open(Some(Path::new("/nonexistent/shown")), start);
        guard.present("a", start);
        assert!(!guard.may_hide("a", start));
    }
}
