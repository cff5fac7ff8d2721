//! The ledger, as far as its products agree: what a batch means, what reads answer, and upkeep.
//!
//! [`batch`] is pure. [`stats`] and [`upkeep`] are SQL, written once on [`sql::Sql`]; the adapters of PostgreSQL and SQLite
//! implement it, and own connections, schema, the statements of a batch, search and export.

pub mod batch;
pub mod delta;
pub mod frontier;
pub mod sql;
pub mod stats;
pub mod store;
pub mod upkeep;

/// An hour, in milliseconds.
pub const HOUR_MS: i64 = 3_600_000;
/// A minute, in milliseconds.
pub const MINUTE_MS: i64 = 60_000;
