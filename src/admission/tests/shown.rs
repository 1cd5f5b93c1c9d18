//! What ImageStatus shows: rules S1, S2.

use serde_json::json;

use super::{ID, is_shown, keyed, nameless, pulled, signed};
use crate::admission::{ImageFacts, Record, Shown};
use crate::oci::Digest;

const OTHER: &str = "sha256:2222222222222222222222222222222222222222222222222222222222222222";

#[test]
fn s1_an_image_carries_the_digests_of_its_names() {
    let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
    let facts = |names| ImageFacts { id: one.to_string(), names };
    assert!(facts(vec!["a.io/b:1".into(), format!("c.io/d@{two}"), format!("a.io/b@{one}")]).carries(one));
    assert!(!facts(vec!["a.io/b:1".into(), format!("a.io/b@{two}")]).carries(one));
    assert!(!facts(vec!["a.io/b:1".into()]).carries(one), "an imported image has no digest");
}

/// containerd's record of the tag is already the verified image, CRI's answer is still the one before.
#[tokio::test]
async fn s1_a_tag_that_moves_to_a_verified_image_shows_nothing_of_the_one_before() {
    let node = signed().await;
    pulled(&node).await;
    let record = Record::Target(node.image);
    let before = format!("{}@{}", node.tagged().repository(), Digest::of(b"not verified"));
    for names in [vec![node.tagged().text().to_owned(), before], vec![node.tagged().text().to_owned()]] {
        let facts = ImageFacts { id: OTHER.into(), names };
        let shown = node.image_status(node.tagged().text(), record, &facts);
        assert!(matches!(&shown, Shown::Refuse(text) if text.ends_with("try again")), "{shown:?}");
    }
    // Imported under the tag alone it is still the image that was pulled.
    let imported = ImageFacts { id: ID.into(), names: vec![node.tagged().text().to_owned()] };
    assert_eq!(node.image_status(node.tagged().text(), record, &imported), Shown::Show);

    node.approve(&node.policy(&[(&node.key, json!({}))], json!({})));
    let facts = ImageFacts { id: OTHER.into(), names: Vec::new() };
    assert!(!is_shown(&node.image_status(node.tagged().text(), record, &facts)), "an approved one as well");
}

#[tokio::test]
async fn s2_another_name_of_the_image_does_not_keep_one_from_being_hidden() {
    let node = keyed().await;
    let uncovered = format!("{}/other:1", node.host());
    let other = ImageFacts { id: ID.into(), names: vec![uncovered.clone()] };
    assert_eq!(node.image_status(&uncovered, Record::Absent, &other), Shown::Show);
    assert_eq!(node.status_by_tag(ID), Shown::Hide, "nobody was shown this name");
    assert!(matches!(node.status_by_id(ID), Shown::Refuse(_)), "the id was");
}

#[tokio::test]
async fn s2_a_truncated_id_is_no_name_while_containerd_cannot_be_asked() {
    let node = keyed().await;
    let asked = "1111111111111";
    let unknown = node.image_status(asked, Record::Unknown, &nameless(ID));
    assert!(matches!(&unknown, Shown::Refuse(text) if text.ends_with("try again")), "{unknown:?}");
    assert_eq!(node.image_status(asked, Record::Absent, &nameless(ID)), Shown::Hide);
}
