//! Where the log goes: journald with its own fields, JSON lines, or text.
//!
//! `auto` is journald where systemd connected our stderr to it (`JOURNAL_STREAM`), else text. A
//! journal that cannot be reached falls back to text; the gate never fails for want of a log.

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry};

/// The form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// journald where it listens, else text.
    Auto,
    /// journald's own protocol: `journalctl -u pullgate VERDICT=deny`.
    Journald,
    /// One JSON object a line on stderr.
    Json,
    /// Text on stderr.
    Text,
}

/// Sets the log up for the whole process; a second call changes nothing.
pub fn set_up(format: Format, level: LevelFilter) {
    let journald = matches!(format, Format::Journald)
        || (matches!(format, Format::Auto) && std::env::var_os("JOURNAL_STREAM").is_some());
    // Field names become IMAGE=, POLICY=, VERDICT= and so on.
    let journal = if journald { tracing_journald::layer().ok() } else { None };
    let layer: Box<dyn Layer<Registry> + Send + Sync> = match (journal, format) {
        (Some(journal), _) => Box::new(journal.with_field_prefix(None)),
        (None, Format::Json) => {
            Box::new(tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(std::io::stderr))
        }
        (None, _) => Box::new(
            tracing_subscriber::fmt::layer().with_ansi(false).with_target(false).with_writer(std::io::stderr),
        ),
    };
    drop(tracing_subscriber::registry().with(layer.with_filter(level)).try_init());
}
