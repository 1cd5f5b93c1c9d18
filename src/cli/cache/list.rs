//! `cache list`, and how lists are asked for: a page at a time, each printed before the next is asked for.
//!
//! A list that fails on its way was printed so far; its exit code says that it is not whole, and JSON is not
//! closed. Who reads no further (`head`) ends it.

use std::io::{self, BufWriter, Write};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::place::Place;
use super::{Failure, body, config};
use crate::cache::ImageName;
use crate::cli::args::{CacheScope, Output};
use crate::cli::control::text;
use crate::cli::{Exit, runtime, tree};
use crate::daemon::control::{Request, Response};

/// `pullgate cache list`
pub(super) fn list(scope: &CacheScope) -> Result<Exit, Failure> {
    let config = config(&scope.config)?;
    let place = Place::tended(&config)?;
    let out = BufWriter::new(io::stdout().lock());
    let ask = |after| place.ask(Request::CacheList { after });
    let listed = runtime().map_err(Failure::unknown)?.block_on(list_to(out, scope.output, ask));
    place.close();
    listed.map(|()| Exit::Done)
}

async fn list_to<F: Future<Output = Result<Response, Failure>>>(
    out: impl Write,
    output: Output,
    ask: impl Fn(Option<ImageName>) -> F,
) -> Result<(), Failure> {
    let (mut pages, mut list) = (Pages::default(), List { out, output, rows: 0 });
    let mut written = list.begin();
    while let Some(Items { items }) = pages.next(&ask).await? {
        written = written.and_then(|()| items.iter().try_for_each(|row| list.row(row)));
        if written.is_err() {
            return Ok(());
        }
    }
    // As with every line that is said: nobody is left to hear of it.
    drop(list.end());
    Ok(())
}

#[derive(Deserialize)]
struct Items {
    items: Vec<Value>,
}

struct List<W> {
    out: W,
    output: Output,
    rows: u64,
}

impl<W: Write> List<W> {
    fn begin(&mut self) -> io::Result<()> {
        match self.output {
            Output::Json => write!(self.out, "{{\"schemaVersion\":1,\"items\":["),
            Output::Text => Ok(()),
        }
    }

    fn row(&mut self, row: &Value) -> io::Result<()> {
        self.rows += 1;
        match self.output {
            Output::Json => {
                let between = if self.rows == 1 { "" } else { "," };
                write!(self.out, "{between}{}", tree::shown(row))
            }
            Output::Text => {
                let [image, source, age] = ["image", "source", "ageSeconds"].map(|field| text(row, field));
                writeln!(self.out, "{}", tree::plain(&format!("{image}  {source}  {age} s")))
            }
        }
    }

    fn end(&mut self) -> io::Result<()> {
        if self.output == Output::Json {
            writeln!(self.out, "]}}")?;
        }
        self.out.flush()
    }
}

/// Goes through the pages of a list.
#[derive(Default)]
pub(super) struct Pages {
    after: Option<ImageName>,
    over: bool,
}

impl Pages {
    /// The next page; none after the last.
    pub(super) async fn next<P: DeserializeOwned, F: Future<Output = Result<Response, Failure>>>(
        &mut self,
        ask: impl Fn(Option<ImageName>) -> F,
    ) -> Result<Option<P>, Failure> {
        if self.over {
            return Ok(None);
        }
        let form = |error| {
            Failure::unknown(format_args!("the list has a form that this version does not read: {error}"))
        };
        let mut page = body(ask(self.after.clone()).await?)?;
        let next = page.get_mut("next").map(Value::take).unwrap_or_default();
        let next: Option<ImageName> = serde_json::from_value(next).map_err(form)?;
        if next.is_some() && next <= self.after {
            return Err(Failure::unknown("the list does not go on: its next page is one that was there"));
        }
        self.over = next.is_none();
        self.after = next;
        serde_json::from_value(page).map(Some).map_err(form)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::oci::{Digest, Repository};

    fn image(number: usize) -> ImageName {
        let repository = Repository::parse(&format!("a.test/{number}")).unwrap();
        ImageName { repository, digest: Digest::of(b"image") }
    }

    /// A daemon with so many images, two a page.
    async fn daemon(images: usize, after: Option<ImageName>) -> Result<Response, Failure> {
        let first = (0..images).find(|number| after.as_ref().is_none_or(|after| *after < image(*number)));
        let first = first.unwrap_or(images);
        let numbers: Vec<_> = (first..images).take(2).collect();
        let items = numbers
            .iter()
            .map(|number| json!({ "image": image(*number), "source": "verified", "ageSeconds": 7 }));
        let next = (first + 2 < images).then(|| image(first + 1));
        Ok(Response::good(json!({ "items": items.collect::<Vec<_>>(), "next": next })))
    }

    async fn printed(images: usize, output: Output) -> String {
        let mut out = Vec::new();
        assert!(list_to(&mut out, output, |after| daemon(images, after)).await.is_ok());
        String::from_utf8(out).unwrap()
    }

    #[tokio::test]
    async fn a_list_of_several_pages_is_printed_as_one() {
        for images in [0, 1, 2, 3, 7] {
            let lines: String = (0..images)
                .map(|number| format!("{}  verified  7 s\n", String::from(image(number))))
                .collect();
            assert_eq!(printed(images, Output::Text).await, lines);
            let all: Value = serde_json::from_str(&printed(images, Output::Json).await).unwrap();
            assert_eq!(all["schemaVersion"], 1);
            let names: Vec<_> =
                all["items"].as_array().unwrap().iter().map(|row| row["image"].clone()).collect();
            assert_eq!(names, (0..images).map(|number| json!(image(number))).collect::<Vec<_>>());
        }
    }

    #[tokio::test]
    async fn a_list_that_goes_in_circles_is_given_up() {
        let answer = |_| async { Ok(Response::good(json!({ "items": [], "next": image(1) }))) };
        let mut out = Vec::new();
        let failure = list_to(&mut out, Output::Text, answer).await.unwrap_err();
        assert_eq!(
            (failure.exit, failure.line.as_str()),
            (Exit::Unknown, "the list does not go on: its next page is one that was there")
        );
    }

    #[tokio::test]
    async fn who_reads_no_further_ends_the_list() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let asked = std::cell::Cell::new(0);
        let ask = |after| {
            asked.set(asked.get() + 1);
            daemon(7, after)
        };
        assert!(list_to(Closed, Output::Text, ask).await.is_ok());
        assert_eq!(asked.get(), 1);
    }
}
