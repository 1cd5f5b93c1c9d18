//! The five minutes in which an image that was there is not answered as absent (rule S2).
//!
//! The kubelet asks ImageStatus once more after a pull, to find the user of the image. "Absent"
//! there makes it run the container as root; an error makes it try again. So a name that was
//! answered present or pulled within [`WINDOW`] is refused with an error, never hidden.
//!
//! The window must outlive a restart, and a purge of the cache, in its middle. Names are therefore
//! appended to a small file of their own (`<boot> <seconds since then> <name>` a line), without fsync: it
//! guards against the death of this process, and after the death of the node the kubelet starts
//! anew too. The file is written again from memory when it has grown past [`FILE_LIMIT`].
//!
//! Times are those of the boot clock: the wall clock may be set while the window is open, and one that
//! was ahead for a moment would otherwise hold a name there for as long as it was.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::cache::Stamp;

/// By the boot clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Moment {
    boot: u64,
    seconds: u64,
}

/// Names that were answered present or pulled lately.
pub(super) struct Guard {
    state: Mutex<State>,
}

struct State {
    seen: HashMap<String, Moment>,
    path: PathBuf,
    file: Option<File>,
    written: u64,
}

impl Guard {
    /// Reads what an earlier process left in `path`. A file that cannot be read or written is said
    /// in the log; memory serves then.
    pub(super) fn open(path: Option<&Path>, now: Stamp) -> Self {
        let now = Moment::of(now);
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
                    // A boot that has no id may look like another one.
                    seen.insert(name, Moment { seconds: at.seconds.min(now.seconds), ..at });
                }
            }
        }
        let mut state = State { seen, path: path.to_owned(), file: None, written: 0 };
        state.rewrite(now);
        Self { state: Mutex::new(state) }
    }

    /// Remembers that `name` was answered present or was pulled at `now`.
    pub(super) fn present(&self, name: &str, now: Stamp) {
        let now = Moment::of(now);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let known = state.seen.get(name).copied();
        let young = known.is_some_and(|at| at.is_within(REFRESH, now));
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
    pub(super) fn may_hide(&self, name: &str, now: Stamp) -> bool {
        let now = Moment::of(now);
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.seen.get(name).is_none_or(|at| !within(*at, now))
    }
}

impl State {
    fn append(&mut self, name: &str, at: Moment) {
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

    fn rewrite(&mut self, now: Moment) {
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

impl Moment {
    fn of(stamp: Stamp) -> Self {
        let (boot, seconds) = stamp.since_boot();
        Self { boot, seconds }
    }

    /// Whether less than `time` passed since then.
    const fn is_within(self, time: Duration, now: Self) -> bool {
        self.boot == now.boot && now.seconds.saturating_sub(self.seconds) < time.as_secs()
    }
}

/// A shown name is refreshed at most once in REFRESH, so the recorded time may be that much early.
fn within(at: Moment, now: Moment) -> bool {
    at.is_within(WINDOW.saturating_add(REFRESH), now)
}

fn line(name: &str, Moment { boot, seconds }: Moment) -> String {
    let name: String = name.chars().filter(|character| !character.is_control()).collect();
    format!("{boot} {seconds} {name}\n")
}

fn parse(line: &str) -> Option<(String, Moment)> {
    let (boot, rest) = line.split_once(' ')?;
    let (seconds, name) = rest.split_once(' ')?;
    Some((name.to_owned(), Moment { boot: boot.parse().ok()?, seconds: seconds.parse().ok()? }))
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

    const START: Stamp = Stamp::new(1_800_000_000, 1, 5000);

    fn later(seconds: u64) -> Stamp {
        Stamp::new(1_800_000_000 + seconds, 1, 5000 + seconds)
    }

    fn guard() -> (tempfile::TempDir, Guard) {
        let folder = tempfile::tempdir().unwrap();
        let guard = Guard::open(Some(&folder.path().join("shown")), START);
        (folder, guard)
    }

    #[test]
    fn s2_never_absent_within_five_minutes_of_present() {
        let (_folder, guard) = guard();
        assert!(guard.may_hide("a", START));
        guard.present("a", START);
        assert!(!guard.may_hide("a", later(300)));
        assert!(guard.may_hide("b", START));
        assert!(guard.may_hide("a", later(330)));
    }

    #[test]
    fn s2_setting_the_clock_neither_opens_the_window_nor_keeps_it() {
        let (folder, guard) = guard();
        let year = 365 * 86_400;
        guard.present("a", START);
        for wall in [1_800_000_000 - year, 1_800_000_000 + year] {
            assert!(!guard.may_hide("a", Stamp::new(wall, 1, 5010)), "{wall}");
            assert!(guard.may_hide("a", Stamp::new(wall, 1, 5330)), "{wall}");
        }
        // A boot whose clock was ahead is over with it.
        guard.present("b", Stamp::new(1_800_000_000 + year, 1, 5010));
        drop(guard);
        let again = Guard::open(Some(&folder.path().join("shown")), Stamp::new(1_800_000_100, 2, 9));
        assert!(again.may_hide("b", Stamp::new(1_800_000_100, 2, 9)));
    }

    #[test]
    fn s2_the_window_outlives_a_restart() {
        let (folder, guard) = guard();
        guard.present("docker.io/library/a:1", START);
        drop(guard);
        let again = Guard::open(Some(&folder.path().join("shown")), later(10));
        assert!(!again.may_hide("docker.io/library/a:1", later(10)));
        let last = Guard::open(Some(&folder.path().join("shown")), later(600));
        assert!(last.state.lock().unwrap().seen.is_empty());
    }

    #[test]
    fn a_broken_file_or_folder_is_no_obstacle() {
        let (folder, _) = guard();
        let broken = b"\xff\xfe broken\nx y\n1 18446744073709551616 z\n1 2\n";
        std::fs::write(folder.path().join("shown"), broken).unwrap();
        Guard::open(Some(&folder.path().join("shown")), START).present("a", START);
        let guard = Guard::open(Some(Path::new("/nonexistent/shown")), START);
        guard.present("a", START);
        assert!(!guard.may_hide("a", START));
    }
}
