//! containerd's own API: the records that give an image its names.
//!
//! CRI cannot add a name to an image, and a pull by digest adds none but its own, so the tag that the
//! kubelet asks for next is written here (`docs` of containerd: `services/images/v1`). Records live in
//! the namespace `k8s.io`; CRI takes up those with its label from the event stream.
//!
//! A descriptor is always copied from the record that containerd made itself, never synthesised.
//! The connection ([`connection`]) is made at the first call and again after containerd restarted;
//! ImageStatus waits for calls made here, so nothing is between the generated client and it. Every
//! call has a deadline. containerd is trusted; an answer that lacks a field is still an error, not a guess.

pub mod connection;
mod content;

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use containerd_client::services::v1::images_client::ImagesClient;
use containerd_client::services::v1::version_client::VersionClient;
use containerd_client::services::v1::{
    CreateImageRequest, DeleteImageRequest, GetImageRequest, Image, ListImagesRequest, UpdateImageRequest,
};
use containerd_client::types;
use http::Uri;
use hyper::body::Incoming;
use prost_types::FieldMask;
use tonic::body::Body;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Status};

use self::connection::{Connection, ConnectionError};
use crate::oci::{Descriptor, Digest, DigestError};

/// A lazy connection to containerd's API. Clones share it.
#[derive(Debug, Clone)]
pub struct Client {
    calls: Calls,
}

/// What containerd calls itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Such as `v2.1.9`; builds without a version say something else.
    pub version: String,
    /// The commit.
    pub revision: String,
}

/// One image record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRecord {
    /// `name:tag`, `name@digest`, or an image id.
    pub name: String,
    /// What it names.
    pub target: Descriptor,
}

/// What to do where the tag names something else already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// Move it.
    Replace,
    /// Leave it.
    Keep,
}

/// What became of a tag record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TagRecord {
    /// It names the pinned image now.
    Written,
    /// It named the pinned image already.
    Unchanged,
    /// It names something else, and was to be kept.
    Kept(Descriptor),
}

/// Why containerd did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ContainerdError {
    /// containerd cannot be reached.
    #[error("containerd is not available")]
    Unavailable(#[source] Box<Status>),
    /// containerd answered an error.
    #[error("containerd: {call}: {}", source.message())]
    Call {
        /// The method.
        call: &'static str,
        /// The answer.
        source: Box<Status>,
    },
    /// An answer without what it must have.
    #[error("containerd: record `{0}` has no usable target")]
    Target(String),
    /// A target with another digest algorithm.
    #[error("containerd: record `{0}`: {1}")]
    Digest(String, #[source] DigestError),
    /// The record of a pull by digest is not there, or names another digest.
    #[error("containerd: record `{0}` is missing or names another digest")]
    Pinned(String),
    /// Somebody else kept changing the record.
    #[error("containerd: record `{0}` changes all the time")]
    Contended(String),
}

impl Client {
    /// A client of the socket at `socket`; connects at the first call.
    #[must_use]
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        let socket: PathBuf = socket.into();
        Self { calls: Calls(Arc::new(Connection::new(socket.into()))) }
    }

    /// Asks for the version, for the check at start.
    ///
    /// # Errors
    /// [`ContainerdError::Unavailable`] or [`ContainerdError::Call`].
    pub async fn version(&self) -> Result<Version, ContainerdError> {
        let mut client = VersionClient::with_origin(self.calls.clone(), Uri::from_static(ORIGIN));
        let answer =
            in_time(client.version(())).await.map_err(|status| failed("Version", status))?.into_inner();
        Ok(Version { version: answer.version, revision: answer.revision })
    }

    /// What the record `name` names; nothing if there is no such record.
    ///
    /// # Errors
    /// [`ContainerdError`]; never "no record" for a failure.
    pub async fn image_target(&self, name: &str) -> Result<Option<Descriptor>, ContainerdError> {
        match self.record(name).await? {
            Some(image) => target(&image).map(Some),
            None => Ok(None),
        }
    }

    /// Every record whose target has a digest that we read.
    ///
    /// # Errors
    /// [`ContainerdError::Unavailable`] or [`ContainerdError::Call`].
    pub async fn image_records(&self) -> Result<Vec<ImageRecord>, ContainerdError> {
        let answer = in_time(self.images().list(namespaced(ListImagesRequest { filters: Vec::new() })))
            .await
            .map_err(|status| failed("Images/List", status))?;
        let records = answer.into_inner().images.into_iter();
        Ok(records
            .filter_map(|image| Some(ImageRecord { target: target(&image).ok()?, name: image.name }))
            .collect())
    }

    /// Makes the record `tag` name what `pinned` (`name@digest`) names.
    ///
    /// # Errors
    /// [`ContainerdError::Pinned`] unless the record `pinned` is there and names `digest`.
    pub async fn write_tag_record(
        &self,
        tag: &str,
        pinned: &str,
        digest: &Digest,
        existing: Existing,
    ) -> Result<TagRecord, ContainerdError> {
        let (source, mut present) = tokio::try_join!(self.record(pinned), self.record(tag))?;
        let source = source.ok_or_else(|| ContainerdError::Pinned(pinned.to_owned()))?;
        if target(&source)?.digest != *digest {
            return Err(ContainerdError::Pinned(pinned.to_owned()));
        }
        let mut wanted = Image { name: tag.to_owned(), target: source.target, ..Image::default() };
        wanted.labels.insert(MANAGED_LABEL.0.to_owned(), MANAGED_LABEL.1.to_owned());

        for _ in 0..ATTEMPTS {
            let Some(found) = present else {
                match self.create(wanted.clone()).await {
                    Ok(()) => return Ok(TagRecord::Written),
                    Err(status) if status.code() == Code::AlreadyExists => {
                        present = self.record(tag).await?;
                        continue;
                    }
                    Err(status) => return Err(failed("Images/Create", status)),
                }
            };
            let names = target(&found)?;
            if names.digest == *digest {
                return Ok(TagRecord::Unchanged);
            }
            if existing == Existing::Keep {
                return Ok(TagRecord::Kept(names));
            }
            match self.move_target(wanted.clone()).await {
                Ok(()) => return Ok(TagRecord::Written),
                Err(status) if status.code() == Code::NotFound => present = None,
                Err(status) => return Err(failed("Images/Update", status)),
            }
        }
        Err(ContainerdError::Contended(tag.to_owned()))
    }

    /// Removes the record `tag` if it still names `digest`.
    ///
    /// # Errors
    /// [`ContainerdError`]; a record that is gone or names something else is not one.
    pub async fn remove_tag_record(&self, tag: &str, digest: &Digest) -> Result<(), ContainerdError> {
        let Some(found) = self.record(tag).await? else {
            return Ok(());
        };
        if target(&found)?.digest != *digest {
            return Ok(());
        }
        // containerd 2 compares the target once more; 1.7 does not know the field.
        let request = DeleteImageRequest { name: tag.to_owned(), sync: false, target: found.target };
        match in_time(self.images().delete(namespaced(request))).await {
            Ok(_) => Ok(()),
            Err(status) if status.code() == Code::NotFound => Ok(()),
            Err(status) => Err(failed("Images/Delete", status)),
        }
    }

    async fn record(&self, name: &str) -> Result<Option<Image>, ContainerdError> {
        let request = GetImageRequest { name: name.to_owned() };
        match in_time(self.images().get(namespaced(request))).await {
            Ok(answer) => match answer.into_inner().image {
                Some(image) => Ok(Some(image)),
                None => Err(ContainerdError::Target(name.to_owned())),
            },
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(failed("Images/Get", status)),
        }
    }

    async fn create(&self, image: Image) -> Result<(), Status> {
        let request = CreateImageRequest { image: Some(image), source_date_epoch: None };
        in_time(self.images().create(namespaced(request))).await.map(|_| ())
    }

    async fn move_target(&self, image: Image) -> Result<(), Status> {
        let update_mask = Some(FieldMask { paths: vec!["target".to_owned()] });
        let request = UpdateImageRequest { image: Some(image), update_mask, source_date_epoch: None };
        in_time(self.images().update(namespaced(request))).await.map(|_| ())
    }

    fn images(&self) -> ImagesClient<Calls> {
        ImagesClient::with_origin(self.calls.clone(), Uri::from_static(ORIGIN))
            .max_decoding_message_size(ANSWER_LIMIT)
    }
}

