//! What a PostgreSQL server says about itself: for people who set one up. Reads only.

use std::time::{Duration, Instant};

use super::connect::{Dialer, Session, WRITE_MS_MAX};
use super::pooler;
use super::schema::{Owner, SCHEMA_VERSION, SERVER_VERSION_MIN, owner};
use crate::ports::StoreError;

/// Facts, as they were read.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// As `150004`, and as people write it.
    pub version: i32,
    pub version_name: String,
    pub database: String,
    pub encoding: String,
    pub owner: Owner,
    /// A table `events` is there and belongs to a role that we may act for.
    pub may_alter: bool,
    /// We may create tables in the current schema.
    pub may_create: bool,
    pub is_standby: bool,
    pub fsync: bool,
    pub full_page_writes: bool,
    pub synchronous_commit: String,
    /// Connections that a role like ours may have, and those that all have now, this one excepted.
    pub connections_max: i64,
    pub connections_now: i64,
    /// The server's clock, milliseconds since 1970, and what asking for it took.
    pub clock_ms: i64,
    pub round_trip: Duration,
}

/// The schema that this program writes.
pub const KNOWN_SCHEMA: i32 = SCHEMA_VERSION;
/// The oldest server that it runs on, as [`Inspection::version`].
pub const OLDEST_SERVER: i32 = SERVER_VERSION_MIN;

const FACTS: &str = "SELECT current_setting('server_version_num')::int, current_setting('server_version'), \
     current_database()::text, current_setting('server_encoding'), \
     coalesce(has_schema_privilege(current_schema(), 'CREATE'), false), \
     coalesce((SELECT pg_has_role(relowner, 'USAGE') FROM pg_class \
               WHERE oid = to_regclass('events')), false), \
     pg_is_in_recovery(), current_setting('fsync')::bool, current_setting('full_page_writes')::bool, \
     current_setting('synchronous_commit'), \
     current_setting('max_connections')::int8 - current_setting('superuser_reserved_connections')::int8 \
       - coalesce(current_setting('reserved_connections', true)::int8, 0), \
     (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid())";

/// Asks. `Retry` if the server does not answer or refuses the connection; `Fatal` behind a pooler that shares connections.
pub fn inspect(url: &str) -> Result<Inspection, StoreError> {
    let dialer = Dialer::new(url, 1)?;
    if pooler::shares_connections(&dialer).map_err(|failure| failure.error)? {
        return Err(StoreError::Fatal(pooler::REFUSED.to_owned()));
    }
    let mut link = dialer.dial_writer().map_err(|failure| failure.error)?;
    let deadline = Instant::now() + Duration::from_millis(WRITE_MS_MAX);
    let facts = link.call(deadline, |session: &mut Session| {
        let client = &mut session.client;
        let row = client.query_one(FACTS, &[])?;
        let owner = owner(client)?;
        let asked = Instant::now();
        let clock = client.query_one("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::int8", &[])?;
        Ok(Inspection {
            version: row.get(0),
            version_name: row.get(1),
            database: row.get(2),
            encoding: row.get(3),
            may_create: row.get(4),
            may_alter: row.get(5),
            is_standby: row.get(6),
            fsync: row.get(7),
            full_page_writes: row.get(8),
            synchronous_commit: row.get(9),
            connections_max: row.get(10),
            connections_now: row.get(11),
            owner,
            clock_ms: clock.get(0),
            round_trip: asked.elapsed(),
        })
    });
    facts.map_err(|failure| failure.error)
}
