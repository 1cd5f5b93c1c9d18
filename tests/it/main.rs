//! The integration tests, in one binary: linking is the slow part of a small machine's build.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test fails by a panic and says why; helpers of tests are tests too"
)]

mod bad_input;
mod corpus;
mod critest;
mod e2e_apply;
mod e2e_cache;
mod e2e_connections;
mod e2e_faults;
mod e2e_hardship;
mod e2e_hostile;
mod e2e_images;
mod e2e_kit;
mod e2e_life;
mod e2e_logins;
mod e2e_mirrors;
mod e2e_outage;
mod e2e_policy;
mod e2e_pull;
mod e2e_registries;
mod e2e_secrets;
mod e2e_sigstore;
mod e2e_storage;
mod e2e_trust;
mod e2e_verify;
mod fault_matrix;
mod kit;
mod kyverno;
mod layers;
mod reach;
mod relay;
mod rules;
mod scenarios;
mod soak;
mod source_page;
mod trust_tuf;
mod units;
mod verify_bundle;