/// The connection as the generated clients take it.
#[derive(Debug, Clone)]
struct Calls(Arc<Connection<Body>>);

impl tower::Service<http::Request<Body>> for Calls {
    type Response = http::Response<Incoming>;
    type Error = ConnectionError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, ConnectionError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectionError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let connection = Arc::clone(&self.0);
        Box::pin(async move { connection.send(request).await })
    }
}

/// A call that takes too long fails like one whose connection was lost.
async fn in_time<T>(call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    tokio::time::timeout(CALL_TIMEOUT, call)
        .await
        .unwrap_or_else(|elapsed| Err(Status::from_error(Box::new(elapsed))))
}

fn namespaced<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("containerd-namespace", MetadataValue::from_static("k8s.io"));
    request
}

fn failed(call: &'static str, status: Status) -> ContainerdError {
    // A status that was made of a lost connection or a timeout has a source and any code; one of
    // containerd has none.
    if status.code() == Code::Unavailable || std::error::Error::source(&status).is_some() {
        ContainerdError::Unavailable(Box::new(status))
    } else {
        ContainerdError::Call { call, source: Box::new(status) }
    }
}

fn target(image: &Image) -> Result<Descriptor, ContainerdError> {
    let malformed = || ContainerdError::Target(image.name.clone());
    let types::Descriptor { media_type, digest, size, annotations } =
        image.target.as_ref().ok_or_else(malformed)?;
    Ok(Descriptor {
        media_type: media_type.clone(),
        digest: digest.parse().map_err(|error| ContainerdError::Digest(image.name.clone(), error))?,
        size: u64::try_from(*size).map_err(|_| malformed())?,
        annotations: Some(annotations.clone().into_iter().collect())
            .filter(|map: &std::collections::BTreeMap<_, _>| !map.is_empty()),
    })
}

/// By this label CRI knows its records; it would add it itself, later.
const MANAGED_LABEL: (&str, &str) = ("io.cri-containerd.image", "managed");
/// `localhost` is what grpc-go expects as authority on a unix socket.
const ORIGIN: &str = "http://localhost";
/// For one call on a local socket.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Some thousand records; containerd itself sends at most 16 MiB by default.
const ANSWER_LIMIT: usize = 16 * 1024 * 1024;
/// How often a record may change under our hands before we give up.
const ATTEMPTS: usize = 4;
