//! `/api/statistics/timeseries`: counts and distinct users by minute, hour or day, exact, from the ledger.

use std::ops::Range;

use serde::Serialize;

use super::answer::{self, Answered};
use super::cached::{from_ledger, keep, read_failed};
use super::query::Query;
use super::state::Api;
use super::wire::Rejection;
use crate::app::App;
use crate::app::reads::Source;
use crate::cache::{Fill, FillError, Filled};
use crate::events::EventType;
use crate::http::{Exchange, Request};
use crate::limits::SERIES_POINTS_MAX;
use crate::ports::{Interval, SeriesQuery};

const HOUR_MS: i64 = 3_600_000;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Series<'a> {
    interval: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_type: Option<&'static str>,
    from: String,
    to: String,
    as_of: Option<String>,
    source: &'static str,
    stale: bool,
    points: Vec<Point>,
}

#[derive(Serialize)]
struct Point {
    at: String,
    count: u64,
    users: u64,
}

struct Asked {
    interval: Interval,
    name: &'static str,
    event_type: Option<EventType>,
    range: Range<i64>,
}

impl Api {
    pub(super) fn timeseries(&self, _: &str, request: &Request<'_>, exchange: &mut Exchange<'_>) -> Answered {
        let Asked { interval, name, event_type, range } = asked(request.query, &self.app)?;
        let Some(edges_ms) = self.app.edges(interval, &range, SERIES_POINTS_MAX) else {
            let reason =
                format!("and to hold more than {SERIES_POINTS_MAX} points: ask for less time or a longer interval");
            return Err(Rejection::of_field("too_many_points", "from", reason).into());
        };
        let query = SeriesQuery { event_type, interval, edges_ms };
        let (first, last) = (query.edges_ms.first(), query.edges_ms.last());
        // Days of two zones may begin and end alike and differ in between.
        let zone = if interval == Interval::Day { self.app.calendar.time_zone().iana_name() } else { None };
        let key = format!("series {name} {zone:?} {event_type:?} {first:?} {last:?}");
        let from_ms = range.start;
        let fill = || {
            let (app, query) = (self.app.clone(), query.clone());
            Fill(vec![from_ledger(move || series(&app, &query, name, from_ms))])
        };
        self.answer_cached(&key, &self.app.caching.classes.rankings, fill, request, exchange)
    }
}

fn series(app: &App, query: &SeriesQuery, name: &str, from_ms: i64) -> Result<Filled, FillError> {
    let as_of_ms = app.ledger_status.as_of_ms();
    // One edge begins nothing: the range is empty.
    let is_empty = query.edges_ms.len() < 2;
    let points = match is_empty {
        true => Some(Vec::new()),
        false => app.ledger.series(query).map_err(read_failed(FillError::TooLarge))?,
    };
    let points = points.ok_or(FillError::TooLarge)?;
    let said: Vec<(u64, u64)> = points.iter().map(|point| (point.count, point.users)).collect();
    let says = (&query.edges_ms, name, query.event_type, said);
    let point = |(at_ms, point): (&i64, &crate::ports::SeriesPoint)| Point {
        at: answer::rfc3339(*at_ms),
        count: point.count,
        users: point.users,
    };
    let edge = |at_ms: Option<&i64>| answer::rfc3339(*at_ms.unwrap_or(&from_ms));
    let body = Series {
        interval: name,
        event_type: query.event_type.map(EventType::name),
        from: edge(query.edges_ms.first()),
        to: edge(query.edges_ms.last()),
        as_of: answer::as_of(as_of_ms),
        source: Source::Ledger.name(),
        stale: false,
        points: query.edges_ms.iter().zip(&points).map(point).collect(),
    };
    keep(&says, as_of_ms, &body)
}

/// Where nothing is said: the last hour of minutes, day of hours, month of days.
fn asked(query: &str, app: &App) -> Result<Asked, Rejection> {
    let query = Query::known(query, &["interval", "from", "to", "eventType"])?;
    let (interval, name, default_ms) = match query.get("interval").unwrap_or("hour") {
        "minute" => (Interval::Minute, "minute", HOUR_MS),
        "hour" => (Interval::Hour, "hour", 24 * HOUR_MS),
        "day" => (Interval::Day, "day", 30 * 24 * HOUR_MS),
        _ => return Err(Rejection::parameter("interval", "must be minute, hour or day")),
    };
    let range = query.range(app, default_ms)?;
    Ok(Asked { interval, name, event_type: query.event_type()?, range })
}
