//! The store as its users see it: over restarts, damage and bounds.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use super::*;
use crate::oci::{Digest, Repository};

fn options(path: &Path) -> Options {
    Options {
        path: path.join("cache"),
        max_entries: 100,
        max_size: 1 << 20,
        fresh: Duration::from_secs(3600),
        stale: Duration::from_secs(7200),
        // A child of another test has our locks between its fork and its exec.
        patience: Duration::from_secs(10),
        clock: Clock::system(),
    }
}

fn repository() -> Repository {
    Repository::parse("ghcr.io/org/app").unwrap()
}

fn key(number: usize) -> VerdictKey {
    let digest = |word: &str| Digest::of(format!("{word} {number}").as_bytes());
    VerdictKey {
        repository: repository(),
        digest: digest("image"),
        entry: digest("entry"),
        trust: None,
        pod: digest("pod"),
    }
}

fn admission(store: &Store, number: usize) -> Admission {
    Admission {
        repository: repository(),
        digest: key(number).digest,
        source: "verified".into(),
        snapshot: Digest::of(b"snapshot"),
        image_id: None,
        at: store.now(),
        pulled_by: vec![Digest::of(b"anonymous")],
        parent: None,
        undecided_since: None,
    }
}

#[tokio::test]
async fn c6_everything_survives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(options(folder.path())).unwrap();
    let first = admission(&store, 1);
    store.put_verdict(key(1), store.now(), None);
    store.admit(first.clone(), Durability::Durable);
    store.admit(
        Admission { image_id: Some("sha256:abc".into()), pulled_by: Vec::new(), ..first.clone() },
        Durability::Durable,
    );
    store.admit(admission(&store, 2), Durability::ThisProcess);
    store.put_evidence(&repository(), &key(1).digest, vec![b"one".to_vec(), b"two".to_vec()], store.now());
    store.put_tag("ghcr.io/org/app:v1", key(1).digest);
    assert!(store.flush().await);
    store.close();

    let store = Store::open(options(folder.path())).unwrap();
    assert_eq!(store.phase(), Phase::Open);
    assert_eq!((store.verdict(&key(1)), store.verdict(&key(2))), (Some(Age::Fresh), None));
    let kept = store.admission(&repository(), &key(1).digest).unwrap();
    assert_eq!((kept.image_id.as_deref(), kept.pulled_by.len()), (Some("sha256:abc"), 1));
    assert_eq!(store.admission(&repository(), &key(2).digest), None, "c3: not durable");
    let of_id = |id: &str| store.admissions_of_id(id).len();
    assert_eq!([of_id("sha256:ab"), of_id("abc"), of_id("sha256:"), of_id("b")], [1, 1, 0, 0]);
    let kept = store.evidence(&repository(), &key(1).digest).await.unwrap();
    assert_eq!((kept.pieces, kept.age), (vec![b"one".to_vec(), b"two".to_vec()], Age::Fresh));
    assert_eq!(store.tag("ghcr.io/org/app:v1"), Some(key(1).digest));
    store.close();
}

#[tokio::test]
async fn c6_evidence_stays_with_a_registry_that_only_capitals_tell_from_a_path() {
    let folder = tempfile::tempdir().unwrap();
    let [registry, hub] = ["Registry/app", "docker.io/registry/app"].map(|text| {
        let digest = key(1).digest;
        (Repository::parse(text).unwrap(), digest)
    });
    let store = Store::open(options(folder.path())).unwrap();
    store.put_evidence(&registry.0, &registry.1, vec![b"one".to_vec()], store.now());
    assert!(store.flush().await);
    store.close();

    let store = Store::open(options(folder.path())).unwrap();
    let kept = store.evidence(&registry.0, &registry.1).await.map(|kept| kept.pieces);
    assert_eq!(kept, Some(vec![b"one".to_vec()]));
    assert_eq!(store.evidence(&hub.0, &hub.1).await, None);
    store.close();
}

