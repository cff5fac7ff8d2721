//! A page of an export: rows in the order of time and id, slice of time by slice of time.
//!
//! There is no index to read rows in order from, only a BRIN on their time, by partitions of a day. So a page reads a
//! slice of time and sorts it, and the slices adapt: one that filled its page says how dense the rows are, one that
//! came back soon is doubled, one that took long is halved, one that the server gave up on is cut to a part. Stretches
//! without partitions are skipped. Pages cost what their slice costs, wherever in the ledger they are.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use postgres::error::SqlState;
use postgres::{Error, Row};
use uuid::Uuid;

use super::connect::{Failure, Session};
use crate::events::{Event, EventType};
use crate::ledger::stats::export::page_rows;
use crate::limits::{
    EXPORT_FIRST_SLICE_MS, EXPORT_PAGE_MS, EXPORT_PAGE_ROWS_MIN, EXPORT_SLICE_MS, EXPORT_SLICE_MS_MAX,
};
use crate::ports::{ExportCursor, ExportPage, ExportQuery, StoreError};

/// As `place` reads them; the times follow.
const COLUMNS: &str = "event_id, event_type, user_id, session_id, component_id, element_id, keyword, post_id, url, referrer, \
     result_count, properties::text";

/// Past every event: where a timestamp of ours ends too. Times here are microseconds, which is what the server keeps:
/// rows that others wrote have their place.
const END_OF_TIME_US: i64 = 253_402_207_200_000_000;
/// A slice that the server gave up on is cut to this part.
const GIVEN_UP_PART: i64 = 16;

/// The first partition that ends behind `$1`: where it begins and ends, microseconds. What has no such bound (a default
/// partition) is all of time.
const NEXT_PARTITION: &str = "SELECT begins, ends FROM \
     (SELECT coalesce((extract(epoch FROM \
                        substring(bound FROM $$FROM \\('([^']+)'\\)$$)::timestamptz) * 1000000)::int8, 0), \
             coalesce((extract(epoch FROM \
                        substring(bound FROM $$TO \\('([^']+)'\\)$$)::timestamptz) * 1000000)::int8, \
                      253402207200000000) \
      FROM (SELECT pg_get_expr(c.relpartbound, c.oid) AS bound \
            FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid \
            WHERE i.inhparent = 'events'::regclass AND NOT i.inhdetachpending) AS of_partitions) AS p(begins, ends) \
     WHERE ends > $1 ORDER BY begins LIMIT 1";

/// A slice of time, microseconds: from (inclusive, or behind a row of that time) and to (exclusive).
struct Slice {
    from_us: i64,
    behind: Option<Uuid>,
    to_us: i64,
}

/// Reads slices until one has rows, the end is reached or the page's time is over.
pub(super) fn page(
    session: &mut Session,
    query: &ExportQuery,
    after: Option<ExportCursor>,
) -> Result<ExportPage, Failure> {
    let until = Instant::now() + Duration::from_millis(EXPORT_PAGE_MS);
    let end_us = query.to_ms.map_or(END_OF_TIME_US, |ms| ms.saturating_mul(1_000)).min(END_OF_TIME_US);
    let mut cursor = after.unwrap_or(ExportCursor {
        at: query.from_ms.map_or(0, |ms| ms.saturating_mul(1_000)).max(0),
        row: None,
        reach_ms: EXPORT_FIRST_SLICE_MS,
        rows_max: EXPORT_PAGE_ROWS_MIN,
    });
    loop {
        let Some(slice) = next_slice(session, cursor, end_us)? else { return Ok(ExportPage::default()) };
        let begun = Instant::now();
        let events = match read(session, &slice, query.event_type, cursor.rows_max + 1) {
            Ok(rows) => {
                let taken = begun.elapsed();
                let (events, is_full) = whole_keys(session, &slice, query.event_type, rows, cursor.rows_max + 1)?;
                let rows_max =
                    if events.is_empty() { cursor.rows_max } else { page_rows(events.iter().map(|row| &row.event)) };
                cursor = behind(&slice, events.last().filter(|_| is_full), ExportCursor { rows_max, ..cursor }, taken);
                events
            }
            // It asked for too much at once: less of it, and the rest of the page's time is the caller's.
            Err(error) if error.code() == Some(&SqlState::QUERY_CANCELED) && cursor.reach_ms > 1 => {
                cursor.reach_ms = (cursor.reach_ms / GIVEN_UP_PART).max(1);
                return Ok(ExportPage { events: Vec::new(), next: Some(cursor) });
            }
            Err(error) => return Err(error.into()),
        };
        if !events.is_empty() || Instant::now() >= until {
            let events = events.into_iter().map(|row| row.event).collect();
            return Ok(ExportPage { events, next: Some(cursor) });
        }
    }
}

