//! `/api/statistics/rankings`: exact lists over any range of time, from the ledger, page by page.
//!
//! A cursor names the list, its range, and the last row that was answered: the next page goes on behind that row by
//! count and name, whatever was counted meanwhile. It is opaque to clients and holds nothing that they could not ask
//! for themselves.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use super::answer::{self, Answered, Failure};
use super::cached::{from_ledger, keep, read_failed, unwritable};
use super::lists::{Item, Named, list_key};
use super::query::{Query, TIME_MS_MAX, read_cursor, write_cursor};
use super::state::Api;
use super::wire::Rejection;
use crate::app::App;
use crate::app::reads::Source;
use crate::cache::{Fill, FillError, Filled};
use crate::events::Dimension;
use crate::http::{Exchange, Request};
use crate::limits::LIST_ROWS_MAX;
use crate::ports::{Ranked, RankingQuery};

/// Where nothing is said a ranking is about this much of the past.
const DEFAULT_MS: i64 = 86_400_000;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Ranking<'a> {
    from: String,
    to: String,
    as_of: Option<String>,
    source: &'static str,
    stale: bool,
    items: &'a RawValue,
    next: Option<&'a str>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Cursor {
    version: u8,
    /// What is summed: a cursor of one list is none of another.
    list: String,
    from_ms: i64,
    to_ms: i64,
    rank: usize,
    count: i64,
    name: String,
}

impl Api {
    pub(super) fn ranking(&self, list: &str, request: &Request<'_>, exchange: &mut Exchange<'_>) -> Answered {
        let named = Named::of(list).ok_or(Failure::NotFound("there is no such list"))?;
        let mut query = asked(named, request.query, &self.app)?;
        let limit = query.limit;
        // One more tells whether there is a next page.
        query.limit += 1;
        let range =
            if is_default(request.query) { "default".to_owned() } else { format!("{} {}", query.from_ms, query.to_ms) };
        let mut key = format!("ranking {limit} {range} {:?} {} ", query.after, query.before);
        list_key(&mut key, named, query.parts.iter().copied());
        let fill = || {
            let (app, query) = (self.app.clone(), query.clone());
            Fill(vec![from_ledger(move || ranked(&app, named, &query, limit))])
        };
        self.answer_cached(&key, &self.app.caching.classes.rankings, fill, request, exchange)
    }
}

fn ranked(app: &App, named: Named, query: &RankingQuery, limit: usize) -> Result<Filled, FillError> {
    let as_of_ms = app.ledger_status.as_of_ms();
    let (from_ms, to_ms) = (app.tellable(query.from_ms), app.tellable(query.to_ms));
    let told = RankingQuery { from_ms, to_ms, ..query.clone() };
    let read = match from_ms < to_ms {
        true => app.ledger.ranking(&told, app.clock.now_ms()).map_err(read_failed(FillError::TooLarge))?,
        false => Some(Vec::new()),
    };
    let mut rows = read.ok_or(FillError::TooLarge)?;
    let next = next_page(query, limit, &rows);
    rows.truncate(limit);
    let items = rows.into_iter().enumerate();
    let items: Vec<Item> =
        items.map(|(at, (name, count))| Item::exact(named, query.before + at + 1, name, count)).collect();
    let items = to_raw_value(&items).map_err(unwritable)?;
    let (from, to) = (answer::rfc3339(from_ms), answer::rfc3339(to_ms));
    let says = (query.from_ms, query.to_ms, items.get(), &next);
    let (as_of, source) = (answer::as_of(as_of_ms), Source::Ledger.name());
    let body = Ranking { from, to, as_of, source, stale: false, items: &items, next: next.as_deref() };
    keep(&says, as_of_ms, &body)
}

/// The cursor of the page behind the first `limit` rows, if there is one.
fn next_page(query: &RankingQuery, limit: usize, rows: &Ranked) -> Option<String> {
    let (name, count) = rows.get(limit).and_then(|_| rows.get(limit - 1))?;
    let (from_ms, to_ms, rank) = (query.from_ms, query.to_ms, query.before + limit);
    let (list, name) = (list_of(&query.parts), name.clone());
    write_cursor(&Cursor { version: 1, list, from_ms, to_ms, rank, count: *count, name })
}

