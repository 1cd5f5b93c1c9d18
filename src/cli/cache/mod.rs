//! `cache`: through the daemon, or the folder itself where no daemon holds it.
//!
//! The commands that go image by image (`export`, `import`, `prewarm`) ask for each in a request of its own, and
//! lists come in pages.
//! What is said of an image is printed when it is known, beside a bar on a terminal; a program gets one JSON
//! object at the end. Words that may come from elsewhere (names in a list, causes) are printed as plain text.

mod list;
mod place;
mod transfer;

use std::path::Path;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use self::place::Place;
use super::args::{Cache, CacheAction, CacheScope, Output};
use super::control::{client_config, moment, plain, with_version};
use super::{Exit, complain, runtime, say, tree};
use crate::config::Config;
use crate::daemon::control::{Request, Response};

/// `pullgate cache`
pub(super) fn run(arguments: &Cache) -> Exit {
    let done = match &arguments.action {
        CacheAction::List(scope) => list::list(scope),
        CacheAction::Show { image, scope } => asked(scope, Request::CacheShow { image: image.clone() }),
        CacheAction::Purge { image, scope } => asked(scope, Request::CachePurge { image: image.clone() }),
        CacheAction::Export(export) => transfer::export(export),
        CacheAction::Import(import) => transfer::import(import),
        CacheAction::Prewarm(prewarm) => transfer::prewarm(prewarm),
    };
    done.unwrap_or_else(|failure| {
        complain(failure.line);
        failure.exit
    })
}

/// Why a command ends early.
#[derive(Debug)]
struct Failure {
    exit: Exit,
    line: String,
}

impl Failure {
    fn usage(line: impl ToString) -> Self {
        Self { exit: Exit::Usage, line: line.to_string() }
    }

    fn unknown(line: impl ToString) -> Self {
        Self { exit: Exit::Unknown, line: line.to_string() }
    }
}

fn config(path: &Path) -> Result<Config, Failure> {
    client_config(path).map_err(Failure::usage)
}

/// One request, one answer.
fn asked(scope: &CacheScope, request: Request) -> Result<Exit, Failure> {
    let config = config(&scope.config)?;
    let place = Place::tended(&config)?;
    let answer = runtime().map_err(Failure::unknown)?.block_on(place.ask(request));
    place.close();
    let body = body(answer?)?;
    print(scope.output, &body);
    Ok(Exit::Done)
}

fn body(response: Response) -> Result<Value, Failure> {
    match response {
        Response { error: Some(error), .. } => Err(Failure::usage(error)),
        Response { body, .. } => Ok(body),
    }
}

fn print(output: Output, body: &Value) {
    if output == Output::Json {
        return say(tree::shown(&with_version(body)));
    }
    match body {
        Value::Object(members) => {
            for (name, value) in members.iter().filter(|(_, value)| !value.is_null()) {
                let value = match name.as_str() {
                    "admittedAt" | "fetchedAt" => moment(body, name),
                    _ => plain(value),
                };
                say(tree::plain(&format!("{name:<14} {value}")));
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            say(plain(body))
        }
    }
}

/// A bar on a terminal, nothing otherwise. `doing` is what happens to the images.
fn progress(doing: &str, images: u64) -> ProgressBar {
    if images < 2 {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(images);
    let template = format!("{doing} {{pos}}/{{len}} [{{bar:30}}] {{elapsed}}");
    if let Ok(style) = ProgressStyle::with_template(&template) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
