//! The thread of the database: what is damage, what is waited for, what is taken back.

use super::*;

#[test]
fn c4_what_passes_is_no_damage() {
    let os = |errno: Errno| io::Error::from(errno);
    for errno in [
        Errno::ENOSPC,
        Errno::EDQUOT,
        Errno::EMFILE,
        Errno::ENFILE,
        Errno::EROFS,
        Errno::EACCES,
        Errno::EPERM,
        Errno::ENOMEM,
        Errno::EINTR,
    ] {
        assert!(is_passing(&os(errno)), "{errno}");
    }
    for errno in [Errno::EIO, Errno::EINVAL, Errno::ENOTDIR, Errno::EISDIR, Errno::EFBIG] {
        assert!(!is_passing(&os(errno)), "{errno}");
    }
    for kind in [io::ErrorKind::InvalidData, io::ErrorKind::UnexpectedEof, io::ErrorKind::Other] {
        assert!(!is_passing(&io::Error::from(kind)), "{kind}");
    }
}

/// With patience: a child of another test has our locks between its fork and its exec.
fn engine(path: &Path, visit: Visit<'_>) -> Result<Engine, StoreError> {
    Engine::open(path, Duration::from_secs(10), Box::new(|write| write(b"v1", b"of memory")), visit)
}

fn read(engine: &mut Engine, key: &[u8]) -> Option<Vec<u8>> {
    let (answer, mut value) = tokio::sync::oneshot::channel();
    engine.do_it(Job::Get(key.to_vec(), answer));
    value.try_recv().unwrap()
}

type Records = Vec<(Vec<u8>, Vec<u8>)>;

fn shown(path: &Path) -> (Engine, Records) {
    let mut shown = Vec::new();
    let engine = engine(path, &mut |key, value| shown.push((key.to_vec(), value.to_vec()))).unwrap();
    (engine, shown)
}

#[test]
fn c4_a_database_at_rest_is_closed_and_still_held() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cache");
    let (mut engine, _) = shown(&path);
    engine.do_it(Job::Put(b"b1".to_vec(), b"one".to_vec()));
    engine.rest = Duration::ZERO;
    engine.close_if_idle();
    assert!(engine.db.is_some(), "what is not exported yet keeps it open");
    engine.export();
    engine.close_if_idle();
    assert!(engine.db.is_none());
    let another = Engine::open(&path, Duration::ZERO, Box::new(|_| Ok(())), &mut |_, _| {});
    assert!(matches!(another, Err(StoreError::Held { .. })));
    assert_eq!(read(&mut engine, b"b1"), Some(b"one".to_vec()), "it opens again by itself");
}

#[test]
fn c4_memory_is_read_from_the_export_unless_the_database_says_more() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cache");
    let (mut engine, _) = shown(&path);
    engine.do_it(Job::Put(b"v1".to_vec(), b"of the database".to_vec()));
    engine.do_it(Job::Put(b"b1".to_vec(), b"a blob".to_vec()));
    engine.export();
    drop(engine);
    let (mut engine, of_export) = shown(&path);
    assert_eq!(of_export, [(b"v1".to_vec(), b"of memory".to_vec())]);
    assert!(engine.db.is_none(), "sled is not opened for it");

    engine.do_it(Job::Put(b"v2".to_vec(), b"two".to_vec()));
    engine.guarded(|db| db.flush());
    drop(engine);
    let (_, of_database) = shown(&path);
    let both = [(b"v1".to_vec(), b"of the database".to_vec()), (b"v2".to_vec(), b"two".to_vec())];
    assert_eq!(of_database, both, "as after a crash: blobs are not shown");
}

#[test]
fn c4_a_database_that_was_emptied_stays_empty_after_a_crash() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cache");
    let (mut engine, _) = shown(&path);
    engine.do_it(Job::Put(b"v1".to_vec(), b"one".to_vec()));
    engine.export();
    engine.do_it(Job::Remove(vec![b"v1".to_vec()]));
    engine.guarded(|db| db.flush()).unwrap();
    // A crash before the next export.
    drop(engine);
    let (_, found) = shown(&path);
    assert_eq!(found, []);
}

/// A database with one record, and the same without it; an export of both.
fn taken_back(folder: &Path) -> PathBuf {
    let path = folder.join("cache");
    let (mut engine, _) = shown(&path);
    engine.do_it(Job::Put(b"v1".to_vec(), b"one".to_vec()));
    engine.export();
    let (before, export) = (folder.join("before"), with_ending(&path, ".export"));
    assert!(engine.guarded(|db| db.flush()).is_some());
    assert!(std::process::Command::new("cp").arg("-a").args([&path, &before]).status().unwrap().success());
    assert!(export.exists());
    engine.do_it(Job::TakeBack(vec![b"v1".to_vec()]));
    assert_eq!((read(&mut engine, b"v1"), export.exists()), (None, false));
    path
}

