//! `cache export`, `import` and `prewarm`: image by image, with what became of each.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::Path;

use futures_util::{Stream, StreamExt as _, stream};
use indicatif::ProgressBar;
use serde_json::{Value, json};

use super::list::Pages;
use super::place::Place;
use super::{Failure, body, config, progress};
use crate::cache::ImageName;
use crate::cache::archive::{Archive, ImageEvidence, Writer};
use crate::cli::args::{CacheExport, CacheImport, CachePrewarm, Output};
use crate::cli::control::{text, told};
use crate::cli::judge::worst;
use crate::cli::{Exit, complain, runtime, say, tree};
use crate::config::Config;
use crate::daemon::cache::reference;
use crate::daemon::control::Request;

/// `pullgate cache export`
pub(super) fn export(arguments: &CacheExport) -> Result<Exit, Failure> {
    let config = config(&arguments.scope.config)?;
    let place = Place::tended(&config)?;
    let exported = runtime().map_err(Failure::unknown)?.block_on(export_to(arguments, &place));
    place.close();
    exported
}

async fn export_to(arguments: &CacheExport, place: &Place) -> Result<Exit, Failure> {
    let path = &arguments.file;
    let failed = |error| Failure::unknown(format_args!("{} cannot be written: {error}", path.display()));
    let ask = |after| place.ask(Request::CacheExportable { images: arguments.image.clone(), after });
    let mut pages = Pages::default();
    let mut page: Option<Exportable> = pages.next(ask).await?;
    // There is always a first page, if an empty one.
    let mut file = Writer::create(path, page.as_ref().map_or(0, |page| page.now)).map_err(failed)?;
    let bar = progress("exporting", page.as_ref().map_or(0, |page| page.images.len() as u64));
    let (mut left_out, mut bytes) = (Vec::new(), 0);
    while let Some(Exportable { images, left_out: large, .. }) = page {
        left_out.extend(large);
        for Row { image, bytes: of_it, tags } in images {
            let answer = place.ask(Request::CacheExport { image }).await?;
            let evidence: Option<ImageEvidence> =
                serde_json::from_value(body(answer)?).map_err(Failure::unknown)?;
            // What was dropped meanwhile was dropped.
            if let Some(evidence) = evidence {
                file.image(&ImageEvidence { tags, ..evidence }).map_err(failed)?;
                bytes += of_it;
            }
            bar.inc(1);
        }
        page = pages.next(ask).await?;
        bar.inc_length(page.as_ref().map_or(0, |page| page.images.len() as u64));
    }
    bar.finish_and_clear();
    let images = file.finish().map_err(failed)?;
    for image in &left_out {
        complain(format_args!(
            "{} has more evidence than fits into a file: left out",
            String::from(image.clone())
        ));
    }
    match arguments.scope.output {
        Output::Json => say(json!({
            "schemaVersion": 1, "file": path, "images": images, "bytes": bytes, "leftOut": left_out,
        })),
        Output::Text => say(format_args!("{images} images, {bytes} bytes of evidence in {}", path.display())),
    }
    Ok(if left_out.is_empty() { Exit::Done } else { Exit::Unknown })
}

/// A page of what there is to export.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Exportable {
    now: u64,
    images: Vec<Row>,
    left_out: Vec<ImageName>,
}

#[derive(serde::Deserialize)]
struct Row {
    image: ImageName,
    bytes: u64,
    tags: Vec<String>,
}

