//! Functions of regular expressions.
//!
//! The syntax is Go's RE2 in what the `regex` crate shares with it. `\d`, `\w`, `\s` and `\b` mean ASCII, as
//! there. What the two read differently is refused: set operations and brackets inside of brackets, which
//! are characters in Go, and flags and boundaries that Go does not have. So are classes of Unicode
//! (`\pL`), whose tables not every build has, and `\Q…\E` and `\C`, which the crate does not know.
//!
//! Matching is linear in the text; the size of a compiled expression is bounded. Replacements are charged
//! before they are made: a short template may repeat a long match many times.

use regex::{Regex, RegexBuilder};
use regex_syntax::ast::parse::ParserBuilder;
use regex_syntax::ast::{
    self, AssertionKind, Ast, ClassPerl, ClassPerlKind, ClassSetBinaryOp, ClassSetItem, Flag, Flags,
    FlagsItemKind, Span,
};

use super::Kind::{Number, Text};
use super::{Arguments, Function, row};
use crate::policy::jmespath::EvaluationError;
use crate::policy::jmespath::datum::Datum;
use crate::policy::jmespath::interpret::{Evaluated, Interpreter};

pub(super) const FUNCTIONS: &[Function] = &[
    row("regex_match", &[&[Text], &[Text, Number]], is_match).checking(unusable),
    row("regex_replace_all", &[&[Text], &[Text, Number], &[Text, Number]], replace_all).checking(unusable),
    row("regex_replace_all_literal", &[&[Text], &[Text, Number], &[Text, Number]], replace_all_literal)
        .checking(unusable),
];

/// The last expression that an evaluation compiled: projections ask for the same one again and again.
#[derive(Debug, Default)]
pub(in crate::policy::jmespath) struct LastPattern(Option<(String, Regex)>);

fn is_match<'a>(arguments: &Arguments<'a>, run: &mut Interpreter<'a, '_>) -> Evaluated<'a> {
    let (regex, text) = (regex(arguments, run)?, arguments.text_or_number(1)?);
    run.budget.step(text.len() / TEXT_PER_STEP)?;
    Ok(Datum::Bool(regex.is_match(&text)))
}

fn replace_all<'a>(arguments: &Arguments<'a>, run: &mut Interpreter<'a, '_>) -> Evaluated<'a> {
    let template = arguments.text_or_number(2)?;
    let references = template.matches('$').count();
    replaced(arguments, run, |run, found, out| {
        // Each reference gives at most the whole match.
        let whole = found.get(0).map_or(0, |whole| whole.len());
        run.budget.output(references.saturating_mul(whole).saturating_add(template.len()))?;
        found.expand(&template, out);
        Ok(())
    })
}

fn replace_all_literal<'a>(arguments: &Arguments<'a>, run: &mut Interpreter<'a, '_>) -> Evaluated<'a> {
    let replacement = arguments.text_or_number(2)?;
    replaced(arguments, run, |run, _, out| {
        run.budget.output(replacement.len())?;
        out.push_str(&replacement);
        Ok(())
    })
}

fn replaced<'a>(
    arguments: &Arguments<'a>,
    run: &mut Interpreter<'a, '_>,
    append: impl Fn(&mut Interpreter<'a, '_>, &regex::Captures<'_>, &mut String) -> Result<(), EvaluationError>,
) -> Evaluated<'a> {
    let (regex, text) = (regex(arguments, run)?, arguments.text_or_number(1)?);
    run.budget.step(text.len() / TEXT_PER_STEP)?;
    run.budget.output(text.len())?;
    let (mut out, mut copied) = (String::new(), 0);
    for found in regex.captures_iter(&text) {
        run.budget.step(1)?;
        let Some(whole) = found.get(0) else { continue };
        out.push_str(text.get(copied..whole.start()).unwrap_or_default());
        append(run, &found, &mut out)?;
        copied = whole.end();
    }
    out.push_str(text.get(copied..).unwrap_or_default());
    Ok(Datum::Text(out.into()))
}

/// The expression that the first argument is.
fn regex(arguments: &Arguments<'_>, run: &mut Interpreter<'_, '_>) -> Result<Regex, EvaluationError> {
    let pattern = arguments.text(0)?;
    if let Some((last, regex)) = &run.pattern.0
        && last == pattern
    {
        return Ok(regex.clone());
    }
    run.budget.step(COMPILE_STEPS.saturating_add(pattern.len()))?;
    let regex = compiled(pattern).map_err(|reason| arguments.refused(reason))?;
    run.pattern = LastPattern(Some((pattern.to_owned(), regex.clone())));
    Ok(regex)
}

/// Why a text is no expression for these functions.
fn unusable(pattern: &str) -> Option<String> {
    compiled(pattern).err()
}

fn compiled(pattern: &str) -> Result<Regex, String> {
    RegexBuilder::new(&in_ascii(pattern)?)
        .size_limit(COMPILED_LIMIT)
        .dfa_size_limit(COMPILED_LIMIT)
        .build()
        .map_err(|_| refused(pattern, "it is too large when compiled"))
}

