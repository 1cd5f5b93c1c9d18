//! Fuzz targets of this layer.

use std::io::Cursor;
use std::path::PathBuf;
use std::time::Duration;

use super::age::Clock;
use super::archive::{ImageEvidence, read_through};
use super::export::read_from;
use super::load::{take_in, write_all};
use super::record::{Kind, open, seal};
use super::{Options, Store};
use crate::oci::Digest;

/// The length of a key in one byte, the key, and the body of the record under it.
pub(crate) fn cache_record(data: &[u8]) -> Option<()> {
    let (length, rest) = data.split_first()?;
    let (key, body) = rest.split_at_checked((*length).into())?;
    if let Some(opened) = open(key, body) {
        assert_eq!(seal(key, opened), body, "opens, and was sealed otherwise");
    }
    let sealed = seal(key, body);
    assert_eq!(open(key, &sealed), Some(body));

    let records = reload(&[(key.to_vec(), sealed)])?;
    match Kind::of(key) {
        Some(Kind::Verdict | Kind::Admission | Kind::Evidence | Kind::Tag) => {
            let keys: Vec<_> = records.iter().map(|(key, _)| key.as_slice()).collect();
            assert_eq!(keys, [key], "kept under another key");
        }
        Some(Kind::Blob) | None => assert_eq!(records, []),
    }
    assert_eq!(reload(&records).as_ref(), Some(&records), "does not outlive a second start");
    Some(())
}

type Records = Vec<(Vec<u8>, Vec<u8>)>;

/// What a process has in memory that starts with these records; none if it refuses one.
fn reload(records: &[(Vec<u8>, Vec<u8>)]) -> Option<Records> {
    let store = Store::in_memory(Options {
        path: PathBuf::new(),
        max_entries: 100,
        max_size: 1 << 20,
        fresh: Duration::from_secs(3600),
        stale: Duration::from_secs(7200),
        patience: Duration::ZERO,
        clock: Clock::system(),
    });
    if !records.iter().all(|(key, sealed)| take_in(&store.shared, key, sealed)) {
        return None;
    }
    let mut written = Vec::new();
    let mut write = |key: &[u8], value: &[u8]| {
        written.push((key.to_vec(), value.to_vec()));
        Ok(())
    };
    write_all(&store.shared.state, &mut write).expect("a vector takes everything");
    Some(written)
}

/// The content of an export, without the digest before it.
pub(crate) fn cache_export(data: &[u8]) -> Option<()> {
    let read = |file: &[u8]| {
        let mut records = Records::new();
        let read =
            read_from(Cursor::new(file), &[], &mut |key, value| records.push((key.to_vec(), value.to_vec())));
        (read.is_ok(), records)
    };
    let sum = Digest::of(data);
    let (whole, records) = read(&[sum.as_bytes(), data].concat());
    let other = read(&[Digest::of(sum.as_bytes()).as_bytes(), data].concat());
    assert_eq!(other, (false, Records::new()), "shows what its digest is not of");
    let mut again = Vec::new();
    for part in records.iter().flat_map(|(key, value)| [key, value]) {
        again.extend(u32::try_from(part.len()).expect("a part of the data").to_le_bytes());
        again.extend(part);
    }
    assert!(data.starts_with(&again), "shows other records than there are");
    assert!(!whole || data == again, "leaves something out");
    whole.then_some(())
}

/// A file of `pullgate cache export` without its last line.
pub(crate) fn cache_archive(data: &[u8]) -> Option<()> {
    let images = data.iter().filter(|byte| **byte == b'\n').count().checked_sub(1)?;
    let read = |sum: Digest| {
        let foot = format!("{{\"images\":{images},\"sha256\":\"{}\"}}\n", sum.hex());
        read_through(&mut [data, foot.as_bytes()].concat().as_slice()).ok()
    };
    assert_eq!(read(Digest::of(b"other")), None, "counts without its digest");
    assert_eq!(usize::try_from(read(Digest::of(data))?), Ok(images));
    let lines = data.split_inclusive(|byte| *byte == b'\n').skip(1);
    let images: Vec<ImageEvidence> =
        lines.map(|line| serde_json::from_slice(line).expect("it was read")).collect();
    for image in &images {
        let again = serde_json::to_vec(image).expect("JSON");
        assert_eq!(serde_json::from_slice::<ImageEvidence>(&again).ok().as_ref(), Some(image));
    }
    assert!(images.is_sorted_by(|left, right| left.image < right.image));
    Some(())
}
