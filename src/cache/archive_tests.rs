//! Files of `pullgate cache export`, whole ones and those that somebody changed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::*;

fn image(name: &str, pieces: &[&[u8]]) -> ImageEvidence {
    ImageEvidence {
        image: ImageName {
            repository: Repository::parse(name).unwrap(),
            digest: Digest::of(name.as_bytes()),
        },
        fetched_at: 1_800_000_000,
        tags: vec!["v1".to_owned()],
        pieces: pieces.iter().map(|piece| Piece(piece.to_vec())).collect(),
    }
}

fn images() -> Vec<ImageEvidence> {
    vec![
        image("a.test/one", &[b"signature", b"\x00\xff"]),
        image("b.test/two", &[]),
        image("b.test/x", &[b"\n"]),
    ]
}

fn write(path: &Path, images: &[ImageEvidence]) {
    let mut file = Writer::create(path, 1_800_000_001).unwrap();
    images.iter().for_each(|image| file.image(image).unwrap());
    assert_eq!(file.finish().unwrap(), images.len() as u64);
}

fn read(path: &Path) -> Result<Vec<ImageEvidence>, ArchiveError> {
    Archive::open(path, 1 << 20)?.images().collect()
}

/// A folder, and a file of three images in it.
fn written() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    write(&path, &images());
    (folder, path)
}

/// What is said of a file with this text, of which the checksum is right unless it has a last line.
fn said(folder: &tempfile::TempDir, lines: &str) -> String {
    let path = folder.path().join("changed");
    let count = lines.lines().count().saturating_sub(1);
    let foot = format!("{{\"images\":{count},\"sha256\":\"{}\"}}\n", Digest::of(lines.as_bytes()).hex());
    fs::write(&path, format!("{lines}{foot}")).unwrap();
    let error = read(&path).unwrap_err().to_string();
    error.replace(&path.display().to_string(), "F")
}

#[test]
fn what_is_read_is_what_was_written() {
    let (folder, path) = written();
    assert_eq!(read(&path).unwrap(), images());
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    write(&path, &[]);
    assert!(Archive::open(&path, 1 << 20).unwrap().is_empty());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no other file");
}

