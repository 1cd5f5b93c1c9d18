//! What containerd's content store holds of an image: which image ids are those of a digest.
//!
//! An image id is the digest of a configuration, and which of an index's manifests CRI took is its own
//! affair. So the question is not which id an image has, but whether one belongs to it: it does if the
//! manifest of the digest names it, or a manifest that this one lists. Every document is hashed against the
//! digest that names it, bounded, and read as strictly as a registry's; what is not there or cannot be read
//! names nothing.

use containerd_client::services::v1::ReadContentRequest;
use containerd_client::services::v1::content_client::ContentClient;
use http::Uri;
use tonic::Code;

use super::{Calls, Client, ContainerdError, ORIGIN, failed, in_time, namespaced};
use crate::oci::{Digest, MANIFEST_LIMIT, Manifest};

impl Client {
    /// Whether `image_id` is the id of the image that `digest` names, by what is in the content store.
    ///
    /// # Errors
    /// [`ContainerdError::Unavailable`] or [`ContainerdError::Call`].
    pub async fn is_image_id_of(&self, image_id: &str, digest: &Digest) -> Result<bool, ContainerdError> {
        let Ok(id) = image_id.parse::<Digest>() else { return Ok(false) };
        let children = match self.manifest(digest).await? {
            Some(Manifest::Image(image)) => return Ok(image.config.digest == id),
            Some(Manifest::Index(index)) => index.manifests,
            None => return Ok(false),
        };
        // Most of what an index lists was never fetched.
        for child in children.iter().take(CHILDREN) {
            match self.manifest(&child.digest).await? {
                Some(Manifest::Image(image)) if image.config.digest == id => return Ok(true),
                Some(Manifest::Image(_) | Manifest::Index(_)) | None => {}
            }
        }
        Ok(false)
    }

    async fn manifest(&self, digest: &Digest) -> Result<Option<Manifest>, ContainerdError> {
        match in_time(self.read(digest)).await {
            Ok(bytes) => Ok(bytes
                .filter(|bytes| Digest::of(bytes) == *digest)
                .and_then(|bytes| Manifest::parse(None, &bytes).ok())),
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(failed("Content/Read", status)),
        }
    }

    /// Bytes of the content store; none of what is longer than any manifest.
    async fn read(&self, digest: &Digest) -> Result<Option<Vec<u8>>, tonic::Status> {
        let request = ReadContentRequest { digest: digest.to_string(), offset: 0, size: 0 };
        let mut pieces = self.content().read(namespaced(request)).await?.into_inner();
        let mut bytes = Vec::new();
        while let Some(piece) = pieces.message().await? {
            if bytes.len() + piece.data.len() > MANIFEST_LIMIT {
                return Ok(None);
            }
            bytes.extend_from_slice(&piece.data);
        }
        Ok(Some(bytes))
    }

    fn content(&self) -> ContentClient<Calls> {
        ContentClient::with_origin(self.calls.clone(), Uri::from_static(ORIGIN))
    }
}

/// Manifests of one index that are looked for: more than any image has platforms.
const CHILDREN: usize = 100;
