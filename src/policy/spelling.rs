//! Names that are not known: what may have been meant, or what there is.

/// `did you mean …?` where a known name is near, else all that are known, as many as fit into a line.
#[must_use]
pub(crate) fn way_out(name: &str, known: &[&str]) -> String {
    let lower = name.to_lowercase();
    let near = known
        .iter()
        .map(|known| (strsim::jaro_winkler(&lower, &known.to_lowercase()), *known))
        .filter(|(likeness, _)| *likeness >= NEAR)
        .max_by(|(one, _), (other, _)| one.total_cmp(other));
    match near {
        Some((_, near)) => format!("did you mean `{near}`?"),
        None if known.is_empty() => "nothing is known here: remove it".to_owned(),
        None => format!("remove it, or use one of {}", fitting(known)),
    }
}

/// Whole names alone; how many do not fit is said.
fn fitting(names: &[&str]) -> String {
    let mut text = String::new();
    for (index, name) in names.iter().enumerate() {
        let comma = if index == 0 { "" } else { ", " };
        if text.len() + comma.len() + name.len() > LIST_LIMIT {
            return format!("{text} and {} more", names.len() - index);
        }
        text.push_str(comma);
        text.push_str(name);
    }
    text
}

/// Likeness, of at most 1: a letter wrong, left out or too many, letters exchanged, an abbreviation.
const NEAR: f64 = 0.85;
/// Every list of fields fits but those of the largest objects.
const LIST_LIMIT: usize = 400;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_name_is_proposed() {
        let known = ["imageReferences", "skipImageReferences", "mutateDigest", "attestors", "keys", "key"];
        for (name, meant) in [
            ("imageRefs", "imageReferences"),
            ("mutatedigest", "mutateDigest"),
            ("atestors", "attestors"),
            ("kyes", "keys"),
            ("Key", "key"),
        ] {
            assert_eq!(way_out(name, &known), format!("did you mean `{meant}`?"));
        }
    }

    #[test]
    fn else_the_list_is_whole_or_says_how_many_are_left_out() {
        assert_eq!(way_out("x", &["one", "two"]), "remove it, or use one of one, two");
        assert_eq!(way_out("x", &[]), "nothing is known here: remove it");
        let names: Vec<_> = (0..50).map(|number| format!("aFieldNumber{number:02}")).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let told = way_out("zz", &names);
        assert!(told.ends_with("aFieldNumber24 and 25 more"), "{told}");
    }
}
