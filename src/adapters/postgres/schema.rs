//! The schema: applied at start, by one instance at a time, never to a database that could not keep our data or that
//! holds the tables of another program.

use std::time::{Duration, Instant};

use postgres::GenericClient;

use super::connect::{Cause, Dialer, Failure, Session, WRITE_MS_MAX};
use super::pooler;
use crate::ports::StoreError;

/// What this program writes. A newer database is refused; so are older ones, of before the first release, which lack
/// tables or have other keys.
pub(super) const SCHEMA_VERSION: i32 = 11;
const SCHEMA: &str = include_str!("../../../schema.sql");
/// JSON path syntax, `MERGE`, and what else the schema is tested with.
pub(super) const SERVER_VERSION_MIN: i32 = 150_000;
/// Named so that instances that start together take turns.
const SCHEMA_LOCK: i64 = 0x65_76_74_72_73_63_68_65;

/// Columns of a table `schema_version`. An extension's tables are never ours, nor foreign.
const VERSION_COLUMNS: &str = "SELECT attname::text FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid \
     WHERE relname = 'schema_version' AND relkind = 'r' AND attnum > 0 AND NOT attisdropped \
       AND relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = current_schema())";
/// Ours of before `program` was a column: no other program has these tables.
const IS_OLD: &str = "SELECT count(*) = 3 FROM pg_class WHERE relname IN ('watermark', 'rollup_minute', 'dead_letter') \
     AND relkind = 'r' AND relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = current_schema())";
/// The first relation of a schema, tables first. Indexes and sequences of tables come after their tables.
const FIRST_RELATION: &str = "SELECT relname::text FROM pg_class AS c \
     WHERE relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = current_schema()) \
       AND relkind IN ('r', 'p', 'f', 'v', 'm', 'S', 'c') \
       AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = c.oid AND deptype = 'e') \
     ORDER BY relkind NOT IN ('r', 'p', 'f'), relname COLLATE \"C\" LIMIT 1";

/// Whose a database is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// It is empty.
    Nobody,
    /// Ours, with this version of the schema.
    Us(i32),
    /// Another program's; its first table.
    Another(String),
}

/// Why a database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// It is unreachable or busy: try again.
    #[error("{0}")]
    Retry(String),
    /// The server refuses the URL's user, password or encryption.
    #[error("{0}")]
    Credentials(String),
    /// A person must mend what the line says.
    #[error("{0}")]
    Refused(String),
}

impl From<Failure> for PrepareError {
    fn from(Failure { error, cause }: Failure) -> PrepareError {
        match error {
            StoreError::Retry(text) if cause == Cause::Credentials => PrepareError::Credentials(text),
            StoreError::Retry(text) => PrepareError::Retry(text),
            other => PrepareError::Refused(other.to_string()),
        }
    }
}

/// Makes the database ready, or says in one line why it cannot be. Idempotent; instances may start together.
pub fn prepare(url: &str) -> Result<(), PrepareError> {
    let dialer = Dialer::new(url, 1).map_err(Failure::from)?;
    if pooler::shares_connections(&dialer)? {
        return Err(PrepareError::Refused(pooler::REFUSED.to_owned()));
    }
    let deadline = Instant::now() + Duration::from_millis(WRITE_MS_MAX);
    dialer.dial_writer()?.call(deadline, |session| Ok(apply(session)))?
}

/// Reads whose the database is.
pub(super) fn owner(client: &mut impl GenericClient) -> Result<Owner, postgres::Error> {
    let columns: Vec<String> = client.query(VERSION_COLUMNS, &[])?.iter().map(|row| row.get(0)).collect();
    let has = |name: &str| columns.iter().any(|column| column == name);
    let is_old = columns == ["version"] && client.query_one(IS_OLD, &[])?.get(0);
    if is_old || has("program") && has("version") {
        let version = client.query_one("SELECT coalesce(max(version), 0)::int4 FROM schema_version", &[])?;
        return Ok(Owner::Us(version.get(0)));
    }
    let first = client.query_opt(FIRST_RELATION, &[])?;
    Ok(first.map_or(Owner::Nobody, |row| Owner::Another(row.get(0))))
}

/// Why a database is refused, in one line.
pub fn refusal(owner: &Owner) -> Option<String> {
    match owner {
        Owner::Another(table) => Some(format!(
            "the database holds `{table}`, which is not ours: give the event tracker a database of its own \
             (CREATE DATABASE events)"
        )),
        Owner::Us(found) if *found > SCHEMA_VERSION => Some(format!(
            "the database has schema {found}, this program knows {SCHEMA_VERSION}: start the newer program, or restore \
             a backup made before it ran"
        )),
        Owner::Us(found) if *found < SCHEMA_VERSION => Some(format!(
            "the database has schema {found}, of before the first release: export it with the program that made it, and \
             import that into a new database"
        )),
        Owner::Us(_) | Owner::Nobody => None,
    }
}

fn apply(session: &mut Session) -> Result<(), PrepareError> {
    let failed = |error: postgres::Error| PrepareError::from(Failure::from(error));
    let client = &mut session.client;
    check_server(client)?;
    let mut transaction = client.transaction().map_err(failed)?;
    transaction
        .batch_execute(&format!("SET LOCAL lock_timeout = 20000; SELECT pg_advisory_xact_lock({SCHEMA_LOCK})"))
        .map_err(failed)?;
    let owner = owner(&mut transaction).map_err(failed)?;
    if let Some(why) = refusal(&owner) {
        return Err(PrepareError::Refused(why));
    }
    if owner == Owner::Nobody {
        transaction.batch_execute(SCHEMA).map_err(failed)?;
        let version = "INSERT INTO schema_version (version) VALUES ($1)";
        transaction.execute(version, &[&SCHEMA_VERSION]).map_err(failed)?;
    }
    transaction.commit().map_err(failed)
}

/// It is new enough, its encoding keeps every text, and there is a schema to write to.
fn check_server(client: &mut postgres::Client) -> Result<(), PrepareError> {
    let sql = "SELECT current_setting('server_version_num')::int, current_setting('server_encoding'), \
               current_setting('server_version'), current_schema() IS NOT NULL";
    let row = client.query_one(sql, &[]).map_err(|error| PrepareError::from(Failure::from(error)))?;
    let (version, encoding, version_name): (i32, String, String) = (row.get(0), row.get(1), row.get(2));
    let refused = |text: String| Err(PrepareError::Refused(text));
    if version < SERVER_VERSION_MIN {
        return refused(format!("PostgreSQL {version_name} is too old: upgrade the server to 15 or newer"));
    }
    if encoding != "UTF8" {
        return refused(format!(
            "the database's encoding is {encoding}: make one that keeps every text, \
             CREATE DATABASE events ENCODING 'UTF8' TEMPLATE template0"
        ));
    }
    match row.get(3) {
        true => Ok(()),
        false => refused("no schema of the search_path can be used: GRANT USAGE, CREATE ON SCHEMA public".to_owned()),
    }
}
