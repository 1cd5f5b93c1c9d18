//! pullgate verifies every container image at pull time, between the kubelet and containerd.
//!
//! One pull, in one direction:
//!
//! ```text
//! kubelet -> cri (frame, pull_image) -> admission -> policy (which entries apply)
//!                                          |  resolve the tag once   (registry)
//!                                          |  verdicts still valid?  (cache)
//!                                          |  evidence: found, absent or unreachable
//!                                          |  verify                 (sigstore)
//!                                          v  decide                 (policy::evaluate)
//!                                       Permit -> cri forwards `repo@digest` -> containerd
//! ```
//!
//! Nothing reaches containerd's PullImage without a [`policy::evaluate::Permit`], and only
//! `policy::evaluate` can make one. Layers import downwards only (`tests/it/layers.rs` keeps it so):
//!
//! | layer | modules | does I/O |
//! |---|---|---|
//! | 7 | `fuzz` (tests only) | no |
//! | 6 | `main`, [`cli`] | yes |
//! | 5 | [`daemon`], [`config`] | yes |
//! | 4 | [`cri`] | yes |
//! | 3 | [`admission`], [`containerd`] | yes |
//! | 2 | [`registry`], [`cache`], [`trust`] | yes |
//! | 2 | [`policy`] | no |
//! | 1 | [`sigstore`] | no |
//! | 0 | [`oci`], [`outcome`] | no |
//!
//! The modules without I/O take time, keys and trust roots as arguments and build without the
//! feature `node`. Start reading at [`admission`]: it tells the whole story of one pull in order.

#[cfg(feature = "node")]
pub mod admission;
#[cfg(feature = "node")]
pub mod cache;
#[cfg(feature = "node")]
pub mod cli;
#[cfg(feature = "node")]
pub mod config;
#[cfg(feature = "node")]
pub mod containerd;
#[cfg(feature = "node")]
pub mod cri;
#[cfg(feature = "node")]
pub mod daemon;
#[cfg(feature = "node")]
pub mod registry;
#[cfg(feature = "node")]
pub mod trust;

#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
pub mod oci;
pub mod outcome;
pub mod policy;
pub mod sigstore;
