//! `random`: a text that a regular expression matches.
//!
//! A verdict must not depend on anything but its arguments, so the generator is seeded with the scope's
//! time: the same call at the same time gives the same text. It names things and keeps no secret.

use std::time::SystemTime;

use regex_syntax::ParserBuilder;
use regex_syntax::hir::{Class, Hir, HirKind};

use super::Kind::Text;
use super::{Arguments, Clock, Function, regexes, row};
use crate::policy::jmespath::EvaluationError;
use crate::policy::jmespath::datum::Datum;
use crate::policy::jmespath::interpret::{Evaluated, Interpreter};

pub(super) const FUNCTIONS: &[Function] = &[row("random", &[&[Text]], random).reading(Clock::Always)];

fn random<'a>(arguments: &Arguments<'a>, run: &mut Interpreter<'a, '_>) -> Evaluated<'a> {
    let pattern = arguments.text(0)?;
    if pattern.is_empty() {
        return Err(arguments.failed("no pattern provided"));
    }
    run.budget.step(pattern.len())?;
    let ascii = regexes::in_ascii(pattern).map_err(|reason| arguments.refused(reason))?;
    let parsed = ParserBuilder::new().nest_limit(NESTING_LIMIT).build().parse(&ascii);
    let tree = parsed.map_err(|_| arguments.refused("does not take this regular expression"))?;
    let mut text = String::new();
    generate(&tree, &mut text, run)?;
    Ok(Datum::Text(text.into()))
}

/// Appends a text that the tree matches; anchors and boundaries are passed over, as upstream.
fn generate(tree: &Hir, text: &mut String, run: &mut Interpreter<'_, '_>) -> Result<(), EvaluationError> {
    run.budget.step(1)?;
    match tree.kind() {
        HirKind::Empty | HirKind::Look(_) => Ok(()),
        HirKind::Literal(literal) => {
            run.budget.output(literal.0.len())?;
            text.push_str(&String::from_utf8_lossy(&literal.0));
            Ok(())
        }
        HirKind::Class(class) => {
            run.budget.output(4)?;
            text.extend(member(class, &mut run.random));
            Ok(())
        }
        HirKind::Repetition(repetition) => {
            let most = repetition.max.unwrap_or(repetition.min.saturating_add(UNBOUNDED));
            let count = repetition.min + run.random.below((most - repetition.min).saturating_add(1));
            (0..count).try_for_each(|_| generate(&repetition.sub, text, run))
        }
        HirKind::Capture(capture) => generate(&capture.sub, text, run),
        HirKind::Concat(parts) => parts.iter().try_for_each(|part| generate(part, text, run)),
        HirKind::Alternation(parts) => {
            let count = u32::try_from(parts.len()).unwrap_or(u32::MAX);
            let chosen = usize::try_from(run.random.below(count)).unwrap_or(0);
            parts.get(chosen).map_or(Ok(()), |part| generate(part, text, run))
        }
    }
}

/// One character of a class, each as likely.
fn member(class: &Class, random: &mut Random) -> Option<char> {
    let Class::Unicode(class) = class else { return None };
    let size =
        |range: &regex_syntax::hir::ClassUnicodeRange| u32::from(range.end()) - u32::from(range.start()) + 1;
    let total = class.ranges().iter().map(size).sum();
    let mut place = random.below(total);
    for range in class.ranges() {
        if place < size(range) {
            return char::from_u32(u32::from(range.start()) + place).or(Some(range.start()));
        }
        place -= size(range);
    }
    None
}

/// The generator `SplitMix64`.
#[derive(Debug)]
pub(in crate::policy::jmespath) struct Random(u64);

impl Random {
    /// Seeded with the nanoseconds of a time.
    pub(in crate::policy::jmespath) fn seeded(now: SystemTime) -> Self {
        let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self(since.as_secs().wrapping_mul(1_000_000_000).wrapping_add(u64::from(since.subsec_nanos())))
    }

    /// A number below `limit`; 0 if that is 0.
    fn below(&mut self, limit: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        u32::try_from(mixed % u64::from(limit.max(1))).unwrap_or(0)
    }
}

/// How often `*` and `+` repeat at most beyond what they must.
const UNBOUNDED: u32 = 16;
/// Groups in groups; keeps the recursion small. The replaced classes may add one.
const NESTING_LIMIT: u32 = 80;