/// What the cursor reaches of the partition that it is in, or of the next one. `None`: there is nothing ahead.
fn next_slice(session: &mut Session, cursor: ExportCursor, end_us: i64) -> Result<Option<Slice>, Failure> {
    if cursor.at >= end_us {
        return Ok(None);
    }
    let statement = session.prepared(NEXT_PARTITION)?;
    let Some(row) = session.client.query_opt(&statement, &[&cursor.at])? else { return Ok(None) };
    let (begins_us, ends_us): (i64, i64) = (row.get(0), row.get(1));
    let (from_us, behind) = match cursor.row {
        Some(id) if cursor.at >= begins_us => (cursor.at, Some(Uuid::from_u128(id))),
        _ => (cursor.at.max(begins_us), None),
    };
    let to_us = from_us.saturating_add(cursor.reach_ms * 1_000).min(ends_us).min(end_us);
    Ok((from_us < end_us).then_some(Slice { from_us, behind, to_us }))
}

/// A row and its place in the order.
struct Placed {
    at_us: i64,
    event: Event<'static>,
}

impl Placed {
    fn key(&self) -> (i64, Uuid) {
        (self.at_us, self.event.id)
    }
}

/// The times are ours and stand in the text: so every slice is planned for itself, with its partition alone.
fn read(session: &mut Session, slice: &Slice, kind: Option<EventType>, rows_max: usize) -> Result<Vec<Row>, Error> {
    let (from, to) = (literal(slice.from_us), literal(slice.to_us));
    let behind =
        slice.behind.map_or(String::new(), |id| format!("AND (event_time, event_id) > ({from}, '{id}'::uuid)"));
    let kind = kind.map_or(String::new(), |kind| format!("AND event_type = '{}'", kind.name()));
    let sql = format!(
        "SELECT {COLUMNS}, (extract(epoch FROM event_time) * 1000000)::int8, \
                (extract(epoch FROM received_at) * 1000000)::int8 \
         FROM events WHERE event_time >= {from} AND event_time < {to} {behind} {kind} \
         ORDER BY event_time, event_id LIMIT {rows_max}"
    );
    session.client.query(&sql, &[])
}

fn literal(us: i64) -> String {
    format!("'{}'::timestamptz", Timestamp::from_microsecond(us).unwrap_or(Timestamp::MAX))
}

/// The rows of a page, and whether there are more in the slice; `rows` are up to one more than a page. Rows of one time
/// and one id (sent again after a day) have no order of their own, so a page never ends between two of them: what its
/// surplus row shares with the ones before waits for the next page.
fn whole_keys(
    session: &mut Session,
    slice: &Slice,
    kind: Option<EventType>,
    mut rows: Vec<Row>,
    mut rows_max: usize,
) -> Result<(Vec<Placed>, bool), Failure> {
    loop {
        let is_full = rows.len() >= rows_max;
        let mut placed = rows.iter().map(place).collect::<Result<Vec<_>, _>>()?;
        let Some(surplus) = placed.last().filter(|_| is_full).map(Placed::key) else { return Ok((placed, false)) };
        placed.truncate(placed.partition_point(|row| row.key() < surplus));
        if !placed.is_empty() {
            return Ok((placed, true));
        }
        rows_max *= 2;
        rows = read(session, slice, kind, rows_max)?;
    }
}

/// Where to go on, and how far to reach; `last` is the last row of a page that was full.
fn behind(slice: &Slice, last: Option<&Placed>, before: ExportCursor, taken: Duration) -> ExportCursor {
    if let Some(last) = last {
        // As dense as this: the next page is about as long.
        let reach_ms = ((last.at_us - slice.from_us) / 1_000).clamp(1, EXPORT_SLICE_MS_MAX);
        return ExportCursor { at: last.at_us, row: Some(last.event.id.as_u128()), reach_ms, ..before };
    }
    let aim = Duration::from_millis(EXPORT_SLICE_MS);
    let reach_ms = match taken {
        long if long > aim * 2 => before.reach_ms / 2,
        short if short < aim => before.reach_ms * 2,
        _ => before.reach_ms,
    };
    ExportCursor { at: slice.to_us, row: None, reach_ms: reach_ms.clamp(1, EXPORT_SLICE_MS_MAX), ..before }
}

fn place(row: &Row) -> Result<Placed, StoreError> {
    let text = |column: usize| row.get::<_, Option<String>>(column).map(Into::into);
    let name: &str = row.get(1);
    let event_type = EventType::from_name(name)
        .ok_or_else(|| StoreError::Fatal(format!("PostgreSQL: a row of an unknown type of event, {name}")))?;
    let at_us: i64 = row.get(12);
    let event = Event {
        id: row.get(0),
        id_from_client: false,
        event_type,
        user_id: text(2),
        session_id: text(3),
        component_id: row.get(4),
        element_id: text(5),
        keyword: text(6),
        post_id: text(7),
        url: text(8),
        referrer: text(9),
        result_count: row.get(10),
        properties: text(11),
        event_time_ms: at_us.div_euclid(1_000),
        received_at_ms: row.get::<_, i64>(13).div_euclid(1_000),
    };
    Ok(Placed { at_us, event })
}
