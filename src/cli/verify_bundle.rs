//! `verify-bundle`: one Sigstore bundle against one artifact, through the core that judges images.
//!
//! The arguments and exit codes follow the command protocol of the public sigstore-conformance suite. The identity is
//! compared exactly. Trust is the embedded public good root, the staging one, or a `trusted_root.json`; there
//! is no network. A file is read whole up to [`WHOLE_LIMIT`]; of a larger one only the sha256
//! is known to the core, which Ed25519 and hashes other than sha256 cannot be verified with.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use aws_lc_rs::digest::{Context, SHA256};

use super::args::VerifyBundle;
use super::{Exit, complain, say};
use crate::oci::Digest;
use crate::sigstore::{
    Artifact, Attestor, HashAlgorithm, Identity, IdentitySigner, IdentityText, KeySigner, LogTrust,
    PublicKey, SctTrust, Signer, TrustRoot, verify_artifact,
};
use crate::trust::{Domain, Keeping, Origin};

/// `pullgate verify-bundle`
pub(super) fn run(arguments: &VerifyBundle) -> Exit {
    let (bundle, artifact, attestor) = match prepare(arguments) {
        Ok(prepared) => prepared,
        Err(error) => {
            complain(error);
            return Exit::Usage;
        }
    };
    match verify_artifact(&bundle, &artifact.as_artifact(), &attestor, SystemTime::now()) {
        Ok(verified) => {
            let signer = match verified.proven().signer() {
                Some(_) => arguments.certificate_identity.clone().unwrap_or_default(),
                None => format!("key {}", verified.proven().key_fingerprint()),
            };
            say(format_args!("{}: verified, signed by {signer}", arguments.artifact));
            Exit::Done
        }
        Err(rejection) => {
            complain(format_args!("{}: not verified: {rejection}", arguments.artifact));
            Exit::No
        }
    }
}

fn prepare(arguments: &VerifyBundle) -> Result<(Vec<u8>, Content, Attestor), String> {
    let bundle = read(&arguments.bundle, BUNDLE_LIMIT)?;
    let artifact = Content::open(&arguments.artifact)?;
    let root = trust_root(arguments)?;
    let signer = match (&arguments.key, &arguments.certificate_identity, &arguments.certificate_oidc_issuer) {
        (Some(path), _, _) => {
            let pem = String::from_utf8(read(path, KEY_LIMIT)?)
                .map_err(|_| format!("{}: not a PEM file", path.display()))?;
            let key = PublicKey::from_pem(&pem).map_err(|error| format!("{}: {error}", path.display()))?;
            Signer::Key(KeySigner { key, hash: HashAlgorithm::Sha256 })
        }
        (None, Some(identity), Some(issuer)) => {
            let (subject, issuer) =
                (exactly("--certificate-identity", identity)?, exactly("--certificate-oidc-issuer", issuer)?);
            let text =
                IdentityText { subject_regexp: &subject, issuer_regexp: &issuer, ..IdentityText::default() };
            Signer::Identity(IdentitySigner {
                authorities: root.authorities(),
                identity: Identity::new(&text).map_err(|error| error.to_string())?,
                sct: SctTrust::Required(root.certificate_logs()),
            })
        }
        (None, _, _) => {
            return Err(
                "name who signed: --certificate-identity with --certificate-oidc-issuer, or --key".to_owned()
            );
        }
    };
    let attestor = Attestor {
        signer,
        annotations: std::collections::BTreeMap::new(),
        log: LogTrust::Required(root.logs()),
        timestamps: root.timestamps(),
    };
    Ok((bundle, artifact, attestor))
}

fn trust_root(arguments: &VerifyBundle) -> Result<Arc<TrustRoot>, String> {
    let origin = match (&arguments.trusted_root, arguments.staging) {
        (Some(path), _) => Origin::File(path.clone()),
        (None, true) => return TrustRoot::staging().map(Arc::new).map_err(|error| error.to_string()),
        (None, false) => Origin::PublicGood,
    };
    let domain = Domain::new(origin, Keeping::Nowhere, Vec::new());
    let anchor = domain.root(SystemTime::now()).map_err(|error| error.to_string())?;
    Ok(anchor.root)
}

