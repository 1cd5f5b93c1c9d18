//! Lists of what is kept, a page at a time: a cache may have a million images, and neither the daemon nor who
//! asks it has more than a page of them in memory.
//!
//! Images come in order, and a page begins after the last image of the one before. For each page all records
//! are gone through, some at a time, so that pulls wait for no list: between two parts the lock is free. They
//! are gone through from the end, since removing a record moves the last one into its place: what moves is
//! met twice then, and never missed. So whatever is kept all along is on some page.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

use indexmap::IndexMap;

use super::age::Stamp;
use super::archive::ImageName;
use super::evidence::Origin;
use super::memory::{ImageKey, ImageRef, State};
use super::record::Admission;
use super::{Held, Store};
use crate::oci::{Digest, Repository};

/// A part of a list in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// The rows. There may be none, although there is a next page.
    pub rows: Vec<T>,
    /// After which image the next page begins; none if this is the last.
    pub next: Option<ImageName>,
}

/// One image that is admitted, or that there is evidence of that still serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The image.
    pub image: ImageName,
    /// Its admission.
    pub admission: Option<Admission>,
    /// When its evidence was fetched, and from where it is.
    pub evidence: Option<(Stamp, Origin)>,
}

impl Store {
    /// A page of at most `most` images, of all that are after one.
    #[must_use]
    pub fn list(&self, after: Option<&ImageName>, most: usize) -> Page<Listed> {
        let mut first = First::new(after, most);
        self.go_through(|state| &state.admissions, |image, _| first.offer(image));
        self.go_through(|state| &state.evidence, |image, _| first.offer(image));
        first.page(|names| {
            let state = self.state();
            let listed = names.iter().map(|key| {
                let known = ImageRef(&key.repository, &key.digest);
                let admission = state.admissions.get(&known).map(|admitted| admitted.record(key));
                let evidence = state.evidence.get(&known).map(|evidence| evidence.record(&state));
                let evidence = evidence.map(|record| (record.at, record.origin));
                Listed { image: name(key), admission, evidence }
            });
            let mut rows: Vec<_> = listed.collect();
            drop(state);
            for row in &mut rows {
                row.evidence = row.evidence.filter(|(at, origin)| self.age_of(*at, *origin).is_some());
            }
            rows.retain(|row| row.admission.is_some() || row.evidence.is_some());
            rows
        })
    }

    /// A page of at most `most` images with evidence that still serves, of those that `which` names and that are
    /// after one.
    pub fn held(
        &self,
        after: Option<&ImageName>,
        most: usize,
        which: impl Fn(&Repository, &Digest) -> bool,
    ) -> Page<Held> {
        let mut first = First::new(after, most);
        self.go_through(
            |state| &state.evidence,
            |image, _| {
                if which(&image.repository, &image.digest) {
                    first.offer(image);
                }
            },
        );
        let mut tags = self.tags_of(&first.names);
        first.page(|names| {
            let state = self.state();
            let held = names.iter().filter_map(|key| {
                let record = state.evidence.get(&ImageRef(&key.repository, &key.digest))?.record(&state);
                let mut tags = tags.remove(&(key.repository.to_string(), key.digest)).unwrap_or_default();
                tags.sort_unstable();
                Some(Held {
                    image: name(key),
                    bytes: record.sizes.iter().copied().map(u64::from).sum(),
                    at: record.at,
                    origin: record.origin,
                    tags,
                })
            });
            let mut rows: Vec<_> = held.collect();
            drop(state);
            rows.retain(|held| self.age_of(held.at, held.origin).is_some());
            rows
        })
    }

    /// The tags that were last verified as one of these images.
    fn tags_of(&self, images: &BTreeSet<ImageKey>) -> HashMap<(String, Digest), Vec<String>> {
        let mut tags: HashMap<_, Vec<String>> =
            images.iter().map(|image| ((image.repository.to_string(), image.digest), Vec::new())).collect();
        self.go_through(
            |state| &state.tags,
            |name: &String, record| {
                let Some((repository, tag)) = name.rsplit_once(':') else { return };
                if let Some(of_it) = tags.get_mut(&(repository.to_owned(), record.digest))
                    && !of_it.iter().any(|known| known == tag)
                {
                    of_it.push(tag.to_owned());
                }
            },
        );
        tags
    }

    /// Shows every record of a map, some more than once, those that come and go meanwhile perhaps.
    fn go_through<K, V>(&self, map: impl Fn(&State) -> &IndexMap<K, V>, mut visit: impl FnMut(&K, &V)) {
        let mut backwards = Backwards::default();
        loop {
            let state = self.state();
            let map = map(&state);
            let Some(part) = backwards.next(map.len(), AT_ONCE) else { break };
            for (key, value) in map.get_range(part).into_iter().flatten() {
                visit(key, value);
            }
            drop(state);
            // A lock that is taken again at once is never another's.
            std::thread::yield_now();
        }
    }
}

/// The first names after one.
struct First<'a> {
    after: Option<&'a ImageName>,
    most: usize,
    names: BTreeSet<ImageKey>,
    /// There are more.
    cut: bool,
}

impl<'a> First<'a> {
    fn new(after: Option<&'a ImageName>, most: usize) -> Self {
        Self { after, most: most.max(1), names: BTreeSet::new(), cut: false }
    }

    fn offer(&mut self, image: &ImageKey) {
        let is_before =
            |after: &ImageName| (&*image.repository, &image.digest) <= (&after.repository, &after.digest);
        if self.after.is_some_and(is_before) {
            return;
        }
        let full = self.names.len() == self.most;
        if full && self.names.last().is_some_and(|last| last < image) {
            self.cut = true;
        } else if self.names.insert(image.clone()) && full {
            self.names.pop_last();
            self.cut = true;
        }
    }

