//! Connections that never wait for ever and never hand one caller's late reply to the next.
//!
//! The client's own r2d2 adapter connects without a time-out, sets none, and takes a connection that timed out in the
//! middle of a reply for sound (it stays "open"): so a connection is wrapped here, and after any I/O error it is gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use redis::{Client, Connection, ErrorKind, RedisError, RedisResult, ServerErrorKind};

use crate::limits::{REDIS_CONNECT_MS_MAX, REDIS_READ_MS_MAX, REDIS_WRITE_MS_MAX};
use crate::ports::StoreError;

const CONNECT_TIMEOUT: Duration = Duration::from_millis(REDIS_CONNECT_MS_MAX);
/// A reader gives up early: its request has 1.5 s.
pub(super) const READER_TIMEOUT: Duration = Duration::from_millis(REDIS_READ_MS_MAX);
/// A batch of thousands of counts, or a piece of a rebuild, on a busy server.
pub(super) const WRITER_TIMEOUT: Duration = Duration::from_millis(REDIS_WRITE_MS_MAX);

pub(super) struct Connector {
    client: Client,
    timeout: Duration,
    /// Grows with each connection that broke: a restarted server broke all that were opened before.
    epoch: Arc<AtomicU64>,
}

pub(super) struct Wire {
    connection: Connection,
    broken: bool,
    born: u64,
    epoch: Arc<AtomicU64>,
}

impl Connector {
    pub(super) fn new(client: Client, timeout: Duration) -> Connector {
        Connector { client, timeout, epoch: Arc::default() }
    }

    pub(super) fn open(&self) -> RedisResult<Wire> {
        let born = self.epoch.load(Ordering::Acquire);
        let connection = self.client.get_connection_with_timeout(CONNECT_TIMEOUT)?;
        connection.set_read_timeout(Some(self.timeout))?;
        connection.set_write_timeout(Some(self.timeout))?;
        Ok(Wire { connection, broken: false, born, epoch: Arc::clone(&self.epoch) })
    }
}

impl Wire {
    /// Runs one exchange. Whatever the server did not answer in full breaks the connection.
    pub(super) fn exchange<T>(&mut self, run: impl FnOnce(&mut Connection) -> RedisResult<T>) -> RedisResult<T> {
        let result = run(&mut self.connection);
        if result.as_ref().is_err_and(|error| !is_answer(error)) {
            self.broken = true;
            self.epoch.fetch_max(self.born + 1, Ordering::AcqRel);
        }
        result
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }
}

impl r2d2::ManageConnection for Connector {
    type Connection = Wire;
    type Error = RedisError;

    fn connect(&self) -> RedisResult<Wire> {
        self.open()
    }

    /// Asked at each check-out: no PING, only whether another connection of its age was found broken since.
    fn is_valid(&self, wire: &mut Wire) -> RedisResult<()> {
        if wire.broken || wire.born < self.epoch.load(Ordering::Acquire) {
            return Err((ErrorKind::Io, "opened before another connection broke").into());
        }
        Ok(())
    }

    fn has_broken(&self, wire: &mut Wire) -> bool {
        wire.broken
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
    // The client has no other name for it.
    let is_missing_database = error.to_string().contains("refused to switch database");
    error.kind() == ErrorKind::AuthenticationFailed
        || matches!(error.code(), Some("NOAUTH" | "WRONGPASS"))
        || is_missing_database
}

/// The server is away, busy, full or not let in to at the moment; waiting, or a person elsewhere, will end it.
fn is_outage(error: &RedisError) -> bool {
    use ServerErrorKind as Server;
    // The error of a pipeline has no code of its own and hides what the server said to its commands.
    if error.code().is_none()
        && let Some(of_commands) = error.clone().into_server_errors()
    {
        return of_commands.iter().any(|(_, error)| is_outage(&RedisError::from(error.clone())));
    }
    match error.kind() {
        ErrorKind::Io | ErrorKind::Parse | ErrorKind::AuthenticationFailed => true,
        ErrorKind::Server(
            Server::BusyLoading
            | Server::TryAgain
            | Server::ClusterDown
            | Server::MasterDown
            | Server::ReadOnly
            | Server::NoScript
            | Server::Moved
            | Server::Ask,
        ) => true,
        ErrorKind::Server(Server::ResponseError) => {
            error.detail().is_some_and(|detail| detail.contains("max number of clients"))
        }
        ErrorKind::Extension => matches!(
            error.code().unwrap_or_default(),
            "OOM" | "BUSY" | "MISCONF" | "NOREPLICAS" | "NOAUTH" | "WRONGPASS" | "DENIED" | "UNKILLABLE"
        ),
        _ => false,
    }
}
