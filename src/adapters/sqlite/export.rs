//! A page of an export: rows in the order of time and rowid, which is the order of the index on time.
//!
//! A cursor is the time and the rowid of the last row that was looked at, whether it was asked for or not: so a page is
//! bounded in time where few rows match.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use rusqlite::types::Type;
use rusqlite::{Result, Row, Rows, Transaction, params};
use uuid::Uuid;

use crate::events::{Event, EventType};
use crate::ledger::stats::export::row_bytes;
use crate::limits::{EXPORT_PAGE_BYTES, EXPORT_PAGE_MS, EXPORT_PAGE_ROWS_MAX};
use crate::ports::{ExportCursor, ExportPage, ExportQuery};

const COLUMNS: &str = "rowid, event_time, event_type, event_id, user_id, session_id, component_id, element_id, \
     keyword, post_id, url, referrer, result_count, properties, received_at";
/// Rows between two looks at the clock.
const ROWS_A_LOOK: usize = 256;

/// Reads on until the page is full or its time is over.
pub(super) fn page(
    transaction: &Transaction<'_>,
    query: &ExportQuery,
    after: Option<ExportCursor>,
) -> Result<ExportPage> {
    let until = Instant::now() + Duration::from_millis(EXPORT_PAGE_MS);
    let mut filling = Filling { query, events: Vec::new(), bytes: 0, seen: 0, last: after, until };
    let to = query.to_ms.unwrap_or(i64::MAX);
    let mut from = query.from_ms.unwrap_or(i64::MIN);
    if let Some(after) = after {
        // The rest of that millisecond first: both parts then are ranges of the index.
        let rowid = after.row.map_or(i64::MIN, |row| row as i64);
        let sql = format!("SELECT {COLUMNS} FROM events WHERE event_time = ?1 AND rowid > ?2 ORDER BY rowid");
        let mut statement = transaction.prepare_cached(&sql)?;
        if !filling.take(statement.query(params![after.at, rowid])?)? {
            return Ok(filling.page());
        }
        from = after.at.saturating_add(1);
    }
    let sql =
        format!("SELECT {COLUMNS} FROM events WHERE event_time >= ?1 AND event_time < ?2 ORDER BY event_time, rowid");
    let mut statement = transaction.prepare_cached(&sql)?;
    if filling.take(statement.query(params![from, to])?)? {
        return Ok(ExportPage { events: filling.events, next: None });
    }
    Ok(filling.page())
}

/// A page on its way.
struct Filling<'q> {
    query: &'q ExportQuery,
    events: Vec<Event<'static>>,
    bytes: usize,
    /// Rows that were looked at.
    seen: usize,
    last: Option<ExportCursor>,
    until: Instant,
}

impl Filling<'_> {
    /// Takes rows to their end (true), or until the page is full or its time over.
    fn take(&mut self, mut rows: Rows<'_>) -> Result<bool> {
        while !self.is_over() {
            let Some(row) = rows.next()? else { return Ok(true) };
            self.seen += 1;
            let (rowid, at): (i64, i64) = (row.get(0)?, row.get(1)?);
            self.last = Some(ExportCursor { at, row: Some(rowid as u128), reach_ms: 0, rows_max: 0 });
            let name = row.get_ref(2)?.as_str()?;
            if self.query.event_type.is_none_or(|wanted| wanted.name() == name) {
                let event = event(row, at)?;
                self.bytes += row_bytes(&event);
                self.events.push(event);
            }
        }
        Ok(false)
    }

    fn is_over(&self) -> bool {
        self.events.len() >= EXPORT_PAGE_ROWS_MAX
            || self.bytes >= EXPORT_PAGE_BYTES
            || self.seen > 0 && self.seen.is_multiple_of(ROWS_A_LOOK) && Instant::now() >= self.until
    }

    fn page(self) -> ExportPage {
        ExportPage { events: self.events, next: self.last }
    }
}

fn event(row: &Row<'_>, event_time_ms: i64) -> Result<Event<'static>> {
    let text = |column| row.get::<_, Option<String>>(column).map(|text| text.map(Cow::Owned));
    let unreadable = |column, why: String| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, why.into());
    let name = row.get_ref(2)?.as_str()?;
    let id = row.get_ref(3)?.as_str()?;
    Ok(Event {
        id: Uuid::try_parse(id).map_err(|error| unreadable(3, error.to_string()))?,
        id_from_client: false,
        event_type: EventType::from_name(name).ok_or_else(|| unreadable(2, format!("unknown type of event {name}")))?,
        user_id: text(4)?,
        session_id: text(5)?,
        component_id: row.get(6)?,
        element_id: text(7)?,
        keyword: text(8)?,
        post_id: text(9)?,
        url: text(10)?,
        referrer: text(11)?,
        result_count: row.get(12)?,
        properties: text(13)?,
        event_time_ms,
        received_at_ms: row.get(14)?,
    })
}