fn asked(named: Named, query: &str, app: &App) -> Result<RankingQuery, Rejection> {
    let query = Query::known(query, &[named.parameters(), &["from", "to", "limit", "cursor"]].concat())?;
    named.mode(&query, &["count", "zero-result"])?;
    let parts = named.parts(&query)?.into_iter().map(|(dimension, weight)| (dimension, i64::from(weight))).collect();
    let limit = query.limit(10, LIST_ROWS_MAX)?;
    let Some(text) = query.get("cursor") else {
        let Range { start: from_ms, end: to_ms } = query.range(app, DEFAULT_MS)?;
        return Ok(RankingQuery { parts, from_ms, to_ms, after: None, before: 0, limit });
    };
    let invalid = |reason| Rejection::of_field("invalid_cursor", "cursor", reason);
    let cursor = Cursor::read(text).ok_or_else(|| invalid("is not one of ours: pass `next` of the page before"))?;
    let Cursor { list, from_ms, to_ms, rank, count, name, .. } = cursor;
    let is_same = |given: Option<i64>, known| given.is_none_or(|given| given == known);
    let (from, to) = query.ends(app)?;
    if list != list_of(&parts) || !is_same(from, from_ms) || !is_same(to, to_ms) {
        return Err(invalid("is of another list: pass it with the parameters of the page before"));
    }
    Ok(RankingQuery { parts, from_ms, to_ms, after: Some((count, name)), before: rank, limit })
}

/// The range is the one up to now: those who ask for that share an answer for a while.
fn is_default(query: &str) -> bool {
    Query::parse(query).is_ok_and(|query| ["from", "to", "cursor"].iter().all(|name| query.get(name).is_none()))
}

fn list_of(parts: &[(Dimension, i64)]) -> String {
    parts.iter().map(|(dimension, weight)| format!("{}x{weight}", *dimension as u8)).collect::<Vec<_>>().join("+")
}

impl Cursor {
    fn read(text: &str) -> Option<Cursor> {
        let cursor: Cursor = read_cursor(text)?;
        // A range turned round or of no time that can be stored, a count that no row has, and U+0000, which PostgreSQL
        // cannot take, are none of ours.
        let is_range = 0 <= cursor.from_ms && cursor.from_ms <= cursor.to_ms && cursor.to_ms <= TIME_MS_MAX;
        let is_row = cursor.count > 0 && cursor.rank <= u32::MAX as usize && !cursor.name.contains('\0');
        (cursor.version == 1 && is_range && is_row).then_some(cursor)
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_was_written_and_nothing_else_is() {
        let cursor = |list: &str, from_ms, to_ms, rank, count, name: &str| Cursor {
            version: 1,
            list: list.to_owned(),
            from_ms,
            to_ms,
            rank,
            count,
            name: name.to_owned(),
        };
        let ours = cursor("4x1+5x3", 1, 2, 10, 7, "고양이 and a space");
        let text = write_cursor(&ours).unwrap();
        for bad in ["", "1", "zz", "+1", "é", &text[1..], &text[..40], &format!("{text}0"), &format!("{text}00")] {
            assert_eq!(Cursor::read(bad), None, "{bad}");
        }
        for other in [
            cursor("2x1", -9_000_000_000_000_000_000, 2, 10, 7, "x"),
            cursor("2x1", 1, 9_000_000_000_000_000_000, 10, 7, "x"),
            Cursor { version: 2, ..cursor("2x1", 1, 2, 10, 7, "x") },
            cursor("2x1", 2, 1, 10, 7, "x"),
            cursor("2x1", 1, 2, 10, 0, "x"),
            cursor("2x1", 1, 2, usize::MAX, 7, "x"),
            cursor("2x1", 1, 2, 10, 7, "\0"),
        ] {
            assert_eq!(Cursor::read(&write_cursor(&other).unwrap()), None, "{other:?}");
        }
        for other in [r#"[1,"2x1",1,2,10,7]"#, r#"{"version":1}"#, r#"[1,"2x1",1,2,-1,7,"x"]"#] {
            assert_eq!(Cursor::read(&URL_SAFE_NO_PAD.encode(other)), None, "{other}");
        }
        assert_eq!(Cursor::read(&text), Some(ours));
    }
}