#[tokio::test]
async fn purge_forgets_what_it_names() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(options(folder.path())).unwrap();
    for number in [1, 2] {
        store.put_verdict(key(number), store.now(), None);
        store.admit(admission(&store, number), Durability::Durable);
        store.put_evidence(&repository(), &key(number).digest, vec![vec![0; number]], store.now());
    }
    assert_eq!(store.purge(&Selection::Image(repository(), key(1).digest)), 1);
    assert_eq!((store.verdict(&key(1)), store.verdict(&key(2))), (None, Some(Age::Fresh)));
    assert_eq!(store.counts().evidence, 1);
    assert_eq!(store.purge(&Selection::Everything), 1);
    store.close();
    let store = Store::open(options(folder.path())).unwrap();
    assert_eq!(store.counts(), Counts::default());
    store.close();
}

#[test]
fn c5_oldest_use_goes_first_and_present_images_last() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(Options { max_entries: 10, ..options(folder.path()) }).unwrap();
    store.mark_present(BTreeSet::from([key(0).digest]));
    for number in 0..10 {
        store.put_verdict(key(number), store.now(), None);
    }
    assert_eq!(store.verdict(&key(1)), Some(Age::Fresh), "used again");
    store.put_verdict(key(10), store.now(), None);
    let kept: Vec<_> = (0..11).filter(|number| store.verdict(&key(*number)).is_some()).collect();
    assert_eq!(kept, [0, 1, 4, 5, 6, 7, 8, 9, 10]);
    store.close();
}

#[tokio::test]
async fn c5_evidence_is_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(Options { max_size: 1000, ..options(folder.path()) }).unwrap();
    for number in 0..10_u8 {
        store.put_evidence(&repository(), &key(number.into()).digest, vec![vec![number; 300]], store.now());
    }
    assert!(store.counts().evidence_bytes <= 1000);
    assert!(store.evidence(&repository(), &key(9).digest).await.is_some());
    assert!(store.evidence(&repository(), &key(0).digest).await.is_none());
    store.close();
}

#[tokio::test]
async fn c5_evidence_of_oldest_use_goes_first_and_of_present_images_last() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(Options { max_entries: 10, ..options(folder.path()) }).unwrap();
    store.mark_present(BTreeSet::from([key(0).digest]));
    for number in 0..10_u8 {
        store.put_evidence(&repository(), &key(number.into()).digest, vec![vec![number]], store.now());
    }
    assert!(store.evidence(&repository(), &key(1).digest).await.is_some(), "used again");
    store.put_evidence(&repository(), &key(10).digest, vec![vec![10]], store.now());
    let mut kept = Vec::new();
    for number in 0..11 {
        if store.evidence(&repository(), &key(number).digest).await.is_some() {
            kept.push(number);
        }
    }
    assert_eq!(kept, [0, 1, 4, 5, 6, 7, 8, 9, 10]);
    assert_eq!((store.counts().evidence, store.counts().evidence_bytes), (9, 9));
    store.close();
}

#[tokio::test]
async fn c5_oldest_goes_first_over_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let options = || Options { max_entries: 10, ..options(folder.path()) };
    let store = Store::open(options()).unwrap();
    let now = store.now();
    // So many seconds ago: another order than that of writing or of keys.
    let ago = |number: usize| now.earlier(now.seconds() - u64::try_from(number).unwrap());
    let put = |store: &Store, number: usize, at: Stamp| {
        store.put_verdict(key(number), at, None);
        store.admit(Admission { at, ..admission(store, number) }, Durability::Durable);
        store.put_evidence(&repository(), &key(number).digest, vec![vec![7; number]], at);
    };
    for number in 0..10 {
        put(&store, number, ago(number));
    }
    assert!(store.flush().await);
    store.close();

    let store = Store::open(options()).unwrap();
    let used = key(9);
    assert_eq!(store.verdict(&used), Some(Age::Fresh));
    assert!(store.admission(&repository(), &used.digest).is_some());
    assert!(store.evidence(&repository(), &used.digest).await.is_some());
    store.mark_present(BTreeSet::new());
    put(&store, 10, now);
    let admitted = store.admissions_in(&repository());
    let mut held = Vec::new();
    for number in 0..11 {
        if store.evidence(&repository(), &key(number).digest).await.is_some() {
            held.push(number);
        }
    }
    let of = |test: &dyn Fn(usize) -> bool| (0..11).filter(|number| test(*number)).collect::<Vec<_>>();
    let kept = [
        of(&|number| store.verdict(&key(number)).is_some()),
        of(&|number| admitted.iter().any(|admission| admission.digest == key(number).digest)),
        held,
    ];
    assert_eq!(kept, [[0, 1, 2, 3, 4, 5, 6, 9, 10]; 3]);
    store.close();
}

