//! What a Redis or Valkey server says about itself: for people who set one up. Writes nothing.

use redis::{Cmd, cmd};

use super::connection::{Connector, READER_TIMEOUT, store_error};
use super::warnings;
use crate::ports::StoreError;

/// Facts, as they were read.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// `Redis 7.0.15`, `Valkey 8.1.0`.
    pub version_name: String,
    /// What an operator should know: see `LiveStore::warnings`.
    pub warnings: Vec<String>,
    pub is_cluster: bool,
    pub is_replica: bool,
    /// Why our scripts would not run, if they would not.
    pub script_error: Option<String>,
}

/// Asks. `Retry` where the server does not answer or lets nobody in.
pub fn inspect(url: &str) -> Result<Inspection, StoreError> {
    let client = redis::Client::open(url).map_err(|error| StoreError::Fatal(format!("redis url: {error}")))?;
    let mut wire = Connector::new(client, READER_TIMEOUT).open().map_err(|error| store_error(&error))?;
    let info: String =
        wire.exchange(|connection| cmd("INFO").query(connection)).map_err(|error| store_error(&error))?;
    let script: Cmd = cmd("EVAL").arg("#!lua flags=no-writes\nreturn 1").arg(0).to_owned();
    let ran: redis::RedisResult<i64> = wire.exchange(|connection| script.query(connection));
    let field =
        |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap_or("").trim();
    let version_name = match field("valkey_version") {
        "" => format!("Redis {}", field("redis_version")),
        version => format!("Valkey {version}"),
    };
    Ok(Inspection {
        version_name,
        warnings: warnings(&info),
        is_cluster: field("cluster_enabled") == "1",
        is_replica: field("role") == "slave",
        script_error: ran.err().map(|error| error.to_string()),
    })
}
