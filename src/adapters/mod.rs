//! Stores: one module a product, each behind a port.

pub mod memory;
pub mod memory_cache;
pub mod postgres;
pub mod redis;
pub mod sqlite;
