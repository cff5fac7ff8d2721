//! `/api/statistics/users`: distinct users, live of a window or exact of a range. A user is a `userId`: events of
//! sessions alone are nobody's.

use serde::Serialize;

use super::query::Query;
use super::statistics::window;
use super::wire::Rejection;
use super::{Api, answer, cacheable};
use crate::app::reads::Source;
use crate::http::{Exchange, Request};
use crate::ports::Window;

/// Where only one end is given, the range is a day.
const DEFAULT_MS: i64 = 86_400_000;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Users {
    #[serde(skip_serializing_if = "Option::is_none")]
    window: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<String>,
    as_of: String,
    source: &'static str,
    stale: bool,
    approximate: bool,
    users: u64,
}

enum Asked {
    Window(Window, &'static str),
    Range(i64, i64),
}

impl Api {
    pub(super) fn users(&self, request: &Request<'_>, exchange: &mut Exchange<'_>) {
        let said = match asked(request.query, self.app.clock.now_ms()) {
            Ok(Asked::Window(window, name)) => self.live_users(window, name, exchange),
            Ok(Asked::Range(from_ms, to_ms)) => self.exact_users(from_ms, to_ms, exchange),
            Err(rejection) => return answer::rejected(exchange, rejection),
        };
        let Some(users) = said else { return };
        let says = (users.window, &users.from, &users.to, users.source, users.stale, users.users);
        match serde_json::to_vec(&users) {
            Ok(body) => cacheable::json(exchange, request, self.access.keys.read.is_open(), &says, &body),
            Err(_) => answer::unwritable(exchange),
        }
    }

    /// From the live store, or, while that is away, the same window from the ledger, which knows it exactly.
    fn live_users(&self, window: Window, name: &'static str, exchange: &mut Exchange<'_>) -> Option<Users> {
        let (as_of, stale) = answer::as_of(&self.app);
        let live = self.app.users_live(window, exchange.ticket());
        let (users, source) = match self.finish(live, exchange) {
            Some(Ok(users)) => (users, Source::Live),
            _ => {
                let ledger = self.app.users_ledger(window, exchange.ticket());
                (self.finish_exact(ledger, exchange)?, Source::Ledger)
            }
        };
        Some(Users {
            window: Some(name),
            from: None,
            to: None,
            as_of,
            source: source.name(),
            stale: stale || source == Source::Ledger,
            approximate: source == Source::Live,
            users,
        })
    }

    fn exact_users(&self, from_ms: i64, to_ms: i64, exchange: &mut Exchange<'_>) -> Option<Users> {
        let as_of = answer::rfc3339(self.app.ledger_status.as_of_ms());
        let users = self.finish_exact(self.app.users_exact(from_ms, to_ms, exchange.ticket()), exchange)?;
        let (from, to) = (Some(answer::rfc3339(from_ms)), Some(answer::rfc3339(to_ms)));
        Some(Users { window: None, from, to, as_of, source: "ledger", stale: false, approximate: false, users })
    }
}

/// A range where an end of one is given, else a window.
fn asked(query: &str, now_ms: i64) -> Result<Asked, Rejection> {
    let query = Query::parse(query)?;
    let has_range = query.get("from").is_some() || query.get("to").is_some();
    if !has_range {
        return window(&query).map(|(window, name)| Asked::Window(window, name));
    }
    if query.get("window").is_some() {
        return Err(Rejection::of_field("invalid_parameter", "window", "and a range exclude each other"));
    }
    query.range(now_ms, DEFAULT_MS).map(|(from_ms, to_ms)| Asked::Range(from_ms, to_ms))
}
