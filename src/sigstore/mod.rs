//! (being built)

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One signature as stored, unverified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SignatureEvidence {
    /// One layer of a `.sig` manifest: exact payload bytes and layer annotations.
    CosignLayer {
        /// The payload as stored.
        payload: Vec<u8>,
        /// The annotations of the layer.
        annotations: BTreeMap<String, String>,
    },
    /// One Sigstore bundle.
    Bundle {
        /// The JSON as stored.
        json: Vec<u8>,
    },
}