/// An expression that fits this text and no other.
fn exactly(option: &str, text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err(format!("{option} is empty: an empty text names nobody"));
    }
    Ok(format!("^{}$", regex::escape(text)))
}

/// What the bundle must be about.
enum Content {
    Bytes(Vec<u8>),
    Digest(Digest),
}

impl Content {
    /// A file, or `sha256:…` where no file has that name.
    fn open(artifact: &str) -> Result<Self, String> {
        let failed = |error: std::io::Error| format!("cannot read {artifact}: {error}");
        let mut file = match File::open(artifact) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return match artifact.parse() {
                    Ok(digest) => Ok(Self::Digest(digest)),
                    Err(_) => Err(format!("{artifact} is neither a file nor sha256:… with 64 hex digits")),
                };
            }
            Err(error) => return Err(failed(error)),
        };
        let mut bytes = Vec::new();
        (&mut file).take(WHOLE_LIMIT).read_to_end(&mut bytes).map_err(failed)?;
        let mut context = Context::new(&SHA256);
        context.update(&bytes);
        let mut chunk = vec![0; 64 * 1024];
        let mut whole = true;
        loop {
            let read = file.read(&mut chunk).map_err(failed)?;
            if read == 0 {
                break;
            }
            whole = false;
            context.update(chunk.get(..read).unwrap_or_default());
        }
        if whole {
            return Ok(Self::Bytes(bytes));
        }
        let hash = context.finish().as_ref().try_into().map_err(|_| "sha256 has 32 bytes".to_owned())?;
        Ok(Self::Digest(Digest::from_bytes(hash)))
    }

    fn as_artifact(&self) -> Artifact<'_> {
        match self {
            Self::Bytes(bytes) => Artifact::Bytes(bytes),
            Self::Digest(digest) => Artifact::Digest(*digest),
        }
    }
}

fn read(path: &Path, limit: u64) -> Result<Vec<u8>, String> {
    let failed = |error: std::io::Error| format!("cannot read {}: {error}", path.display());
    let mut bytes = Vec::new();
    File::open(path).map_err(failed)?.take(limit + 1).read_to_end(&mut bytes).map_err(failed)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > limit {
        return Err(format!("{} is larger than {limit} bytes", path.display()));
    }
    Ok(bytes)
}

/// The core's own limits are lower.
const BUNDLE_LIMIT: u64 = 32 << 20;
const KEY_LIMIT: u64 = 64 << 10;
/// Artifacts up to this size are held in memory.
const WHOLE_LIMIT: u64 = 32 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_comes_before_a_digest_of_that_name() {
        let digest = Digest::of(b"x").to_string();
        assert!(matches!(Content::open(&digest), Ok(Content::Digest(found)) if found == Digest::of(b"x")));
        for wrong in ["sha256:12", "sha512:ab", "/nonexistent/file"] {
            let error = Content::open(wrong).err().unwrap();
            assert_eq!(error, format!("{wrong} is neither a file nor sha256:… with 64 hex digits"));
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(&digest);
        std::fs::write(&path, "y").unwrap();
        let found = Content::open(path.to_str().unwrap()).unwrap();
        assert!(matches!(found, Content::Bytes(bytes) if bytes == b"y"));
    }

    #[test]
    fn a_large_file_is_hashed_as_it_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("large");
        let bytes = vec![7; usize::try_from(WHOLE_LIMIT).unwrap() + 70_000];
        std::fs::write(&path, &bytes).unwrap();
        let found = Content::open(path.to_str().unwrap()).unwrap();
        assert!(matches!(found, Content::Digest(digest) if digest == Digest::of(&bytes)));
    }

    #[test]
    fn an_identity_is_compared_exactly() {
        assert_eq!(exactly("-", "a.b*@c").unwrap(), r"^a\.b\*@c$");
        assert!(
            exactly("--certificate-identity", "").unwrap_err().starts_with("--certificate-identity is empty")
        );
    }
}