#[test]
fn a_file_that_was_not_finished_leaves_the_old_one() {
    let (folder, path) = written();
    let mut file = Writer::create(&path, 0).unwrap();
    file.image(&images()[0]).unwrap();
    drop(file);
    assert_eq!(read(&path).unwrap(), images());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn nothing_is_written_through_a_link() {
    let (folder, path) = written();
    let victim = folder.path().join("victim");
    fs::write(&victim, "mine").unwrap();
    std::os::unix::fs::symlink(&victim, folder.path().join("file.new")).unwrap();
    write(&path, &images());
    assert_eq!(fs::read_to_string(&victim).unwrap(), "mine");
}

#[test]
fn a_file_that_was_cut_or_changed_is_refused_as_a_whole() {
    let (_folder, path) = written();
    let whole = fs::read(&path).unwrap();
    for at in 0..whole.len() {
        fs::write(&path, &whole[..at]).unwrap();
        assert!(Archive::open(&path, 1 << 20).is_err(), "cut at {at}");
        for bit in [1, 0x20, 0x80] {
            let mut changed = whole.clone();
            changed[at] ^= bit;
            fs::write(&path, &changed).unwrap();
            assert!(Archive::open(&path, 1 << 20).is_err(), "byte {at}, bit {bit}");
        }
    }
    fs::write(&path, [whole.as_slice(), b"x"].concat()).unwrap();
    assert!(Archive::open(&path, 1 << 20).is_err(), "something follows");
}

#[test]
fn what_else_is_wrong_is_named() {
    let (folder, path) = written();
    let text = fs::read_to_string(&path).unwrap();
    let lines: Vec<_> = text.lines().collect();
    let [head, one, two, x, _] = lines[..] else { panic!("{text}") };
    let not_an_image = "F: line 2 is not an image with its evidence";
    let cases = [
        ("nonsense\n".to_owned(), "F is not a file of `pullgate cache export`"),
        ("{\"pullgateCache\":1}\n".to_owned(), "F is not a file of `pullgate cache export`"),
        (
            head.replace("\":1,", "\":2,") + "\n",
            "F has version 2 of the form, this pullgate reads 1: export again",
        ),
        (format!("{head}\n{two}\n{one}\n"), "F: line 3 is an image out of order"),
        (format!("{head}\n{one}\n{one}\n{x}\n"), "F: line 3 is an image out of order"),
        (format!("{head}\n{}\n", one.replace("\"tags\"", "\"verdict\":true,\"tags\"")), not_an_image),
        (format!("{head}\n{}\n", one.replace("\"tags\"", "\"tags\":[],\"tags\"")), not_an_image),
        (format!("{head}\n{}\n", one.replace("a.test/one", "a.test/../one")), not_an_image),
        (format!("{head}\n{}\n", one.replace("a.test/one", "one")), not_an_image),
        (format!("{head}\n{}\n", one.replace("@sha256:", "@sha256:..")), not_an_image),
        (format!("{head}\n{}\n", one.replace("AP8=", "%%%%")), not_an_image),
    ];
    for (lines, expected) in cases {
        assert_eq!(said(&folder, &lines), expected, "{lines}");
    }
}

#[test]
fn what_is_no_file_or_too_large_is_not_read() {
    let (folder, path) = written();
    let error = Archive::open(folder.path(), 1 << 20).map(|_| ()).unwrap_err();
    assert!(matches!(error, ArchiveError::Foreign { .. }), "{error}");
    let size = fs::metadata(&path).unwrap().len();
    assert!(Archive::open(&path, size).is_ok());
    let error = Archive::open(&path, size - 1).map(|_| ()).unwrap_err();
    assert!(matches!(error, ArchiveError::Large { .. }), "{error}");
    let pipe = folder.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let error = Archive::open(&pipe, 1 << 20).map(|_| ()).unwrap_err();
    assert!(matches!(error, ArchiveError::Foreign { .. }), "{error}");
    let error = Archive::open(&folder.path().join("none"), 1).map(|_| ()).unwrap_err();
    assert!(matches!(error, ArchiveError::Read { .. }), "{error}");
}

/// A line without end costs what a line may cost, and counts claim nothing.
#[test]
fn pitfall_06_lines_and_counts_are_bounded() {
    let head = "{\"pullgateCache\":1,\"createdAt\":0}\n";
    let endless = io::Cursor::new(head).chain(io::repeat(b'x'));
    let problem = read_through(&mut BufReader::new(endless)).unwrap_err();
    assert!(matches!(problem, Problem::Line { line: 2, problem: LineProblem::Long }), "{problem:?}");
    for first in [&b"{"[..], b"x"] {
        let problem = read_through(&mut BufReader::new(first.chain(io::repeat(b' ')))).unwrap_err();
        assert!(matches!(problem, Problem::Foreign), "{problem:?}");
    }
    let many = |tags: usize, pieces: usize| {
        let mut image = image("a.test/one", &vec![&b""[..]; pieces]);
        image.tags = vec![String::new(); tags];
        let line = serde_json::to_string(&image).unwrap();
        serde_json::from_str::<ImageEvidence>(&line).is_ok()
    };
    let (tags, pieces) = (TAGS_LIMIT, PIECES_LIMIT);
    let allowed = [many(tags, pieces), many(tags + 1, pieces), many(tags, pieces + 1)];
    assert_eq!(allowed, [true, false, false]);
    let claim = format!("{head}{{\"images\":18446744073709551615,\"sha256\":\"00\"}}\n");
    let problem = read_through(&mut claim.as_bytes()).unwrap_err();
    assert!(matches!(problem, Problem::Damaged), "{problem:?}");
}
