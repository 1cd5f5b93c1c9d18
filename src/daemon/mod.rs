//! (being built)
pub mod control;
pub mod logging;
pub mod metrics;
