//! Conditions of Kyverno policies: how a key and a value compare.

mod membership;
pub(super) mod operator;

#[cfg(test)]
mod membership_tests;
#[cfg(test)]
mod operator_properties;
#[cfg(test)]
mod operator_tests;