/// The pattern with ASCII classes, if it means the same in Go.
pub(super) fn in_ascii(pattern: &str) -> Result<String, String> {
    if pattern.len() > PATTERN_LIMIT {
        return Err(refused(pattern, "it is too long"));
    }
    let tree = ParserBuilder::new().nest_limit(NESTING_LIMIT).build().parse(pattern);
    let tree = tree.map_err(|error| refused(pattern, &error.kind().to_string()))?;
    ast::visit(&tree, Ascii { pattern, text: String::new(), copied: 0 })
        .map_err(|reason| refused(pattern, reason))
}

fn refused(pattern: &str, reason: &str) -> String {
    format!("does not take the regular expression `{}`: {reason}", super::cut(pattern))
}

/// Writes a pattern again with ASCII classes, and finds what Go reads differently.
struct Ascii<'p> {
    pattern: &'p str,
    text: String,
    copied: usize,
}

impl Ascii<'_> {
    fn replace(&mut self, span: &Span, with: &str) {
        self.text.push_str(self.pattern.get(self.copied..span.start.offset).unwrap_or_default());
        self.text.push_str(with);
        self.copied = span.end.offset;
    }

    fn class(&mut self, class: &ClassPerl) {
        self.replace(
            &class.span,
            match (&class.kind, class.negated) {
                (ClassPerlKind::Digit, false) => "[0-9]",
                (ClassPerlKind::Digit, true) => "[^0-9]",
                (ClassPerlKind::Space, false) => r"[\t\n\f\r ]",
                (ClassPerlKind::Space, true) => r"[^\t\n\f\r ]",
                (ClassPerlKind::Word, false) => "[0-9A-Za-z_]",
                (ClassPerlKind::Word, true) => "[^0-9A-Za-z_]",
            },
        );
    }
}

impl ast::Visitor for Ascii<'_> {
    type Output = String;
    type Err = &'static str;

    fn finish(mut self) -> Result<String, Self::Err> {
        self.text.push_str(self.pattern.get(self.copied..).unwrap_or_default());
        Ok(self.text)
    }

    fn visit_pre(&mut self, node: &Ast) -> Result<(), Self::Err> {
        if let Ast::ClassPerl(class) = node {
            self.class(class);
        }
        if matches!(node, Ast::ClassUnicode(_)) {
            return Err(UNICODE);
        }
        if let Ast::Assertion(assertion) = node {
            match assertion.kind {
                AssertionKind::WordBoundary => self.replace(&assertion.span, r"(?-u:\b)"),
                AssertionKind::NotWordBoundary => self.replace(&assertion.span, r"(?-u:\B)"),
                AssertionKind::StartLine
                | AssertionKind::EndLine
                | AssertionKind::StartText
                | AssertionKind::EndText => {}
                AssertionKind::WordBoundaryStart
                | AssertionKind::WordBoundaryEnd
                | AssertionKind::WordBoundaryStartAngle
                | AssertionKind::WordBoundaryEndAngle
                | AssertionKind::WordBoundaryStartHalf
                | AssertionKind::WordBoundaryEndHalf => return Err("Go has no such boundary"),
            }
        }
        if let Ast::Flags(set) = node {
            return known(&set.flags);
        }
        if let Ast::Group(group) = node {
            return group.flags().map_or(Ok(()), known);
        }
        Ok(())
    }

    fn visit_class_set_item_pre(&mut self, item: &ClassSetItem) -> Result<(), Self::Err> {
        if let ClassSetItem::Perl(class) = item {
            self.class(class);
        }
        if matches!(item, ClassSetItem::Unicode(_)) {
            return Err(UNICODE);
        }
        if matches!(item, ClassSetItem::Bracketed(_)) {
            return Err("`[` inside of brackets must be written `\\[`");
        }
        Ok(())
    }

    fn visit_class_set_binary_op_pre(&mut self, _: &ClassSetBinaryOp) -> Result<(), Self::Err> {
        Err("`&&`, `--` and `~~` inside of brackets must be escaped")
    }
}

fn known(flags: &Flags) -> Result<(), &'static str> {
    let foreign = |kind: &FlagsItemKind| {
        matches!(kind, FlagsItemKind::Flag(Flag::Unicode | Flag::IgnoreWhitespace | Flag::CRLF))
    };
    if flags.items.iter().any(|item| foreign(&item.kind)) { Err("Go has no such flag") } else { Ok(()) }
}

/// Not all builds of the crate have their tables, and a verdict must not depend on the build.
const UNICODE: &str = "classes of Unicode (`\\p`) are not supported";
/// Bytes of text that count as one step: the slowest engine looks at each several times.
const TEXT_PER_STEP: usize = 8;
/// Compiling takes as long as some hundred steps, however short the expression is.
const COMPILE_STEPS: usize = 500;
/// Longer than any expression that a person wrote.
const PATTERN_LIMIT: usize = 4 << 10;
/// Groups in groups; keeps the parsers' recursion small.
const NESTING_LIMIT: u32 = 64;
/// Bytes of a compiled expression.
const COMPILED_LIMIT: usize = 1 << 20;
