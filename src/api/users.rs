//! `/api/statistics/users`: distinct users, exact over a range of time from the ledger. A user is a `userId`: events
//! of sessions alone are nobody's.

use serde::Serialize;

use super::query::Query;
use super::{Api, answer, cacheable};
use crate::http::{Exchange, Request};

/// Where only one end is given, the range is a day.
const DEFAULT_MS: i64 = 86_400_000;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Exact {
    from: String,
    to: String,
    as_of: String,
    source: &'static str,
    users: u64,
    approximate: bool,
}

impl Api {
    pub(super) fn users(&self, request: &Request<'_>, exchange: &mut Exchange<'_>) {
        let range = Query::parse(request.query).and_then(|query| query.range(self.app.clock.now_ms(), DEFAULT_MS));
        let (from_ms, to_ms) = match range {
            Ok(range) => range,
            Err(rejection) => return answer::rejected(exchange, rejection),
        };
        let as_of = answer::rfc3339(self.app.ledger_status.as_of_ms());
        let read = self.app.users_exact(from_ms, to_ms, exchange.ticket());
        let Some(users) = self.finish_exact(read, exchange) else { return };
        let (from, to) = (answer::rfc3339(from_ms), answer::rfc3339(to_ms));
        let body = Exact { from, to, as_of, source: "ledger", users, approximate: false };
        match serde_json::to_vec(&body) {
            Ok(body) => cacheable::json(exchange, request, &(from_ms, to_ms, users), &body),
            Err(_) => answer::unwritable(exchange),
        }
    }
}
