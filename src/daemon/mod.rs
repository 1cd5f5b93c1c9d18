//! (being built)
pub mod control;
