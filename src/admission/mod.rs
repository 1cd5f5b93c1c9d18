//! (being built)
pub mod audit;
mod flight;
mod guard;
pub mod words;