    /// The rows of these names, some at a time.
    fn page<T>(self, rows: impl FnMut(&[ImageKey]) -> Vec<T>) -> Page<T> {
        let next = self.names.last().filter(|_| self.cut).map(name);
        let names: Vec<ImageKey> = self.names.into_iter().collect();
        Page { rows: names.chunks(AT_ONCE).flat_map(rows).collect(), next }
    }
}

/// Where somebody is who goes through a list from its end, while records are removed from it.
struct Backwards(usize);

impl Default for Backwards {
    fn default() -> Self {
        Self(usize::MAX)
    }
}

impl Backwards {
    /// The next part of a list that now has that length.
    fn next(&mut self, length: usize, most: usize) -> Option<Range<usize>> {
        let end = self.0.min(length);
        self.0 = end.saturating_sub(most);
        (end > 0).then_some(self.0..end)
    }
}

fn name(key: &ImageKey) -> ImageName {
    ImageName { repository: Repository::clone(&key.repository), digest: key.digest }
}

/// Records that are looked at under one lock: some hundred microseconds.
const AT_ONCE: usize = 1024;

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::super::{Clock, Durability, Options};
    use super::*;

    fn store() -> Store {
        Store::in_memory(Options {
            path: Path::new("/nonexistent").to_owned(),
            max_entries: 100,
            max_size: 1 << 20,
            fresh: Duration::from_secs(3600),
            stale: Duration::from_secs(7200),
            patience: Duration::ZERO,
            clock: Clock::system(),
        })
    }

    fn image(number: u32) -> ImageName {
        let repository = Repository::parse(&format!("a.test/{}", number % 3)).unwrap();
        ImageName { repository, digest: Digest::of(&number.to_le_bytes()) }
    }

    fn admit(store: &Store, number: u32) {
        let ImageName { repository, digest } = image(number);
        let admission = Admission {
            repository,
            digest,
            source: "verified".to_owned(),
            snapshot: digest,
            image_id: None,
            at: store.now(),
            pulled_by: Vec::new(),
            parent: None,
            undecided_since: None,
        };
        store.admit(admission, Durability::ThisProcess);
    }

    fn hold(store: &Store, number: u32, at: Stamp) {
        let ImageName { repository, digest } = image(number);
        store.put_evidence(&repository, &digest, vec![vec![0; 7]], at);
    }

    fn in_order(numbers: impl IntoIterator<Item = u32>) -> Vec<ImageName> {
        let names: BTreeSet<_> = numbers.into_iter().map(image).collect();
        names.into_iter().collect()
    }

    /// Every page, each with at most `most` rows.
    fn all<T>(most: usize, page: impl Fn(Option<&ImageName>) -> Page<T>) -> Vec<T> {
        let (mut rows, mut next) = (Vec::new(), None);
        loop {
            let page = page(next.as_ref());
            assert!(page.rows.len() <= most);
            rows.extend(page.rows);
            match page.next {
                None => return rows,
                later => next = later,
            }
        }
    }

    #[test]
    fn pages_of_any_size_are_one_list_in_order() {
        let store = store();
        (0..8).for_each(|number| admit(&store, number));
        (5..12).for_each(|number| hold(&store, number, store.now()));
        // Evidence that does not serve any more is none.
        hold(&store, 12, store.now().earlier(0));
        for most in [1, 2, 3, 11, 12, 100] {
            let rows = all(most, |after| store.list(after, most));
            assert_eq!(
                rows.iter().map(|row| row.image.clone()).collect::<Vec<_>>(),
                in_order(0..12),
                "{most}"
            );
            let admitted = rows.iter().filter(|row| row.admission.is_some()).count();
            let with_evidence = rows.iter().filter(|row| row.evidence.is_some()).count();
            assert_eq!((admitted, with_evidence), (8, 7));
        }
        assert_eq!(store.list(Some(&in_order(0..12)[11]), 3), Page { rows: Vec::new(), next: None });
    }

    #[test]
    fn pages_of_evidence_have_its_tags_and_only_what_is_asked_for() {
        let store = store();
        (0..9).for_each(|number| hold(&store, number, store.now()));
        for tag in ["v2", "v1"] {
            store.put_tag(&format!("a.test/1:{tag}"), image(4).digest);
        }
        store.put_tag("a.test/2:v3", image(4).digest);
        for most in [1, 2, 100] {
            let rows = all(most, |after| store.held(after, most, |repository, _| repository.path() == "1"));
            assert_eq!(rows.iter().map(|row| row.image.clone()).collect::<Vec<_>>(), in_order([1, 4, 7]));
            let of_it = |row: &&Held| row.image == image(4);
            assert_eq!(rows.iter().find(of_it).unwrap().tags, ["v1", "v2"]);
            assert_eq!(rows.iter().map(|row| row.bytes).collect::<Vec<_>>(), [7, 7, 7]);
        }
    }

    #[test]
    fn what_stays_is_met_whatever_goes_meanwhile() {
        let mut map: IndexMap<u32, ()> = (0..50).map(|number| (number, ())).collect();
        let (mut backwards, mut met) = (Backwards::default(), BTreeSet::new());
        let mut goes = 0;
        while let Some(part) = backwards.next(map.len(), 3) {
            met.extend(map.get_range(part).unwrap().keys().copied());
            // Some are moved behind those that were met, some by that out of reach.
            goes = (goes + 17) % 50;
            map.swap_remove(&goes);
            map.retain(|number, ()| number % 7 != goes % 7 || number % 2 == 0);
        }
        assert!(map.len() > 5, "something stayed");
        assert_eq!(map.keys().filter(|number| !met.contains(*number)).count(), 0);
    }
}