#[test]
fn c4_what_was_taken_back_is_not_in_the_last_export_any_more() {
    let folder = tempfile::tempdir().unwrap();
    let path = taken_back(folder.path());
    assert_eq!(shown(&path).1, []);
    std::fs::remove_dir_all(&path).unwrap();
    assert!(with_ending(&path, ".export.last").exists());
    assert_eq!(shown(&path).1, []);
}

#[test]
fn c4_a_database_from_before_something_was_taken_back_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = taken_back(folder.path());
    std::fs::remove_dir_all(&path).unwrap();
    std::fs::rename(folder.path().join("before"), &path).unwrap();
    let (mut engine, found) = shown(&path);
    assert_eq!(found, []);
    assert!(with_ending(&path, ".damaged-1").exists());
    // It works, and its next export counts.
    engine.do_it(Job::Put(b"v2".to_vec(), b"two".to_vec()));
    engine.export();
    drop(engine);
    assert_eq!(shown(&path).1, [(b"v1".to_vec(), b"of memory".to_vec())]);
}

/// The system refuses the database for a moment, as where no descriptor is left.
#[test]
fn c4_what_cannot_be_taken_back_at_once_costs_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cache");
    let (mut engine, _) = shown(&path);
    for (key, value) in [(b"v1", b"one"), (b"v2", b"two"), (b"b1", b"ape")] {
        engine.do_it(Job::Put(key.to_vec(), value.to_vec()));
    }
    engine.export();
    engine.rest = Duration::ZERO;
    engine.close_if_idle();
    for key in [b"v1", b"v2"] {
        engine.refused = Some(Instant::now());
        engine.do_it(Job::TakeBack(vec![key.to_vec()]));
        assert!(engine.failing, "it was not written");
    }
    engine.refused = None;
    assert_eq!(read(&mut engine, b"b1"), Some(b"ape".to_vec()), "the database is the one from before");
    assert_eq!((read(&mut engine, b"v1"), read(&mut engine, b"v2")), (None, None));
    assert!(flushed(&mut engine));
    drop(engine);
    assert_eq!(shown(&path).1, []);
    assert!(!with_ending(&path, ".damaged-1").exists());
}

/// The same, and the process ends before the database can be written.
#[test]
fn c4_what_was_not_taken_back_before_the_end_does_not_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cache");
    let (mut engine, _) = shown(&path);
    engine.do_it(Job::Put(b"v1".to_vec(), b"one".to_vec()));
    engine.export();
    engine.rest = Duration::ZERO;
    engine.close_if_idle();
    engine.refused = Some(Instant::now());
    engine.do_it(Job::TakeBack(vec![b"v1".to_vec()]));
    drop(engine);
    assert_eq!(shown(&path).1, []);
}

/// What keeps a file from being written, until it is removed.
fn obstacle(path: &Path, ending: &str) -> PathBuf {
    let file = with_ending(path, ending);
    if file.is_file() {
        std::fs::remove_file(&file).unwrap();
    }
    std::fs::create_dir_all(file.join("in the way")).unwrap();
    file
}

fn flushed(engine: &mut Engine) -> bool {
    let (answer, mut flushed) = tokio::sync::oneshot::channel();
    engine.do_it(Job::Flush(answer));
    flushed.try_recv().unwrap()
}

/// An engine at rest with two verdicts and a blob, all in its export.
fn resting(path: &Path) -> Engine {
    let (mut engine, _) = shown(path);
    for (key, value) in [(b"v1", b"one"), (b"v2", b"two"), (b"b1", b"ape")] {
        engine.do_it(Job::Put(key.to_vec(), value.to_vec()));
    }
    engine.records = Box::new(|write| write(b"v1", b"one").and_then(|()| write(b"v2", b"two")));
    engine.export();
    engine.rest = Duration::ZERO;
    engine.close_if_idle();
    engine
}

