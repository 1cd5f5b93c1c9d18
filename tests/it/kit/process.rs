//! A daemon as a child process: its log in a file, killed by its pid, never by a name.

use std::{
    fs::{self, File},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::within;

/// A running child process; killed when dropped.
pub(crate) struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts a command; what it prints is appended to the log.
    pub(crate) fn spawn(command: &mut Command, log: &Path) -> Self {
        let out = File::options().create(true).append(true).open(log).expect("a log file");
        let child = command
            .stdin(Stdio::null())
            .stderr(out.try_clone().expect("a second handle"))
            .stdout(out)
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self { child, log: log.to_owned() }
    }

    /// Fails the test if the process has ended by itself.
    pub(crate) fn assert_running(&mut self) {
        if let Some(status) = self.child.try_wait().expect("our own child") {
            panic!("ended with {status}:\n{}", self.log_tail());
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("a pid");
        // It may have ended already.
        let _ = kill(Pid::from_raw(pid), signal);
    }

    /// SIGTERM, and how it ended.
    pub(crate) fn stop(self) -> ExitStatus {
        self.end_by(Signal::SIGTERM)
    }

    /// A signal that ends it, and how it did.
    pub(crate) fn end_by(mut self, signal: Signal) -> ExitStatus {
        self.signal(signal);
        within(Duration::from_secs(40), || self.child.try_wait().expect("our own child"))
            .unwrap_or_else(|| panic!("does not end:\n{}", self.log_tail()))
    }

    /// SIGKILL; returns once it is gone.
    pub(crate) fn kill9(mut self) {
        self.kill_and_wait();
    }

    /// The last lines of its log.
    pub(crate) fn log_tail(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }

    fn kill_and_wait(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A line of a process's memory in /proc, in KiB; `self` is a process too.
pub(crate) fn memory_of(process: &str, line: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("a running process");
    let value = status.lines().find_map(|found| found.strip_prefix(line)).expect("a line of that name");
    value.trim().trim_end_matches(" kB").parse().expect("a number")
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill_and_wait();
    }
}
