//! What a program that has ended said.

use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// What a command printed and ended with.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    pub(crate) fn of(command: &mut Command) -> Self {
        Self::from(command.env_remove("LISTEN_FDS").stdin(Stdio::null()).output().expect("pullgate"))
    }

    pub(crate) fn lines(&self) -> Vec<&str> {
        self.stdout.lines().collect()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The one line of stderr.
    pub(crate) fn expect_error(&self, code: i32) -> String {
        assert_eq!(self.code, code, "{self:?}");
        let line = self.stderr.strip_suffix('\n').unwrap_or_default();
        assert!(!line.is_empty() && !line.contains('\n'), "one line: {self:?}");
        line.to_owned()
    }

    /// The one line of stderr of a run that judged nothing.
    pub(crate) fn refusal(&self) -> String {
        assert_eq!(self.stdout, "", "{self:?}");
        self.expect_error(2)
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("text");
        Self {
            code: output.status.code().expect("no signal"),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }
}
