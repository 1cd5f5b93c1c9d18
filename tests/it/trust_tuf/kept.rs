//! What a node keeps and reads on its own disk, and several trust domains on one node.

use super::*;

#[test]
fn pitfall_22_what_is_kept_on_disk_is_not_believed() {
    let mut lab = Lab::new();
    lab.refresh(&lab.start()).unwrap();
    let good = fs::read(lab.record_file()).unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let stranger = Repository::new(lab.now, second());
    let strangers: BTreeMap<&str, String> = [
        ("timestamp.json", text(&stranger.files["timestamp.json"])),
        ("snapshot.json", text(&stranger.files["1.snapshot.json"])),
        ("targets.json", text(&stranger.files["1.targets.json"])),
        ("targets/trusted_root.json", text(second())),
        ("root_history/1.root.json", text(&stranger.pinned(1))),
        ("root_history/2.root.json", text(&stranger.pinned(1))),
    ]
    .into();
    let mut edits: Vec<(&str, Edit)> = vec![
        ("garbage", Box::new(|record| *record = json!("garbage"))),
        ("a later form", Box::new(|record| record["schema"] = json!(2))),
        ("nothing", Box::new(|record| record["metadata"] = json!({}))),
        (
            "a whole repository of a stranger",
            Box::new({
                let strangers = strangers.clone();
                move |record| record["metadata"] = json!(strangers)
            }),
        ),
    ];
    for (name, text) in strangers {
        let edit = move |record: &mut Value| record["metadata"][name] = json!(text);
        // The root that is pinned is not read from there at all.
        if name != "root_history/1.root.json" {
            edits.push((name, Box::new(edit)));
        }
    }
    for (name, edit) in edits {
        fs::write(lab.record_file(), &good).unwrap();
        lab.edit_record(edit);
        assert!(lab.root(&lab.start()).is_err(), "{name}");
        assert_eq!(lab.refresh(&lab.start()), expected(first()), "{name}: the mirror mends it");
        assert_eq!(lab.root(&lab.start()), expected(first()), "{name}");
    }
    // Its word for its own age is cut at the clock.
    lab.edit_record(|record| record["confirmed"] = json!(u32::MAX));
    assert_eq!(lab.start().root(lab.now).unwrap().confirmed, lab.now);
    // And a target that is no trust root does not replace one.
    lab.advance(b"{}");
    refused(lab.refresh(&lab.start()), "not a Sigstore trusted_root.json");
    assert_eq!(lab.root(&lab.start()), expected(first()));
}

#[test]
fn trust_domains_never_stand_in_for_each_other() {
    let lab = Lab::new();
    lab.refresh(&lab.start()).unwrap();
    // Another pinned root at the same mirror: what was fetched for the first one is not looked at.
    let other = Repository::new(lab.now, second());
    fs::write(lab.folder.path().join("root.json"), other.pinned(1)).unwrap();
    let node = lab.start();
    assert_eq!(lab.root(&node), Err("nothing was fetched from the mirror yet".to_owned()));
    refused(lab.refresh(&node), "signature threshold not met for role timestamp: 0/1");
    // And the built-in root does not help out.
    refused(lab.root(&node), "nothing was fetched");
    fs::write(lab.folder.path().join("root.json"), "{}").unwrap();
    let error = block_on(node.refresh(lab.now)).unwrap_err();
    assert!(error.is_settled() && error.to_string().starts_with("the pinned root.json"), "{error}");
    fs::remove_file(lab.folder.path().join("root.json")).unwrap();
    let error = node.root(lab.now).unwrap_err();
    assert!(error.is_settled() && error.to_string().starts_with("cannot read /"), "{error}");
}

#[test]
fn a_folder_is_a_mirror_too() {
    let mut lab = Lab::new();
    let folder = lab.folder.path().join("mirror");
    write(&folder, &lab.repository.files);
    let address = format!("file://{}", folder.display());
    let node = lab.domain(&address);
    assert_eq!(lab.refresh(&node), expected(first()));
    lab.repository.advance(second());
    write(&folder, &lab.repository.files);
    assert_eq!(lab.refresh(&node), expected(second()));
    fs::write(folder.join("timestamp.json"), vec![b' '; (16 << 10) + 1]).unwrap();
    refused(lab.refresh(&node), "timestamp.json is larger than 16384 bytes");
}

#[test]
fn somebody_elses_folder_is_only_read() {
    let mut lab = Lab::new();
    lab.refresh(&lab.start()).unwrap();
    let before = fs::read(lab.record_file()).unwrap();
    lab.advance(second());
    let origin = lab.start().origin().clone();
    let reader = Domain::new(origin.clone(), Keeping::ReadOnly(lab.kept()), Vec::new());
    assert_eq!(lab.root(&reader), expected(first()));
    assert_eq!(lab.refresh(&reader), expected(second()));
    assert_eq!(fs::read(lab.record_file()).unwrap(), before);
    let nowhere = Domain::new(origin, Keeping::Nowhere, Vec::new());
    assert!(lab.root(&nowhere).is_err());
    assert_eq!(lab.refresh(&nowhere), expected(second()));
}

#[test]
fn refreshes_at_once_are_one_after_the_other() {
    let lab = Lab::new();
    let node = Arc::new(lab.start());
    let both = async { tokio::join!(node.refresh(lab.now), node.refresh(lab.now)) };
    let (one, other) = block_on(both);
    assert_eq!((fingerprint(one), fingerprint(other)), (expected(first()), expected(first())));
    assert_eq!(lab.root(&lab.start()), expected(first()));
}

#[test]
fn files_and_the_built_in_root() {
    let lab = Lab::new();
    let path = lab.folder.path().join("trusted_root.json");
    let domain = |origin| Domain::new(origin, Keeping::Nowhere, Vec::new());
    let file = domain(Origin::File(path.clone()));
    let error = file.root(lab.now).unwrap_err();
    assert!(error.is_settled() && error.to_string().starts_with("cannot read /"), "{error}");
    fs::write(&path, second()).unwrap();
    let anchor = file.root(lab.now).unwrap();
    assert_eq!(anchor.expires, None);
    assert_eq!(anchor.confirmed, fs::metadata(&path).unwrap().modified().unwrap());
    assert_eq!(fingerprint(Ok(anchor)), expected(second()));
    fs::write(&path, "{}").unwrap();
    let error = file.root(lab.now).unwrap_err();
    assert!(error.to_string().ends_with("application/vnd.dev.sigstore.trustedroot)"), "{error}");
    fs::File::create(&path).unwrap().set_len((1 << 20) + 1).unwrap();
    assert!(matches!(file.root(lab.now), Err(TrustError::TooLarge { limit: 1_048_576, .. })));
    let built_in = domain(Origin::PublicGood);
    assert_eq!(lab.root(&built_in), expected(first()));
    assert_eq!(lab.refresh(&built_in), expected(first()));
    assert_eq!(lab.server.asked(), Vec::<String>::new());
}

/// Damages a record.
type Edit = Box<dyn Fn(&mut Value)>;
