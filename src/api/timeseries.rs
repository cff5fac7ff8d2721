//! `/api/statistics/timeseries`: counts and distinct users by minute, hour or day, exact, from the ledger.

use serde::Serialize;

use super::query::Query;
use super::wire::Rejection;
use super::{Api, answer, cacheable};
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
    as_of: String,
    source: &'static str,
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
    from_ms: i64,
    to_ms: i64,
}

impl Api {
    pub(super) fn timeseries(&self, request: &Request<'_>, exchange: &mut Exchange<'_>) {
        let asked = match asked(request.query, self.app.clock.now_ms()) {
            Ok(asked) => asked,
            Err(rejection) => return answer::rejected(exchange, rejection),
        };
        let Asked { interval, name, event_type, from_ms, to_ms } = asked;
        let Some(edges_ms) = self.app.edges(interval, from_ms, to_ms, SERIES_POINTS_MAX) else {
            let reason =
                format!("and to hold more than {SERIES_POINTS_MAX} points: ask for less time or a longer interval");
            return answer::rejected(exchange, Rejection::of_field("too_many_points", "from", reason));
        };
        let as_of = answer::rfc3339(self.app.ledger_status.as_of_ms());
        let query = SeriesQuery { event_type, interval, edges_ms };
        let Some(points) = self.finish_exact(self.app.series(query.clone(), exchange.ticket()), exchange) else {
            return;
        };
        let said: Vec<(u64, u64)> = points.iter().map(|point| (point.count, point.users)).collect();
        let says = (&query.edges_ms, name, event_type, said);
        let point = |(at_ms, point): (&i64, &crate::ports::SeriesPoint)| Point {
            at: answer::rfc3339(*at_ms),
            count: point.count,
            users: point.users,
        };
        let edge = |at_ms: Option<&i64>| answer::rfc3339(*at_ms.unwrap_or(&from_ms));
        let body = Series {
            interval: name,
            event_type: event_type.map(EventType::name),
            from: edge(query.edges_ms.first()),
            to: edge(query.edges_ms.last()),
            as_of,
            source: "ledger",
            points: query.edges_ms.iter().zip(&points).map(point).collect(),
        };
        match serde_json::to_vec(&body) {
            Ok(body) => cacheable::json(exchange, request, self.access.keys.read.is_open(), &says, &body),
            Err(_) => answer::unwritable(exchange),
        }
    }
}

/// Where nothing is said: the last hour of minutes, day of hours, month of days.
fn asked(query: &str, now_ms: i64) -> Result<Asked, Rejection> {
    let query = Query::parse(query)?;
    let (interval, name, default_ms) = match query.get("interval").unwrap_or("hour") {
        "minute" => (Interval::Minute, "minute", HOUR_MS),
        "hour" => (Interval::Hour, "hour", 24 * HOUR_MS),
        "day" => (Interval::Day, "day", 30 * 24 * HOUR_MS),
        _ => return Err(Rejection::of_field("invalid_parameter", "interval", "must be minute, hour or day")),
    };
    let (from_ms, to_ms) = query.range(now_ms, default_ms)?;
    Ok(Asked { interval, name, event_type: query.event_type()?, from_ms, to_ms })
}
