//! One module a product: how the ports are kept with PostgreSQL and with SQLite.

pub mod postgres;
pub mod sqlite;
