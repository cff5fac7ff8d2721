//! The stores, each behind its port: only here are products known by name.

pub mod memory;
pub mod redis;
