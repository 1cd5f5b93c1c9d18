//! (being built)
pub mod audit;
mod flight;
pub mod words;
