//! Connections that never wait for ever and never hand one caller's late reply to the next.
//!
//! The client's own r2d2 adapter sets no time-out and reuses a connection that timed out within a
//! reply, so a connection is wrapped here: after any I/O error the next exchange opens another one.

use std::time::Duration;

use redis::{Client, Cmd, Connection, ErrorKind, FromRedisValue, RedisError, RedisResult};

use crate::limits::{REDIS_CONNECT_MS_MAX, REDIS_READ_MS_MAX, REDIS_WRITE_MS_MAX};
use crate::ports::StoreError;

const CONNECT_TIMEOUT: Duration = Duration::from_millis(REDIS_CONNECT_MS_MAX);
/// A reader gives up early: its request has 1.5 s.
pub(super) const READER_TIMEOUT: Duration = Duration::from_millis(REDIS_READ_MS_MAX);
/// A batch of thousands of counts, or a piece of a rebuild, on a busy server.
pub(super) const WRITER_TIMEOUT: Duration = Duration::from_millis(REDIS_WRITE_MS_MAX);

#[derive(Clone)]
pub(super) struct Connector {
    pub(super) client: Client,
    pub(super) timeout: Duration,
}

pub(super) struct Wire {
    connector: Connector,
    connection: Option<Connection>,
}

impl Connector {
    /// A connection that is opened when it is first needed.
    pub(super) fn wire(&self) -> Wire {
        Wire { connector: self.clone(), connection: None }
    }

    fn open(&self, connect_timeout: Duration) -> RedisResult<Connection> {
        let connection = self.client.get_connection_with_timeout(connect_timeout)?;
        connection.set_read_timeout(Some(self.timeout))?;
        connection.set_write_timeout(Some(self.timeout))?;
        Ok(connection)
    }
}

impl Wire {
    /// Runs one exchange. Whatever the server did not answer in full breaks the connection.
    pub(super) fn exchange<T>(&mut self, run: impl FnOnce(&mut Connection) -> RedisResult<T>) -> RedisResult<T> {
        let connect_timeout = CONNECT_TIMEOUT.min(self.connector.timeout);
        let mut connection = self.connection.take().map_or_else(|| self.connector.open(connect_timeout), Ok)?;
        let result = run(&mut connection);
        if result.as_ref().err().is_none_or(is_answer) {
            self.connection = Some(connection);
        }
        result
    }

    /// Runs one command.
    pub(super) fn query<T: FromRedisValue>(&mut self, command: &Cmd) -> Result<T, StoreError> {
        self.exchange(|connection| command.query(connection)).map_err(|error| store_error(&error))
    }

    pub(super) fn is_broken(&self) -> bool {
        self.connection.is_none()
    }
}

/// The pool opens connections on threads of its own, and asks nothing at a check-out.
impl r2d2::ManageConnection for Connector {
    type Connection = Wire;
    type Error = RedisError;

    fn connect(&self) -> RedisResult<Wire> {
        Ok(Wire { connector: self.clone(), connection: Some(self.open(CONNECT_TIMEOUT)?) })
    }

    fn is_valid(&self, _: &mut Wire) -> RedisResult<()> {
        Ok(())
    }

    fn has_broken(&self, wire: &mut Wire) -> bool {
        wire.is_broken()
    }
}

/// The server said it, in full: the connection is in step.
fn is_answer(error: &RedisError) -> bool {
    matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension | ErrorKind::UnexpectedReturnType)
}

pub(super) fn store_error(error: &RedisError) -> StoreError {
    let message = format!("redis: {error}");
    if is_outage(error) { StoreError::Retry(message) } else { StoreError::Fatal(message) }
}

/// The server answered, and refused the user, the password or the number of the database.
pub(super) fn is_refusal(error: &RedisError) -> bool {
    error.kind() == ErrorKind::AuthenticationFailed
        || matches!(error.code(), Some("NOAUTH" | "WRONGPASS"))
        // The client has no other name for it.
        || error.to_string().contains("refused to switch database")
}

/// What servers say that are busy, full, failing over or closed to us: waiting, or a person elsewhere, will end it.
const OUTAGES: [&str; 16] = [
    "LOADING",
    "TRYAGAIN",
    "CLUSTERDOWN",
    "MASTERDOWN",
    "READONLY",
    "NOSCRIPT",
    "MOVED",
    "ASK",
    "OOM",
    "BUSY",
    "MISCONF",
    "NOREPLICAS",
    "NOAUTH",
    "WRONGPASS",
    "DENIED",
    "UNKILLABLE",
];

fn is_outage(error: &RedisError) -> bool {
    // The error of a pipeline has no code of its own and hides what the server said to its commands.
    if error.code().is_none()
        && let Some(of_commands) = error.clone().into_server_errors()
    {
        return of_commands.iter().any(|(_, error)| is_outage(&RedisError::from(error.clone())));
    }
    matches!(error.kind(), ErrorKind::Io | ErrorKind::Parse | ErrorKind::AuthenticationFailed)
        || error.code().is_some_and(|code| OUTAGES.contains(&code))
        || error.detail().is_some_and(|detail| detail.contains("max number of clients"))
}
