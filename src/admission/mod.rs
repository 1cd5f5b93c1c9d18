//! (being built)
pub mod audit;
mod flight;