#[test]
fn c4_what_is_taken_back_without_a_new_mark_does_not_come_back() {
    for (database_opens, database_is_lost) in [(true, false), (true, true), (false, false)] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cache");
        let mut engine = resting(&path);
        let in_the_way = obstacle(&path, ".mark.new");
        engine.refused = (!database_opens).then(Instant::now);
        engine.do_it(Job::TakeBack(vec![b"v1".to_vec()]));
        assert!(!flushed(&mut engine), "the mark says nothing of it yet");
        engine.refused = None;
        assert_eq!(read(&mut engine, b"v1"), None);
        assert_eq!(read(&mut engine, b"b1"), Some(b"ape".to_vec()), "all else is served meanwhile");
        drop(engine);
        std::fs::remove_dir_all(in_the_way).unwrap();
        if database_is_lost {
            std::fs::remove_dir_all(&path).unwrap();
        }
        assert_eq!(shown(&path).1, [], "{database_opens} {database_is_lost}");
    }
}

#[test]
fn c4_a_take_back_is_made_up_for_before_anything_else_is_written() {
    for ending in [".mark.new", ".export.last"] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cache");
        let mut engine = resting(&path);
        engine.guarded(|_| Ok(())).unwrap();
        let in_the_way = obstacle(&path, ending);
        engine.do_it(Job::TakeBack(vec![b"v1".to_vec()]));
        engine.do_it(Job::Put(b"v1".to_vec(), b"not yet".to_vec()));
        assert!(!flushed(&mut engine), "{ending}");
        assert_eq!(read(&mut engine, b"v1"), None, "{ending}");
        std::fs::remove_dir_all(in_the_way).unwrap();
        (engine.refused, engine.pending.tried) = (None, None);
        engine.do_it(Job::Put(b"v1".to_vec(), b"new".to_vec()));
        assert!(flushed(&mut engine) && !engine.failing, "{ending}");
        assert!(engine.pending.keys.is_empty(), "{ending}");
        drop(engine);
        let expected = [(b"v1".to_vec(), b"new".to_vec()), (b"v2".to_vec(), b"two".to_vec())];
        assert_eq!(shown(&path).1, expected, "{ending}: nothing else was lost");
    }
}

/// A database that is lost while something is pending is rebuilt without it.
#[test]
fn c4_a_rebuilt_database_has_nothing_of_what_is_pending() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cache");
    let mut engine = resting(&path);
    let in_the_way = obstacle(&path, ".mark.new");
    engine.refused = Some(Instant::now());
    engine.do_it(Job::TakeBack(vec![b"v1".to_vec()]));
    std::fs::remove_dir_all(&path).unwrap();
    engine.refused = None;
    assert_eq!(read(&mut engine, b"v2"), Some(b"two".to_vec()));
    std::fs::remove_dir_all(in_the_way).unwrap();
    assert!(flushed(&mut engine));
    assert_eq!((read(&mut engine, b"v1"), read(&mut engine, b"v2")), (None, Some(b"two".to_vec())));
}

#[test]
fn c4_what_is_pending_is_made_up_for_before_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cache");
    let mut engine = resting(&path);
    let in_the_way = obstacle(&path, ".mark.new");
    engine.do_it(Job::TakeBack(vec![b"v1".to_vec()]));
    std::fs::remove_dir_all(in_the_way).unwrap();
    engine.records = Box::new(|write| write(b"v2", b"two"));
    let (jobs, receiver) = std::sync::mpsc::sync_channel(1);
    drop(jobs);
    engine.work(&receiver);
    assert_eq!(shown(&path).1, [(b"v2".to_vec(), b"two".to_vec())]);
}

#[test]
fn c4_without_its_mark_nothing_is_read() {
    for content in [None, Some("short"), Some("another number 1")] {
        let folder = tempfile::tempdir().unwrap();
        let path = taken_back(folder.path());
        let (mut engine, _) = shown(&path);
        engine.do_it(Job::Put(b"v2".to_vec(), b"two".to_vec()));
        engine.export();
        drop(engine);
        let mark = with_ending(&path, ".mark");
        match content {
            None => std::fs::remove_file(mark).unwrap(),
            Some(content) => std::fs::write(mark, content).unwrap(),
        }
        assert_eq!(shown(&path).1, [], "{content:?}");
    }
}

#[test]
fn c4_what_is_damaged_while_it_rests_is_rebuilt_from_the_export() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cache");
    let (mut engine, _) = shown(&path);
    engine.do_it(Job::Put(b"v1".to_vec(), b"one".to_vec()));
    engine.export();
    engine.rest = Duration::ZERO;
    engine.close_if_idle();
    std::fs::remove_dir_all(&path).unwrap();
    std::fs::write(&path, "not a database").unwrap();
    assert_eq!(read(&mut engine, b"v1"), Some(b"of memory".to_vec()));
    assert!(with_ending(&path, ".damaged-1").exists());
}
