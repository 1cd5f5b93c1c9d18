//! Verdicts, and the digests that tags were last verified as.

use std::time::SystemTime;

use super::Store;
use super::age::{Age, Stamp};
use super::record::{Kind, TagRecord, VerdictKey, VerdictRecord};
use crate::oci::Digest;

impl Store {
    /// The age of the verdict for `key`, if there is one that is not expired.
    #[must_use]
    pub fn verdict(&self, key: &VerdictKey) -> Option<Age> {
        let hash = key.hash();
        let mut state = self.state();
        let used = state.tick();
        let verdict = state.verdicts.get_mut(&hash)?;
        verdict.used = used;
        let (at, until) = (verdict.at, verdict.until());
        drop(state);
        // Neither fresh nor stale after its end: what it rests on would not verify any more.
        if until.is_some_and(|until| at.is_over(until, self.now())) {
            return None;
        }
        self.current(at)
    }

    /// Keeps an allowing verdict that rests on evidence of the time `at` and holds no longer than
    /// `until` (rule D8).
    pub fn put_verdict(&self, key: VerdictKey, at: Stamp, until: Option<SystemTime>) {
        let hash = key.hash();
        let until = until
            .map(|until| until.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs()));
        let record = VerdictRecord { key, at, until };
        let mut state = self.state();
        let used = state.tick();
        let verdict = state.verdict(&record, used);
        state.verdicts.insert(hash, verdict);
        let removed = state.evict_verdicts(self.shared.options.max_entries);
        drop(state);
        self.write(Kind::Verdict, hash.as_bytes(), &record);
        self.remove_all(Kind::Verdict, removed.iter().map(|hash| hash.as_bytes().to_vec()));
    }

    /// Remembers which digest a tag was verified as.
    pub fn put_tag(&self, name: &str, digest: Digest) {
        let record = TagRecord { digest, at: self.now() };
        let mut state = self.state();
        state.tags.insert(name.to_owned(), record.clone());
        let mut removed = Vec::new();
        if state.tags.len() > self.shared.options.max_entries {
            let mut all: Vec<_> =
                state.tags.iter().map(|(name, tag)| (tag.at.seconds(), name.clone())).collect();
            all.sort_unstable();
            removed.extend(all.into_iter().take(1 + state.tags.len() / 10).map(|(_, name)| name));
            for name in &removed {
                state.tags.swap_remove(name);
            }
        }
        drop(state);
        self.write(Kind::Tag, name.as_bytes(), &record);
        self.remove_all(Kind::Tag, removed.into_iter().map(String::into_bytes));
    }

    /// The digest a tag was last verified as, if that is not expired.
    #[must_use]
    pub fn tag(&self, name: &str) -> Option<Digest> {
        let record = self.state().tags.get(name).cloned()?;
        self.current(record.at).map(|_| record.digest)
    }
}
