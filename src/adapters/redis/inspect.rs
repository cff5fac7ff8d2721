//! What a Redis or Valkey server says about itself: for people who set one up. Writes nothing.

use std::time::{Duration, Instant};

use r2d2::ManageConnection;
use redis::{Cmd, cmd};

use super::connection::{Connector, READER_TIMEOUT, store_error};
use super::{info_field, warnings};
use crate::ports::StoreError;

#[derive(Clone, Debug)]
pub struct Inspection {
    /// `Redis 7.0.15`, `Valkey 8.1.0`; just `Redis` if its user may not ask.
    pub version_name: String,
    /// The server does not let its user run INFO: nothing is known of eviction, cluster mode and replication.
    pub is_info_refused: bool,
    /// What an operator should know: see `RedisLive::examine`.
    pub warnings: Vec<String>,
    pub is_cluster: bool,
    pub is_replica: bool,
    /// Why our scripts would not run, if they would not.
    pub script_error: Option<String>,
    /// The server's clock, milliseconds since 1970, and the time that asking for it took; nothing if it is not told.
    pub clock: Option<(i64, Duration)>,
}

/// Asks. `Retry` if the server does not answer or refuses the connection.
pub fn inspect(url: &str) -> Result<Inspection, StoreError> {
    let client = redis::Client::open(url).map_err(|error| StoreError::Fatal(format!("redis url: {error}")))?;
    let connector = Connector { client, timeout: READER_TIMEOUT };
    let mut wire = connector.connect().map_err(|error| store_error(&error))?;
    let (info, is_info_refused): (String, bool) = match wire.exchange(|connection| cmd("INFO").query(connection)) {
        Ok(info) => (info, false),
        Err(error) if error.code() == Some("NOPERM") => (String::new(), true),
        Err(error) => return Err(store_error(&error)),
    };
    let asked = Instant::now();
    let clock: redis::RedisResult<(i64, i64)> = wire.exchange(|connection| cmd("TIME").query(connection));
    let clock = clock.ok().map(|(seconds, us)| (seconds * 1_000 + us / 1_000, asked.elapsed()));
    let script: Cmd = cmd("EVAL").arg("#!lua flags=no-writes\nreturn 1").arg(0).to_owned();
    let ran: redis::RedisResult<i64> = wire.exchange(|connection| script.query(connection));
    let field = |name| info_field(&info, name);
    let version_name = match field("valkey_version") {
        "" => format!("Redis {}", field("redis_version")).trim_end().to_owned(),
        version => format!("Valkey {version}"),
    };
    Ok(Inspection {
        version_name,
        is_info_refused,
        clock,
        warnings: warnings(&info),
        is_cluster: field("cluster_enabled") == "1",
        is_replica: field("role") == "slave",
        script_error: ran.err().map(|error| error.to_string()),
    })
}
