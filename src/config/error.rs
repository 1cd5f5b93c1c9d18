//! Why a configuration is refused: the file, the line, the key, and the way out.

use std::path::{Path, PathBuf};

use serde_saphyr::{Error as YamlError, MessageFormatter};

use super::SocketPath;
use crate::policy::spelling::way_out;

/// A configuration that is not used. The command line ends with exit code 2.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: cannot read the configuration: {source}; create it, or name another with --config", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is too large to be a configuration.
    #[error("{}: larger than {limit} bytes: this is not a configuration", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Bytes read at most.
        limit: u64,
    },
    /// The file is not text.
    #[error("{}: not UTF-8 text", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
    },
    /// A key or a value is refused.
    #[error("{}:{line}:{column}: {key}{}{problem}", path.display(), if key.is_empty() { "" } else { ": " })]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The line, from 1; 0 if the parser did not say.
        line: u64,
        /// The column, from 1; 0 if the parser did not say.
        column: u64,
        /// The key with its sections, such as `cache.fresh`; empty for a fault of the document itself.
        key: String,
        /// What is wrong, and the way out.
        problem: String,
    },
    /// Two roles are given one socket.
    #[error("{}: {first} and {second} are both {socket}: give each its own", path.display())]
    SameSocket {
        /// The file.
        path: PathBuf,
        /// One key.
        first: &'static str,
        /// The other.
        second: &'static str,
        /// What both name.
        socket: SocketPath,
    },
}

impl ConfigError {
    pub(super) fn invalid(path: &Path, key: String, error: &YamlError) -> Self {
        let error = error.without_snippet();
        let (line, column) = error.location().map_or((0, 0), |at| (at.line(), at.column()));
        // serde_path_to_error's word for the document itself.
        let key = if key == "." { String::new() } else { one_line(&key) };
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "a foreign enum of which some variants are worded here"
        )]
        let problem = match error {
            YamlError::SerdeUnknownField { field, expected, .. } => {
                format!("unknown key: {}", way_out(field, expected))
            }
            YamlError::SerdeMissingField { field: "policy" | "paths", .. } => REQUIRED.to_owned(),
            YamlError::Eof { .. } if key.is_empty() => format!("nothing in it: {REQUIRED}"),
            YamlError::SerdeUnknownVariant { variant, expected, .. } => {
                format!("`{}` is not one of {}", one_line(variant), expected.join(", "))
            }
            other => one_line(&serde_saphyr::DefaultMessageFormatter.format_message(other)),
        };
        Self::Invalid { path: path.to_owned(), line, column, key, problem }
    }
}

/// Text from the file, in a message, must not break the line or drive a terminal.
fn one_line(text: &str) -> String {
    text.replace(char::is_control, " ")
}

const REQUIRED: &str = "policy.paths is required: name the files or folders that hold the policies";
