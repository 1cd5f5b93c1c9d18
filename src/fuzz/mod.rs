//! Fuzz targets: one for every parser of bytes from outside.
//!
//! A target is a function beside its parser, in the `fuzz` module of that layer. It reads the bytes
//! with the real parser, fails by a panic if something does not hold that must hold of all bytes, and
//! says [`None`] where the parser refuses. What must hold: no panic; what is printed reads the same
//! again; two readings of one text agree; nothing verifies that nobody signed. The keys of the
//! signatures in the seeds were thrown away, so whatever verifies must be among what they signed.
//!
//! The targets run in two ways, both over the seeds in `fuzz/seeds/<target>`:
//!
//! * as unit tests, over each seed and a fixed number of mutations of it (`tests`);
//! * under libFuzzer, guided by coverage, without end: `make fuzz`, the binaries in `fuzz/src/bin`.
//!
//! A new target is a function, a line in [`TARGETS`], a binary like the others and a folder with at
//! least one seed; a test says which of them is missing.

#[cfg(test)]
mod mutation;
#[cfg(test)]
mod tests;

#[cfg(feature = "node")]
use crate::{cache, config, cri, registry};
use crate::{oci, policy, sigstore};

/// Reads bytes with a parser; none where it refuses them. Panics where it is wrong.
pub type Target = fn(&[u8]) -> Option<()>;

/// Every target by its name: that of its binary, and of its folder of seeds.
pub const TARGETS: &[(&str, Target)] = &[
    ("approved", policy::fuzz::approved),
    ("attestation", sigstore::fuzz::attestation),
    ("bundle", sigstore::fuzz::bundle),
    ("certificate", sigstore::fuzz::certificate),
    ("checkpoint", sigstore::fuzz::checkpoint),
    ("condition", policy::fuzz::condition),
    ("inclusion-proof", sigstore::fuzz::inclusion_proof),
    ("jmespath", policy::fuzz::jmespath),
    ("json", sigstore::fuzz::json),
    ("log-annotation", sigstore::fuzz::log_annotation),
    ("log-body", sigstore::fuzz::log_body),
    ("log-entry", sigstore::fuzz::log_entry),
    ("manifest", oci::fuzz::manifest),
    ("policy", policy::fuzz::policy),
    ("public-key", sigstore::fuzz::public_key),
    ("reference", oci::fuzz::reference),
    ("resources", policy::fuzz::resources),
    ("scalar", policy::fuzz::scalar),
    ("sct", sigstore::fuzz::sct),
    ("signature", sigstore::fuzz::signature),
    ("simple-signing", sigstore::fuzz::simple_signing),
    ("statement", sigstore::fuzz::statement),
    ("timestamp", sigstore::fuzz::timestamp),
    ("trust-root", sigstore::fuzz::trust_root),
    ("wildcard", oci::fuzz::wildcard),
    #[cfg(feature = "node")]
    ("cache-archive", cache::fuzz::cache_archive),
    #[cfg(feature = "node")]
    ("cache-export", cache::fuzz::cache_export),
    #[cfg(feature = "node")]
    ("cache-record", cache::fuzz::cache_record),
    #[cfg(feature = "node")]
    ("challenge", registry::fuzz::challenge),
    #[cfg(feature = "node")]
    ("config", config::fuzz::config),
    #[cfg(feature = "node")]
    ("docker-config", registry::fuzz::docker_config),
    #[cfg(feature = "node")]
    ("frame", cri::fuzz::frame),
    #[cfg(feature = "node")]
    ("hosts", registry::fuzz::hosts),
    #[cfg(feature = "node")]
    ("image-status", cri::fuzz::image_status),
    #[cfg(feature = "node")]
    ("log-answer", registry::fuzz::log_answer),
    #[cfg(feature = "node")]
    ("next-page", registry::fuzz::next_page),
    #[cfg(feature = "node")]
    ("pull-image", cri::fuzz::pull_image),
    #[cfg(feature = "node")]
    ("referrers", registry::fuzz::referrers),
    #[cfg(feature = "node")]
    ("registry-error", registry::fuzz::registry_error),
];

/// Runs one target.
///
/// # Panics
/// Where the parser is wrong, and for a name that is not in [`TARGETS`].
pub fn run(name: &str, data: &[u8]) {
    let target = TARGETS.iter().find(|(known, _)| *known == name);
    let (_, read) = target.unwrap_or_else(|| panic!("no fuzz target `{name}` in TARGETS"));
    read(data);
}
