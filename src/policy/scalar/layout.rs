//! Reads times by Go's layouts: an example, `2006-01-02 15:04:05 MST`, says how a time is written.
//!
//! Every element of the reference time stands for itself wherever it appears in a layout; all other text
//! must be there as it is, except that runs of spaces are alike. What a layout does not name is zero, or one
//! where there is no zero. As on a machine that keeps UTC, zone names are read and mean UTC, whatever they say. A fraction of a second may follow the seconds even where the layout names none.
//!
//! Not copied from Go: signs inside two-digit years and fractions, digits behind the ninth of a fixed
//! fraction that are none, and numeric zones where the layout has a name (Go takes `+03` for UTC there).

use jiff::SignedDuration;
use jiff::civil::{Date, DateTime, Time};

use super::time::GoTime;

/// Reads `text` by `layout`.
pub(super) fn parse(layout: &str, text: &str) -> Option<GoTime> {
    let (mut layout, mut text) = (layout.as_bytes(), Text(text.as_bytes()));
    let mut fields = Fields::default();
    while let Some((literal, element, behind)) = next_element(layout) {
        text.literal(literal)?;
        layout = behind;
        fields.read(element, layout, &mut text)?;
    }
    text.literal(layout)?;
    if text.0.is_empty() { fields.time() } else { None }
}

/// What a piece of a layout stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Element {
    LongYear,
    ShortYear,
    LongMonth,
    ShortMonth,
    Month(Width),
    LongWeekday,
    ShortWeekday,
    Day(Width),
    YearDay(Width),
    Hour,
    HalfHour(Width),
    Minute(Width),
    Second(Width),
    /// `PM` or `pm`.
    Noon(&'static [u8; 2], &'static [u8; 2]),
    ZoneName,
    Offset(OffsetForm),
    /// So many digits.
    Fraction(usize),
    /// Any number of digits, or none.
    OptionalFraction,
}

/// How a number is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Width {
    Any,
    /// With leading zeros.
    Full,
    /// With leading spaces.
    Spaces,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct OffsetForm {
    /// Whether `Z` is UTC.
    zulu: bool,
    colons: bool,
    /// Hours, minutes, seconds: how many of them.
    parts: usize,
}

/// What was read so far.
#[derive(Debug, Default)]
struct Fields {
    year: i16,
    month: Option<i8>,
    day: Option<i8>,
    year_day: Option<i16>,
    hour: i8,
    minute: i8,
    second: i8,
    nanosecond: i32,
    afternoon: Option<bool>,
    utc: bool,
    offset: Option<i32>,
    /// Where a zone's name says to show the time, in seconds.
    named_offset: i32,
}

/// What is left of the text.
struct Text<'a>(&'a [u8]);

impl Fields {
    /// Reads one element; `behind` is the layout behind it.
    fn read(&mut self, element: Element, behind: &[u8], text: &mut Text<'_>) -> Option<()> {
        match element {
            Element::LongYear => self.year = text.number(4, 4)?,
            Element::ShortYear => {
                let year: i16 = text.number(2, 2)?;
                self.year = if year >= 69 { 1900 + year } else { 2000 + year };
            }
            Element::LongMonth => self.month = Some(text.name(&LONG_MONTHS)? + 1),
            Element::ShortMonth => self.month = Some(text.short_name(&LONG_MONTHS)? + 1),
            Element::Month(width) => self.month = Some(text.two_digits(width, 12)?),
            Element::LongWeekday => drop(text.name(&LONG_DAYS)?),
            Element::ShortWeekday => drop(text.short_name(&LONG_DAYS)?),
            Element::Day(width) => self.day = Some(text.two_digits(width, 99)?),
            Element::YearDay(width) => {
                text.spaces(if width == Width::Spaces { 2 } else { 0 });
                self.year_day = Some(text.number(if width == Width::Full { 3 } else { 1 }, 3)?);
            }
            Element::Hour => self.hour = text.two_digits(Width::Any, 23)?,
            Element::HalfHour(width) => self.hour = text.two_digits(width, 12)?,
            Element::Minute(width) => self.minute = text.two_digits(width, 59)?,
            Element::Second(width) => {
                self.second = text.two_digits(width, 59)?;
                let named = next_element(behind).is_some_and(|(_, element, _)| {
                    matches!(element, Element::Fraction(_) | Element::OptionalFraction)
                });
                if !named {
                    self.nanosecond = text.optional_fraction().unwrap_or(self.nanosecond);
                }
            }
            Element::Noon(morning, afternoon) => {
                let found = text.take(2)?;
                self.afternoon = Some(found == afternoon);
                if found != morning && found != afternoon {
                    return None;
                }
            }
            Element::ZoneName if text.skip(b"UTC") => self.utc = true,
            Element::ZoneName => self.named_offset = text.zone_name()?,
            Element::Offset(form) if form.zulu && text.skip(b"Z") => self.utc = true,
            Element::Offset(form) => self.offset = Some(text.offset(form)?),
            Element::Fraction(digits) => self.nanosecond = text.fraction(digits)?,
            Element::OptionalFraction => {
                self.nanosecond = text.optional_fraction().unwrap_or(self.nanosecond);
            }
        }
        Some(())
    }