#[tokio::test]
async fn c5_no_admission_of_a_present_image_goes_before_the_first_look() {
    let folder = tempfile::tempdir().unwrap();
    let options = || Options { max_entries: 10, ..options(folder.path()) };
    let store = Store::open(options()).unwrap();
    let now = store.now();
    // The one of the image that is on the node is the oldest.
    let old = Admission { at: now.earlier(now.seconds() - 1000), ..admission(&store, 0) };
    store.admit(old, Durability::Durable);
    for number in 1..10 {
        store.admit(admission(&store, number), Durability::Durable);
    }
    assert!(store.flush().await);
    store.close();

    let store = Store::open(options()).unwrap();
    let admitted = |number: usize| {
        store.admissions_in(&repository()).iter().any(|admission| admission.digest == key(number).digest)
    };
    for number in 10..20 {
        store.admit(admission(&store, number), Durability::Durable);
    }
    assert_eq!((store.counts().admissions, admitted(0)), (20, true));
    store.mark_present(BTreeSet::from([key(0).digest]));
    store.admit(admission(&store, 20), Durability::Durable);
    assert_eq!((store.counts().admissions, admitted(0)), (9, true));
    store.close();
    // Nobody looks: what is kept is bounded all the same.
    let store = Store::open(Options { path: folder.path().join("other"), ..options() }).unwrap();
    for number in 0..30 {
        store.admit(admission(&store, number), Durability::Durable);
    }
    assert!(store.counts().admissions <= 20);
    store.close();
}

#[tokio::test]
async fn c6_a_piece_that_two_images_rest_on_goes_with_the_last() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(options(folder.path())).unwrap();
    let shared = vec![7; 300];
    store.put_evidence(&repository(), &key(1).digest, vec![shared.clone(), vec![1; 10]], store.now());
    store.put_evidence(&repository(), &key(2).digest, vec![shared.clone()], store.now());
    assert_eq!(store.counts().evidence_bytes, 310);
    store.put_evidence(&repository(), &key(1).digest, vec![vec![1; 20]], store.now());
    assert_eq!(store.counts().evidence_bytes, 320);
    let kept = store.evidence(&repository(), &key(2).digest).await.unwrap();
    assert_eq!(kept.pieces, [shared]);
    assert!(store.flush().await);
    store.close();

    let store = Store::open(options(folder.path())).unwrap();
    assert_eq!(store.counts().evidence_bytes, 320, "sizes are kept");
    store.purge(&Selection::Image(repository(), key(2).digest));
    assert_eq!(store.counts().evidence_bytes, 20);
    assert_eq!(store.evidence(&repository(), &key(1).digest).await.unwrap().pieces, [vec![1; 20]]);
    store.close();
}

#[tokio::test]
async fn whoever_waits_hears_at_once_that_it_is_open() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::start(options(folder.path()));
    assert!(store.opened(Duration::from_secs(10)).await);
    assert_eq!(store.phase(), Phase::Open);
    store.close();
}

#[test]
fn c4_a_held_lock_is_not_damage() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(options(folder.path())).unwrap();
    store.put_verdict(key(1), store.now(), None);
    let hurried = Options { patience: Duration::from_millis(200), ..options(folder.path()) };
    assert!(matches!(Store::open(hurried), Err(StoreError::Held { .. })));
    assert_eq!(store.verdict(&key(1)), Some(Age::Fresh));
    store.close();
    assert!(!folder.path().join("cache.damaged-1").exists());
}

