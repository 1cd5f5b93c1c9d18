//! `serve`: the daemon.

use tracing_subscriber::filter::LevelFilter;

use super::args::Serve;
use super::{Exit, complain};
use crate::config::{Config, LogFormat, LogLevel};
use crate::daemon::{self, logging};

/// `pullgate serve`
pub(super) fn run(arguments: &Serve) -> Exit {
    let config = match Config::load(&arguments.config) {
        Ok(config) => config,
        Err(error) => {
            complain(error);
            return Exit::Usage;
        }
    };
    let format = match config.log.format {
        LogFormat::Auto => logging::Format::Auto,
        LogFormat::Journald => logging::Format::Journald,
        LogFormat::Json => logging::Format::Json,
        LogFormat::Text => logging::Format::Text,
    };
    logging::set_up(format, level(config.log.level));
    // Pull secrets pass through this memory: it is not for core dumps, nor for debuggers without privileges.
    if let Err(error) = nix::sys::prctl::set_dumpable(false) {
        tracing::warn!(%error, "a crash would leave pull secrets in a core dump");
    }
    // A pull mostly waits for a registry: a machine of many cores needs no thread a core for it.
    let workers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(WORKERS);
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .max_blocking_threads(BLOCKING)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(format_args!("cannot start: {error}"));
            return Exit::No;
        }
    };
    match runtime.block_on(daemon::run(&arguments.config, config)) {
        Ok(()) => Exit::Done,
        Err(error) => {
            complain(error);
            Exit::No
        }
    }
}

fn level(level: LogLevel) -> LevelFilter {
    level.as_str().parse().unwrap_or(LevelFilter::INFO)
}

/// Threads that judge pulls.
const WORKERS: usize = 4;
/// Threads for files; as many as verifications at once. Names have threads of their own.
const BLOCKING: usize = 16;