/// `pullgate cache import`
pub(super) fn import(arguments: &CacheImport) -> Result<Exit, Failure> {
    let config = config(&arguments.scope.config)?;
    // Before anybody is asked: the whole file is read through.
    let archive = Archive::open(&arguments.file, largest(&config)).map_err(Failure::usage)?;
    let runtime = runtime().map_err(Failure::unknown)?;
    let place = Place::judging(&config, &arguments.scope.config, &runtime)?;
    let bar = progress("verifying", archive.len());
    let requests = archive.images().map(|image| image.map(|evidence| Request::CacheImport { evidence }));
    let requests = requests.map(|request| request.map_err(Failure::usage));
    let rows = runtime.block_on(async {
        let answers = answers(&place, requests, IMPORTED_AT_ONCE);
        collect(answers, &bar, arguments.scope.output, |row| match text(row, "result").as_str() {
            "kept" | "known" => None,
            _ => Some(import_line(row)),
        })
        .await
    });
    place.close();
    let rows = rows?;
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for row in &rows {
        *counts.entry(text(row, "result")).or_default() += 1;
    }
    match arguments.scope.output {
        Output::Json => say(tree::shown(&json!({
            "schemaVersion": 1, "file": arguments.file, "counts": counts, "images": rows,
        }))),
        Output::Text => {
            let words: Vec<_> =
                counts.iter().map(|(result, count)| format!("{count} {}", became(result).1)).collect();
            say(if words.is_empty() { "the file has no images".to_owned() } else { words.join(", ") });
        }
    }
    Ok(worst(rows.iter().map(|row| became(&text(row, "result")).0)))
}

/// Twice what fits into the cache leaves room for base64 and names.
fn largest(config: &Config) -> u64 {
    config.cache.max_size.bytes().saturating_mul(2).saturating_add(SMALLEST_LIMIT)
}

/// What became of an image, in an administrator's words, and what that makes of the exit code.
fn became(result: &str) -> (Exit, &'static str) {
    match result {
        "kept" => (Exit::Done, "kept"),
        "known" => (Exit::Done, "here already"),
        "not-asked" => (Exit::Done, "not kept: no policy asks for evidence of it"),
        "denied" => (Exit::No, "not kept: denied"),
        "expired" => (Exit::No, "not kept: fetched longer ago than cache.stale"),
        "full" => (Exit::Unknown, "not kept: cache.maxSize or cache.maxEntries is reached"),
        "unwritten" => (Exit::Unknown, "not kept: the disk does not take it"),
        // `undecided`, and what a newer daemon may say.
        _ => (Exit::Unknown, "not kept: undecided"),
    }
}

fn import_line(row: &Value) -> String {
    let causes = causes(row);
    let image = text(row, "image");
    let (_, words) = became(&text(row, "result"));
    if causes.is_empty() {
        format!("{image}: {words}")
    } else {
        format!("{image}: {words}: {}", causes.join("; "))
    }
}

/// `pullgate cache prewarm`
pub(super) fn prewarm(arguments: &CachePrewarm) -> Result<Exit, Failure> {
    let config = config(&arguments.scope.config)?;
    let images = images(arguments).map_err(Failure::usage)?;
    let runtime = runtime().map_err(Failure::unknown)?;
    let place = Place::judging(&config, &arguments.scope.config, &runtime)?;
    let bar = progress("verifying", images.len() as u64);
    let requests = images.into_iter().map(|image| Ok(Request::CachePrewarm { image }));
    let rows = runtime.block_on(async {
        let answers = answers(&place, requests, VERIFIED_AT_ONCE);
        collect(answers, &bar, arguments.scope.output, |row| Some(prewarm_lines(row))).await
    });
    place.close();
    let rows = rows?;
    if arguments.scope.output == Output::Json {
        say(tree::shown(&json!({ "schemaVersion": 1, "images": rows })));
    }
    Ok(worst(rows.iter().map(|row| match text(row, "verdict").as_str() {
        "allowed" => Exit::Done,
        "denied" => Exit::No,
        _ => Exit::Unknown,
    })))
}

/// One line an image; several where several rules refuse or would.
fn prewarm_lines(row: &Value) -> String {
    let (image, causes) = (text(row, "image"), causes(row).join("; "));
    let fault = row.get("fault").is_some_and(|fault| !fault.is_null());
    match text(row, "verdict").as_str() {
        "allowed" if causes.is_empty() => {
            // What no rule covers is not resolved.
            let digest = row.get("digest").and_then(Value::as_str).unwrap_or("not looked up");
            format!("{image}: allowed ({}) {digest}", text(row, "source"))
        }
        "allowed" if fault => format!("{image}: allowed ({}): {causes}", text(row, "source")),
        "allowed" => format!("{image}: would deny: {causes}"),
        verdict => format!("{image}: {verdict}: {causes}"),
    }
}

