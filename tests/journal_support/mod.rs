//! What the journal's crash model is made of: a disk that loses, tears and lies, and who remembers what it was told.

#![allow(dead_code, reason = "each suite uses a part")]

pub(crate) mod disk;
pub(crate) mod oracle;

/// A number from the environment, or what stands in its place.
pub(crate) fn from_environment(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(otherwise)
}
