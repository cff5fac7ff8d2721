//! Detects a pooler that hands out server connections by transaction or by statement.
//!
//! Behind one, a session's settings, prepared statements and locks belong to whichever server connection comes next.
//! The test is the property itself, so it knows no product: one session marks itself, another one opens a transaction.
//! A pooler then either gives the marked connection to the second session, or another connection to the first.

use std::time::{Duration, Instant};

use postgres::SimpleQueryMessage;
use uuid::Uuid;

use super::connect::{Dialer, Failure, Link, WRITE_MS_MAX};
use crate::limits::POSTGRES_POOLER_ROUNDS;

/// One line for people.
pub(super) const REFUSED: &str = "a pooler (such as PgBouncer) between us and the server shares connections by \
     transaction: point DATABASE_URL at the server, or use pool_mode = session";
const SEEN: &str = "SELECT coalesce(current_setting('event_tracker.session', true), '')";

/// True if sessions share server connections. Other clients of a pooler may hide it from one round, hardly from several.
pub(super) fn shares_connections(dialer: &Dialer) -> Result<bool, Failure> {
    let (mut first, mut second) = (dialer.dial_writer()?, dialer.dial_writer()?);
    for _ in 0..POSTGRES_POOLER_ROUNDS {
        let mark = Uuid::new_v4().to_string();
        ask(&mut first, format!("SET event_tracker.session = '{mark}'"))?;
        let mark = Some(mark);
        // Looked at first: a pooler with a single connection does not answer the first session now.
        let seen_by_second = ask(&mut second, format!("BEGIN; {SEEN}"))?;
        if seen_by_second.is_none() || seen_by_second == mark || ask(&mut first, SEEN.to_owned())? != mark {
            return Ok(true);
        }
        ask(&mut second, "ROLLBACK".to_owned())?;
    }
    Ok(false)
}

/// The last value of the answer. `None`: transactions are refused, as a pooler does that shares by statement.
fn ask(link: &mut Link, sql: String) -> Result<Option<String>, Failure> {
    const PROTOCOL_VIOLATION: &str = "08P01";
    let deadline = Instant::now() + Duration::from_millis(WRITE_MS_MAX);
    link.call(deadline, move |session| match session.client.simple_query(&sql) {
        Ok(messages) => Ok(Some(last_value(&messages))),
        Err(error) if error.code().is_some_and(|code| code.code() == PROTOCOL_VIOLATION) => Ok(None),
        Err(error) => Err(error.into()),
    })
}

fn last_value(messages: &[SimpleQueryMessage]) -> String {
    let value = |message: &SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    };
    messages.iter().rev().find_map(value).unwrap_or_default()
}
