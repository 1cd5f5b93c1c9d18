//! Asking a registry again that answered 429 or 5xx: twice at most, not before it wants to be asked, and
//! not at the same moment as every other node that it sent away.
//!
//! An answer that stays such is a fault of a registry that answered; a longer pause is the kubelet's,
//! whose back-off starts at ten seconds. A request without an answer is not sent again here.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use http::header::RETRY_AFTER;

use super::http::Answer;

/// How long to wait before asking again after `answer`: what the registry says, else `unasked`. None if
/// there is no asking again.
pub(super) fn retry_pause(answer: &Answer, unasked: Duration) -> Option<Duration> {
    let again = matches!(answer.status.as_u16(), 429 | 500 | 502 | 503 | 504);
    if !again {
        return None;
    }
    let pause = match answer.headers.get(RETRY_AFTER) {
        Some(value) => Duration::from_secs(value.to_str().ok()?.trim().parse().ok()?),
        None => unasked,
    };
    (pause <= RETRY_PAUSE_LIMIT).then(|| pause + jitter(pause.max(RETRY_PAUSES[0])))
}

/// Less than `most`: not all nodes of a cluster ask again at the same moment.
fn jitter(most: Duration) -> Duration {
    let bits = u32::try_from(RandomState::new().hash_one(0_u8) >> 32).unwrap_or(0);
    most.mul_f64(f64::from(bits) / (f64::from(u32::MAX) + 1.0))
}

/// A longer `Retry-After` is left to the kubelet's own back-off.
const RETRY_PAUSE_LIMIT: Duration = Duration::from_secs(2);
/// Before the first and the second retry, each up to twice as long: a second in all.
pub(super) const RETRY_PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_millis(400)];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use http::{HeaderValue, StatusCode};

    use super::*;

    fn pause(status: u16, wanted: Option<&'static str>) -> Option<Duration> {
        let headers = wanted.map(|value| (RETRY_AFTER, HeaderValue::from_static(value)));
        let status = StatusCode::from_u16(status).unwrap();
        retry_pause(
            &Answer { status, headers: headers.into_iter().collect(), body: Vec::new() },
            RETRY_PAUSES[1],
        )
    }

    #[test]
    fn two_nodes_do_not_ask_again_at_the_same_moment() {
        for (wanted, least, most) in [(None, 400, 800), (Some("0"), 0, 100), (Some("2"), 2000, 4000)] {
            let pauses: BTreeSet<_> = (0..100).filter_map(|_| pause(429, wanted)).collect();
            assert!(pauses.len() > 90, "{wanted:?}: {} of 100 differ", pauses.len());
            let within = Duration::from_millis(least)..Duration::from_millis(most);
            assert!(pauses.iter().all(|pause| within.contains(pause)), "{wanted:?}: {pauses:?}");
        }
    }

    #[test]
    fn only_what_may_pass_by_itself_is_asked_again() {
        let again: Vec<u16> = (100..600).filter(|status| pause(*status, None).is_some()).collect();
        assert_eq!(again, [429, 500, 502, 503, 504]);
    }
}
