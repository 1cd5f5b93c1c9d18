//! Who answers the commands of `cache`: the daemon on its control socket, or this process on the folder.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::runtime::Runtime;

use super::Failure;
use crate::admission::Gate;
use crate::cache::{Options, Store};
use crate::cli::args::Basis;
use crate::cli::judge::Rules;
use crate::config::Config;
use crate::daemon::control::{self, Request, Response};
use crate::daemon::{cache, cache_options};

/// Who answers.
pub(super) enum Place {
    /// The daemon, which listens there and is waited for so long.
    Daemon(PathBuf, Duration),
    /// The folder, for what asks for no policy.
    Folder(Store),
    /// The folder, by the policies, trust roots and registries of the config.
    Judging(Box<Gate>),
}

impl Place {
    /// Where a cache that is there is looked at.
    pub(super) fn tended(config: &Config) -> Result<Self, Failure> {
        if let Some(daemon) = Self::daemon(config) {
            return Ok(daemon);
        }
        let folder = &config.cache.path;
        if !folder.exists() {
            let folder = folder.display();
            return Err(Failure::unknown(format_args!("{folder} is not there: nothing is cached")));
        }
        Ok(Self::Folder(open(config)?))
    }

    /// Where images are verified. Without a daemon the config at `path` says by what.
    pub(super) fn judging(config: &Config, path: &Path, runtime: &Runtime) -> Result<Self, Failure> {
        if let Some(daemon) = Self::daemon(config) {
            return Ok(daemon);
        }
        let basis = Basis::of_config(path);
        let rules = Rules::load(&basis, runtime).map_err(Failure::usage)?;
        let store = open(config)?;
        let gate = rules.gate(&basis, store).map_err(Failure::usage)?;
        Ok(Self::Judging(Box::new(gate)))
    }

    fn daemon(config: &Config) -> Option<Self> {
        let path = config.control.listen.path();
        // An image may wait for others, be resolved, and be verified.
        let patience = config.limits.verification * 4 + Duration::from_secs(60);
        control::listens(path).then(|| Self::Daemon(path.to_owned(), patience))
    }

    pub(super) async fn ask(&self, request: Request) -> Result<Response, Failure> {
        match self {
            Self::Daemon(path, patience) => {
                let (path, patience) = (path.clone(), *patience);
                let asking = move || control::ask_within(&path, &request, patience);
                match tokio::task::spawn_blocking(asking).await {
                    Ok(answer) => answer.map_err(Failure::unknown),
                    Err(error) => Err(Failure::unknown(error)),
                }
            }
            Self::Folder(store) => Ok(in_folder(store, None, request).await),
            Self::Judging(gate) => Ok(in_folder(gate.store(), Some(gate), request).await),
        }
    }

    /// Writes what was kept.
    pub(super) fn close(&self) {
        match self {
            Self::Daemon(..) => {}
            Self::Folder(store) => store.close(),
            Self::Judging(gate) => gate.store().close(),
        }
    }
}

fn open(config: &Config) -> Result<Store, Failure> {
    let options = Options { patience: Duration::from_secs(1), ..cache_options(config) };
    Store::open(options).map_err(Failure::unknown)
}

async fn in_folder(store: &Store, gate: Option<&Gate>, request: Request) -> Response {
    match (request, gate) {
        (Request::CacheList { after }, _) => cache::list(store, after, cache::PAGE).await,
        (Request::CacheShow { image }, _) => cache::show(store, &image).await,
        (Request::CachePurge { image }, _) => cache::purge(store, image.as_deref()).await,
        (Request::CacheExportable { images, after }, _) => {
            cache::exportable(store, &images, after, cache::PAGE).await
        }
        (Request::CacheExport { image }, _) => cache::export(store, &image).await,
        (Request::CacheImport { evidence }, Some(gate)) => cache::import(gate, evidence).await,
        (Request::CachePrewarm { image }, Some(gate)) => cache::prewarm(gate, &image).await,
        (Request::CacheImport { .. } | Request::CachePrewarm { .. }, None)
        | (Request::Status { .. } | Request::Reload {}, _) => {
            Response::bad("only a running daemon does this")
        }
    }
}
