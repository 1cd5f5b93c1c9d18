//! The command line: what each command takes, and which exit code it ends with.
//!
//! Everywhere: 0 yes or done, 1 a definite no, 2 usage, config or policy error, 3 could not find
//! out. Errors go to stderr as one line that names the thing and the way out. The same
//! definitions make `--help`, the completions and the man page.

mod apply;
mod args;
mod cache;
mod check;
mod control;
mod judge;
mod manual;
mod serve;
mod tree;
mod verify;
mod verify_bundle;

use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

pub use args::{Arguments, Command};

/// What a command ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Yes, or done.
    Done,
    /// A definite no.
    No,
    /// Usage, config or policy error.
    Usage,
    /// Could not find out.
    Unknown,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::No => 1,
            Exit::Usage => 2,
            Exit::Unknown => 3,
        })
    }
}

/// Runs the command that the process's arguments name.
#[must_use]
pub fn run() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            if !error.use_stderr() {
                drop(error.print());
                return ExitCode::SUCCESS;
            }
            complain(usage(&error.to_string()));
            return Exit::Usage.into();
        }
    };
    let exit = match arguments.command {
        Command::Serve(serve) => serve::run(&serve),
        Command::Verify(verify) => verify::run(&verify),
        Command::Apply(apply) => apply::run(&apply),
        Command::Check(check) => check::run(&check),
        Command::VerifyBundle(verify) => verify_bundle::run(&verify),
        Command::Status(status) => control::status(&status),
        Command::Reload(reload) => control::reload(&reload),
        Command::Cache(cache) => cache::run(&cache),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "pullgate", &mut script);
            print_whole(&script)
        }
        Command::Man => match manual::page() {
            Ok(page) => print_whole(&page),
            Err(error) => {
                complain(format_args!("cannot make the man page: {error}"));
                Exit::No
            }
        },
    };
    exit.into()
}

/// A usage error in one line. The library tells in paragraphs: the error, hints, the usage, and where
/// the help is.
fn usage(error: &str) -> String {
    let words = |paragraph: &str| paragraph.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut told = Vec::new();
    let mut command = "pullgate".to_owned();
    for paragraph in error.split("\n\n") {
        match paragraph.trim_start().strip_prefix("Usage: ") {
            Some(usage) => {
                let names = usage.split_whitespace().take_while(|word| !word.starts_with(['-', '<', '[']));
                command = names.collect::<Vec<_>>().join(" ");
            }
            None if paragraph.trim_start().starts_with("For more information") => {}
            None => told.push(words(paragraph)),
        }
    }
    let told = told.join("; ");
    let told = told.strip_prefix("error: ").unwrap_or(&told);
    format!("{told}; see `{command} --help`")
}

/// Writes one line to stdout; a closed pipe ends the output, not the program.
fn say(line: impl std::fmt::Display) {
    drop(writeln!(std::io::stdout(), "{line}"));
}

/// Writes one line to stderr, beside what is asked for on stdout.
fn note(line: impl std::fmt::Display) {
    drop(writeln!(std::io::stderr(), "{line}"));
}

/// Writes one line to stderr: what is wrong.
fn complain(line: impl std::fmt::Display) {
    drop(writeln!(std::io::stderr(), "pullgate: {line}"));
}

/// The runtime of the commands that talk to a registry or the daemon. One thread: they mostly wait,
/// and one image is verified sooner than a second thread is woken up for it.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// Writes everything to stdout; whoever closed the pipe had enough.
fn print_whole(bytes: &[u8]) -> Exit {
    match std::io::stdout().write_all(bytes) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            complain(format_args!("cannot write: {error}"));
            Exit::No
        }
        Ok(()) | Err(_) => Exit::Done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definitions_hold_together() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn usage_errors_are_one_line_with_the_way_out() {
        let told = |arguments: &[&str]| {
            let error = Arguments::try_parse_from(arguments.iter().copied()).expect_err("wrong");
            usage(&error.to_string())
        };
        for (arguments, wanted) in [
            (
                &["pullgate", "verify"][..],
                "the following required arguments were not provided: <IMAGE>...; see `pullgate verify --help`",
            ),
            (
                &["pullgate", "verify", "--namespace", "A b", "a"],
                "invalid value 'A b' for '--namespace <NS>': a namespace is at most 63 of a-z, 0-9 and -, and neither begins nor ends with -; see `pullgate --help`",
            ),
            (
                &["pullgate", "chek"],
                "unrecognized subcommand 'chek'; tip: a similar subcommand exists: 'check'; see `pullgate --help`",
            ),
            (
                &["pullgate", "check", "--strickt"],
                "unexpected argument '--strickt' found; tip: a similar argument exists: '--strict'; see `pullgate check --help`",
            ),
        ] {
            assert_eq!(told(arguments), wanted);
        }
    }
}