    fn time(&self) -> Option<GoTime> {
        let hour = match self.afternoon {
            Some(true) if self.hour < 12 => self.hour + 12,
            Some(false) if self.hour == 12 => 0,
            Some(_) | None => self.hour,
        };
        let date = self.date()?;
        let time = Time::new(hour, self.minute, self.second, self.nanosecond).ok()?;
        let read = DateTime::from_parts(date, time);
        match self.offset {
            _ if self.utc => GoTime::at_offset(read, 0),
            Some(offset) => GoTime::at_offset(read, offset),
            // As in Go: what was read is UTC, and `GMT+3` is only how it is shown.
            None => {
                let shown = read.checked_add(SignedDuration::from_secs(i64::from(self.named_offset))).ok()?;
                GoTime::at_offset(shown, self.named_offset)
            }
        }
    }

    fn date(&self) -> Option<Date> {
        let Some(year_day) = self.year_day else {
            return Date::new(self.year, self.month.unwrap_or(1), self.day.unwrap_or(1)).ok();
        };
        let date = Date::new(self.year, 1, 1).ok()?.with().day_of_year(year_day).build().ok()?;
        let agrees = self.month.is_none_or(|month| month == date.month())
            && self.day.is_none_or(|day| day == date.day());
        agrees.then_some(date)
    }
}

impl<'a> Text<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn skip(&mut self, prefix: &[u8]) -> bool {
        let rest = self.0.strip_prefix(prefix);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    /// Up to `most` spaces.
    fn spaces(&mut self, most: usize) {
        for _ in 0..most {
            self.skip(b" ");
        }
    }

    /// The text between elements. Runs of spaces are alike, and none is enough at the end.
    fn literal(&mut self, literal: &[u8]) -> Option<()> {
        let mut literal = literal;
        while let Some((first, rest)) = literal.split_first() {
            if *first == b' ' {
                if self.0.first().is_some_and(|byte| *byte != b' ') {
                    return None;
                }
                literal = without_spaces(rest);
                self.0 = without_spaces(self.0);
            } else {
                if !self.skip(&[*first]) {
                    return None;
                }
                literal = rest;
            }
        }
        Some(())
    }

    fn digits(&self) -> usize {
        self.0.iter().take_while(|byte| byte.is_ascii_digit()).count()
    }

    /// A number of `least` to `most` digits.
    fn number<N: std::str::FromStr>(&mut self, least: usize, most: usize) -> Option<N> {
        let length = self.digits().min(most);
        if length < least {
            return None;
        }
        std::str::from_utf8(self.take(length)?).ok()?.parse().ok()
    }

    /// A number of one or two digits.
    fn two_digits(&mut self, width: Width, largest: i8) -> Option<i8> {
        self.spaces(if width == Width::Spaces { 1 } else { 0 });
        let number = self.number(if width == Width::Full { 2 } else { 1 }, 2)?;
        (number <= largest).then_some(number)
    }

    /// Which of the names is next, in any case of letters.
    fn name(&mut self, names: &[&str]) -> Option<i8> {
        self.name_of(names.iter().map(|name| name.as_bytes()))
    }

    /// The same for the first three letters.
    fn short_name(&mut self, names: &[&str]) -> Option<i8> {
        self.name_of(names.iter().filter_map(|name| name.as_bytes().get(..3)))
    }

    fn name_of<'n>(&mut self, names: impl Iterator<Item = &'n [u8]>) -> Option<i8> {
        for (index, name) in names.enumerate() {
            if self.0.get(..name.len()).is_some_and(|found| found.eq_ignore_ascii_case(name)) {
                self.take(name.len())?;
                return i8::try_from(index).ok();
            }
        }
        None
    }

    /// A separator and exactly so many digits, in nanoseconds.
    fn fraction(&mut self, digits: usize) -> Option<i32> {
        let (separator, digits) = self.take(digits.checked_add(1)?)?.split_first()?;
        if !matches!(separator, b'.' | b',') || !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let digits = digits.iter().map(|digit| i32::from(digit - b'0'));
        Some(digits.chain(std::iter::repeat(0)).take(9).fold(0, |sum, digit| sum * 10 + digit))
    }

    fn optional_fraction(&mut self) -> Option<i32> {
        let digits = Text(self.0.get(1..)?).digits();
        // `fraction` moves on only past a separator.
        if digits == 0 || !matches!(self.0.first(), Some(b'.' | b',')) { None } else { self.fraction(digits) }
    }

    /// An offset from UTC in seconds. Go takes 24 hours and 60 minutes, too.
    fn offset(&mut self, form: OffsetForm) -> Option<i32> {
        let negative = match self.take(1)? {
            b"+" => false,
            b"-" => true,
            _ => return None,
        };
        let mut seconds = 0;
        for (part, (unit, largest)) in
            [(3600, 24), (60, 60), (1, 60)].into_iter().enumerate().take(form.parts)
        {
            if part > 0 && form.colons && !self.skip(b":") {
                return None;
            }
            let number: i32 = self.number(2, 2)?;
            if number > largest {
                return None;
            }
            seconds += number * unit;
        }
        Some(if negative { -seconds } else { seconds })
    }

    /// The name of a zone, and the offset that it shows.
    fn zone_name(&mut self) -> Option<i32> {
        if self.skip(b"ChST") || self.skip(b"MeST") {
            return Some(0);
        }
        if self.skip(b"GMT") {
            return Some(self.hours_from_gmt().unwrap_or(0));
        }
        let letters = self.0.iter().take(6).take_while(|byte| byte.is_ascii_uppercase()).count();
        let name = self.take(letters)?;
        let known = match letters {
            3 => true,
            4 => name.ends_with(b"T") || name == b"WITA",
            5 => name.ends_with(b"T"),
            _ => false,
        };
        known.then_some(0)
    }

    /// `+3` behind `GMT`, up to 23.
    fn hours_from_gmt(&mut self) -> Option<i32> {
        let sign = match self.0.first()? {
            b'+' => 1,
            b'-' => -1,
            _ => return None,
        };
        let mut behind = Text(self.0.get(1..)?);
        let hours: i32 = behind.number(1, usize::MAX)?;
        if hours > 23 {
            return None;
        }
        self.0 = behind.0;
        Some(sign * hours * 3600)
    }
}

