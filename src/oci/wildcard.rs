//! Kyverno's wildcards: `*` is any run of characters, `?` exactly one; no classes, no escapes.
//!
//! Case-sensitive, whole text, character by character. The matcher backtracks to the last `*` only,
//! so its time is bounded by the product of the lengths; upstream's is exponential on hostile
//! patterns.

/// Whether `text` as a whole fits `pattern`. An empty pattern fits the empty text only.
#[must_use]
pub fn matches(pattern: &str, text: &str) -> bool {
    let (mut pattern_rest, mut text_rest) = (pattern.chars(), text.chars());
    // Where to go on when a character does not fit: behind the last `*`, one character further.
    let mut retry: Option<(std::str::Chars<'_>, std::str::Chars<'_>)> = None;
    loop {
        let (mut next_pattern, mut next_text) = (pattern_rest.clone(), text_rest.clone());
        match (next_pattern.next(), next_text.next()) {
            (None, None) => return true,
            (Some('*'), _) => {
                retry = Some((next_pattern.clone(), text_rest.clone()));
                pattern_rest = next_pattern;
                continue;
            }
            (Some(wanted), Some(found)) if wanted == '?' || wanted == found => {
                (pattern_rest, text_rest) = (next_pattern, next_text);
                continue;
            }
            _ => {}
        }
        let Some((behind_star, mut from)) = retry.take() else { return false };
        if from.next().is_none() {
            return false;
        }
        pattern_rest = behind_star.clone();
        text_rest = from.clone();
        retry = Some((behind_star, from));
    }
}

/// Whether `text` contains a wildcard character.
#[must_use]
pub fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?'])
}
