//! The schema: applied at start, by one instance at a time, never to a database that could not keep our data.

use std::time::{Duration, Instant};

use super::WRITE_MS_MAX;
use super::connect::{Dialer, Failure, Session};
use crate::ports::StoreError;

/// What this program writes. A newer database is refused; so are older ones, of before the first release, which lack
/// tables or have other keys.
pub(super) const SCHEMA_VERSION: i32 = 8;
const SCHEMA: &str = include_str!("../../../schema.sql");
/// JSON path syntax, `MERGE`, and what else the schema is tested with.
pub(super) const SERVER_VERSION_MIN: i32 = 150_000;
/// Named so that instances that start together take turns.
const SCHEMA_LOCK: i64 = 0x65_76_74_72_73_63_68_65;

/// Why a database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// It is away or busy: try again.
    #[error("{0}")]
    Retry(String),
    /// A person must mend what the line says.
    #[error("{0}")]
    Refused(String),
}

impl From<StoreError> for PrepareError {
    fn from(error: StoreError) -> PrepareError {
        match error {
            StoreError::Retry(text) => PrepareError::Retry(text),
            other => PrepareError::Refused(other.to_string()),
        }
    }
}

/// Makes the database ready, or says in one line why it cannot be. Idempotent; instances may start together.
pub fn prepare(url: &str) -> Result<(), PrepareError> {
    let mut link = Dialer::new(url, 1)?.dial_writer()?;
    let deadline = Instant::now() + Duration::from_millis(WRITE_MS_MAX);
    match link.call(deadline, |session| Ok(apply(session))) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(refused_or_failed)) => Err(refused_or_failed),
        Err(failure) => Err(failure.error.into()),
    }
}

fn apply(session: &mut Session) -> Result<(), PrepareError> {
    let failed = |error: postgres::Error| PrepareError::from(Failure::from(error).error);
    let client = &mut session.client;
    let row = client
        .query_one(
            "SELECT current_setting('server_version_num')::int, current_setting('server_encoding'), \
                    current_setting('server_version')",
            &[],
        )
        .map_err(failed)?;
    let (version, encoding, version_name): (i32, String, String) = (row.get(0), row.get(1), row.get(2));
    if version < SERVER_VERSION_MIN {
        let text = format!("PostgreSQL {version_name} is too old: upgrade the server to 15 or newer");
        return Err(PrepareError::Refused(text));
    }
    if encoding != "UTF8" {
        return Err(PrepareError::Refused(format!(
            "the database's encoding is {encoding}: make one that keeps every text, \
             CREATE DATABASE events ENCODING 'UTF8' TEMPLATE template0"
        )));
    }
    let mut transaction = client.transaction().map_err(failed)?;
    transaction
        .batch_execute(&format!("SET LOCAL lock_timeout = 20000; SELECT pg_advisory_xact_lock({SCHEMA_LOCK})"))
        .map_err(failed)?;
    let known: bool =
        transaction.query_one("SELECT EXISTS (SELECT FROM pg_tables WHERE tablename = 'schema_version' AND schemaname = current_schema())", &[]).map_err(failed)?.get(0);
    let found: Option<i32> = match known {
        true => transaction.query_one("SELECT max(version) FROM schema_version", &[]).map_err(failed)?.get(0),
        false => None,
    };
    if let Some(found) = found.filter(|found| *found > SCHEMA_VERSION) {
        return Err(PrepareError::Refused(format!(
            "the database has schema {found}, this program knows {SCHEMA_VERSION}: start the newer program, or restore \
             a backup made before it ran"
        )));
    }
    if let Some(found) = found.filter(|found| *found < SCHEMA_VERSION) {
        return Err(PrepareError::Refused(format!(
            "the database has schema {found}, of before the first release: export it with the program that made it, and \
             import that into a new database"
        )));
    }
    if found != Some(SCHEMA_VERSION) {
        transaction.batch_execute(SCHEMA).map_err(failed)?;
        transaction.execute("INSERT INTO schema_version VALUES ($1)", &[&SCHEMA_VERSION]).map_err(failed)?;
    }
    transaction.commit().map_err(failed)
}