fn without_spaces(text: &[u8]) -> &[u8] {
    let spaces = text.iter().take_while(|byte| **byte == b' ').count();
    text.get(spaces..).unwrap_or_default()
}

/// The first element of a layout, with what stands before and behind it.
fn next_element(layout: &[u8]) -> Option<(&[u8], Element, &[u8])> {
    (0..layout.len()).find_map(|at| {
        let (before, rest) = layout.split_at_checked(at)?;
        let (element, length) = element_at_start(rest)?;
        Some((before, element, rest.get(length..)?))
    })
}

/// The element that a layout begins with, and its length.
fn element_at_start(layout: &[u8]) -> Option<(Element, usize)> {
    if let [b'.' | b',', digit @ (b'0' | b'9'), ..] = layout {
        let behind = layout.get(1..)?;
        let length = behind.iter().take_while(|byte| *byte == digit).count();
        // Other digits behind them: no fraction.
        if behind.get(length).is_some_and(u8::is_ascii_digit) {
            return None;
        }
        let element = if *digit == b'0' { Element::Fraction(length) } else { Element::OptionalFraction };
        return Some((element, length + 1));
    }
    // `_2006` is an underscore and a year.
    if layout.starts_with(b"_2006") {
        return None;
    }
    let (name, element) = ELEMENTS.iter().find(|(name, element)| {
        let abbreviates = matches!(element, Element::ShortMonth | Element::ShortWeekday);
        layout.strip_prefix(name.as_bytes()).is_some_and(|behind| {
            // `Month` is not `Mon`.
            !abbreviates || !behind.first().is_some_and(u8::is_ascii_lowercase)
        })
    })?;
    Some((*element, name.len()))
}

const fn offset(zulu: bool, colons: bool, parts: usize) -> Element {
    Element::Offset(OffsetForm { zulu, colons, parts })
}

/// Longer ones before those they begin with.
const ELEMENTS: [(&str, Element); 33] = [
    ("January", Element::LongMonth),
    ("Jan", Element::ShortMonth),
    ("Monday", Element::LongWeekday),
    ("Mon", Element::ShortWeekday),
    ("MST", Element::ZoneName),
    ("01", Element::Month(Width::Full)),
    ("02", Element::Day(Width::Full)),
    ("03", Element::HalfHour(Width::Full)),
    ("04", Element::Minute(Width::Full)),
    ("05", Element::Second(Width::Full)),
    ("06", Element::ShortYear),
    ("002", Element::YearDay(Width::Full)),
    ("15", Element::Hour),
    ("1", Element::Month(Width::Any)),
    ("2006", Element::LongYear),
    ("2", Element::Day(Width::Any)),
    ("_2", Element::Day(Width::Spaces)),
    ("__2", Element::YearDay(Width::Spaces)),
    ("3", Element::HalfHour(Width::Any)),
    ("4", Element::Minute(Width::Any)),
    ("5", Element::Second(Width::Any)),
    ("PM", Element::Noon(b"AM", b"PM")),
    ("pm", Element::Noon(b"am", b"pm")),
    ("-070000", offset(false, false, 3)),
    ("-07:00:00", offset(false, true, 3)),
    ("-0700", offset(false, false, 2)),
    ("-07:00", offset(false, true, 2)),
    ("-07", offset(false, false, 1)),
    ("Z070000", offset(true, false, 3)),
    ("Z07:00:00", offset(true, true, 3)),
    ("Z0700", offset(true, false, 2)),
    ("Z07:00", offset(true, true, 2)),
    ("Z07", offset(true, false, 1)),
];

const LONG_MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

const LONG_DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