/// `policy/rule: cause` of each denial, and the words of a fault.
fn causes(row: &Value) -> Vec<String> {
    let denials = row.get("denials").and_then(Value::as_array).into_iter().flatten();
    let mut causes: Vec<_> = denials
        .map(|denial| match text(denial, "policy") {
            policy if policy.is_empty() => told(denial),
            policy => format!("{policy}/{}: {}", text(denial, "rule"), told(denial)),
        })
        .collect();
    let message = row.get("fault").map(|fault| text(fault, "message")).unwrap_or_default();
    let prefix = format!("{}: ", text(row, "image"));
    causes
        .extend((!message.is_empty()).then(|| message.strip_prefix(&prefix).unwrap_or(&message).to_owned()));
    causes
}

/// The images on the command line, in the file, or on standard input; each once, in that order.
fn images(arguments: &CachePrewarm) -> Result<Vec<String>, String> {
    let mut images = Vec::new();
    for image in &arguments.images {
        if image == "-" {
            images.extend(listed(&read(std::io::stdin(), "standard input")?));
        } else {
            images.push(image.clone());
        }
    }
    if let Some(path) = &arguments.file {
        let text = if path == Path::new("-") {
            read(std::io::stdin(), "standard input")?
        } else {
            let file = std::fs::File::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
            read(file, &path.display().to_string())?
        };
        images.extend(listed(&text));
    }
    // Before anything is asked: a list with a mistake in it is not done by half.
    images.iter().try_for_each(|image| reference(image).map(drop))?;
    let mut seen = BTreeSet::new();
    images.retain(|image| seen.insert(image.clone()));
    if images.is_empty() { Err("no image is named".to_owned()) } else { Ok(images) }
}

fn read(from: impl Read, name: &str) -> Result<String, String> {
    let mut text = String::new();
    from.take(LIST_LIMIT).read_to_string(&mut text).map_err(|error| format!("{name}: {error}"))?;
    if text.len() as u64 == LIST_LIMIT {
        return Err(format!("{name}: a list of images has less than {LIST_LIMIT} bytes"));
    }
    Ok(text)
}

/// One image a line; empty lines and `#` comments are skipped.
fn listed(text: &str) -> impl Iterator<Item = String> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or("").trim());
    lines.filter(|line| !line.is_empty()).map(str::to_owned)
}

/// The answers, in the order of the requests, of which some are under way at once.
fn answers(
    place: &Place,
    requests: impl Iterator<Item = Result<Request, Failure>>,
    at_once: usize,
) -> impl Stream<Item = Result<Value, Failure>> {
    stream::iter(requests)
        .map(async move |request: Result<Request, Failure>| body(place.ask(request?).await?))
        .buffered(at_once)
}

/// All answers, each printed when it is there; the first failure ends it.
async fn collect(
    answers: impl Stream<Item = Result<Value, Failure>>,
    bar: &ProgressBar,
    output: Output,
    line: impl Fn(&Value) -> Option<String>,
) -> Result<Vec<Value>, Failure> {
    let mut rows = Vec::new();
    let mut answers = std::pin::pin!(answers);
    while let Some(row) = answers.next().await {
        let row = row.inspect_err(|_| bar.finish_and_clear())?;
        if let (Output::Text, Some(line)) = (output, line(&row)) {
            bar.suspend(|| say(tree::plain(&line)));
        }
        bar.inc(1);
        rows.push(row);
    }
    bar.finish_and_clear();
    Ok(rows)
}

/// Requests to one host are bounded by the registry client.
const VERIFIED_AT_ONCE: usize = 8;
/// Each has the evidence of one image in memory, twice.
const IMPORTED_AT_ONCE: usize = 2;
/// Of a file of images, in bytes: some hundred thousand names.
const LIST_LIMIT: u64 = 16 * 1024 * 1024;
/// A file may be so large whatever `cache.maxSize` says.
const SMALLEST_LIMIT: u64 = 64 * 1024 * 1024;

#[cfg(test)]
#[path = "transfer_tests.rs"]
mod tests;
