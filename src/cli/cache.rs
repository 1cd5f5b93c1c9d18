//! `cache`: through the daemon, or the folder itself where no daemon holds it.

use serde_json::Value;

use super::args::{Cache, CacheAction, CacheScope, Output};
use super::control::{plain, text, with_version};
use super::{Exit, complain, runtime, say};
use crate::cache::{Options, Store};
use crate::config::Config;
use crate::daemon::control::{ControlError, Request, Response, ask};
use crate::daemon::{cache_list, cache_options, cache_purge, cache_show};

/// `pullgate cache`
pub(super) fn run(arguments: &Cache) -> Exit {
    let (scope, request) = match &arguments.action {
        CacheAction::List(scope) => (scope, Request::CacheList {}),
        CacheAction::Show { image, scope } => (scope, Request::CacheShow { image: image.clone() }),
        CacheAction::Purge { image, scope } => (scope, Request::CachePurge { image: image.clone() }),
    };
    let config = match Config::load(&scope.config) {
        Ok(config) => config,
        Err(error) => {
            complain(error);
            return Exit::Usage;
        }
    };
    let response = match ask(config.control.listen.path(), &request) {
        Ok(response) => response,
        Err(ControlError::NoDaemon { .. }) => match in_folder(&config, request) {
            Ok(response) => response,
            Err(exit) => return exit,
        },
        Err(error) => {
            complain(error);
            return Exit::Unknown;
        }
    };
    if let Some(error) = response.error {
        complain(error);
        return Exit::Usage;
    }
    print(scope, &response.body);
    Exit::Done
}

fn in_folder(config: &Config, request: Request) -> Result<Response, Exit> {
    let options = Options { patience: std::time::Duration::from_secs(1), ..cache_options(config) };
    let unknown = |error: &dyn std::fmt::Display| {
        complain(error);
        Exit::Unknown
    };
    if !options.path.exists() {
        return Err(unknown(&format_args!("{} is not there: nothing is cached", options.path.display())));
    }
    let store = Store::open(options).map_err(|error| unknown(&error))?;
    let response = runtime().map_err(|error| unknown(&error))?.block_on(async {
        match request {
            Request::CacheShow { image } => cache_show(&store, &image).await,
            Request::CachePurge { image } => cache_purge(&store, image.as_deref()).await,
            Request::CacheList {} | Request::Status { .. } | Request::Reload {} => {
                Response::good(cache_list(&store))
            }
        }
    });
    store.close();
    Ok(response)
}

fn print(scope: &CacheScope, body: &Value) {
    if scope.output == Output::Json {
        return say(with_version(body));
    }
    match body {
        Value::Array(rows) => {
            for row in rows {
                say(format_args!(
                    "{}  {}  {} s",
                    text(row, "image"),
                    text(row, "source"),
                    text(row, "ageSeconds")
                ));
            }
        }
        Value::Object(members) => {
            for (name, value) in members {
                say(format_args!("{name:<14} {}", plain(value)));
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => say(plain(body)),
    }
}