#[test]
fn c4_a_foreign_file_is_moved_aside_and_the_export_used() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(options(folder.path())).unwrap();
    store.put_verdict(key(1), store.now(), None);
    store.close();
    std::fs::remove_dir_all(folder.path().join("cache")).unwrap();
    std::fs::write(folder.path().join("cache"), "not a database").unwrap();
    let store = Store::open(options(folder.path())).unwrap();
    assert_eq!(store.verdict(&key(1)), Some(Age::Fresh));
    store.put_verdict(key(2), store.now(), None);
    store.close();
    assert!(folder.path().join("cache.damaged-1").exists());
    store.close();
}

#[tokio::test]
async fn c3_a_folder_that_cannot_be_written_costs_only_durability() {
    let store =
        Store::start(Options { path: "/proc/nonexistent/cache".into(), ..options(Path::new("/proc")) });
    store.put_verdict(key(1), store.now(), None);
    assert_eq!(store.verdict(&key(1)), Some(Age::Fresh));
    assert!(!store.flush().await);
    store.close();
    assert_eq!(store.phase(), Phase::MemoryOnly);
}

/// Seconds since the test began, by both clocks.
static PASSED: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);

fn passing() -> Stamp {
    let passed = PASSED.load(Ordering::SeqCst);
    Stamp::new(1_700_000_000 + passed, 1, 1000 + passed)
}

#[test]
fn d8_a_verdict_past_its_end_is_none_neither_fresh_nor_stale() {
    let folder = tempfile::tempdir().unwrap();
    let options = || Options { clock: Clock { now: passing }, ..options(folder.path()) };
    let ends = |seconds: u64| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + seconds));
    let store = Store::open(options()).unwrap();
    // Fresh is an hour, stale two.
    store.put_verdict(key(1), store.now(), ends(60));
    store.put_verdict(key(2), store.now(), ends(5000));
    store.put_verdict(key(3), store.now(), None);
    let ages = |store: &Store| [1, 2, 3].map(|number| store.verdict(&key(number)));
    let (fresh, stale) = (Some(Age::Fresh), Some(Age::Stale));
    assert_eq!(ages(&store), [fresh, fresh, fresh]);
    PASSED.store(59, Ordering::SeqCst);
    assert_eq!(ages(&store), [fresh, fresh, fresh]);
    PASSED.store(60, Ordering::SeqCst);
    assert_eq!(ages(&store), [None, fresh, fresh]);
    store.close();
    let store = Store::open(options()).unwrap();
    assert_eq!(ages(&store), [None, fresh, fresh], "over a restart");
    PASSED.store(4000, Ordering::SeqCst);
    assert_eq!(ages(&store), [None, stale, stale]);
    PASSED.store(5000, Ordering::SeqCst);
    assert_eq!(ages(&store), [None, None, stale]);
    // Verified once more, it ends with what it rests on now.
    store.put_verdict(key(1), store.now(), ends(5001));
    store.put_verdict(key(2), store.now(), None);
    assert_eq!(ages(&store), [fresh, fresh, stale]);
    PASSED.store(0, Ordering::SeqCst);
    assert_eq!(ages(&store), [None, stale, fresh], "set back");
    store.close();
}

#[test]
fn c1_pitfall_28_a_verdict_is_of_one_repository_policy_trust_and_pod() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(options(folder.path())).unwrap();
    let good = VerdictKey { trust: Some(Digest::of(b"trust")), ..key(1) };
    store.put_verdict(good.clone(), store.now(), None);
    assert_eq!(store.verdict(&good), Some(Age::Fresh));
    let other = Digest::of(b"other");
    let changed = [
        VerdictKey { repository: Repository::parse("ghcr.io/org/other").unwrap(), ..good.clone() },
        VerdictKey { digest: other, ..good.clone() },
        VerdictKey { entry: other, ..good.clone() },
        VerdictKey { trust: Some(other), ..good.clone() },
        VerdictKey { trust: None, ..good.clone() },
        VerdictKey { pod: other, ..good.clone() },
    ];
    for key in changed {
        assert_eq!(store.verdict(&key), None, "{key:?}");
    }
    store.close();
}
