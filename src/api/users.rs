//! `/api/statistics/users`: distinct users, live of a window or exact of a range. A user is a `userId`: events of
//! sessions alone are nobody's.

use std::ops::Range;

use serde::Serialize;

use super::cached::{from_ledger, from_live, keep, read_failed};
use super::query::Query;
use super::statistics::{not_kept, window};
use super::wire::Rejection;
use super::{Api, answer};
use crate::app::App;
use crate::app::reads::Source;
use crate::cache::{Fill, FillError, Filled};
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
    as_of: Option<String>,
    source: &'static str,
    stale: bool,
    approximate: bool,
    users: u64,
}

enum Asked {
    Window(Window, &'static str),
    Range(Range<i64>),
}

impl Api {
    pub(super) fn users(&self, request: &Request<'_>, exchange: &mut Exchange<'_>) {
        let asked = match asked(request.query, &self.app) {
            Ok(asked) => asked,
            Err(rejection) => return answer::rejected(exchange, rejection),
        };
        let classes = &self.app.caching.classes;
        let shown = match asked {
            Asked::Window(window, name) => {
                let fill = || {
                    let (app, ledger) = (self.app.clone(), self.app.clone());
                    Fill(vec![
                        from_live(move || in_window(&app, Source::Live, window, name)),
                        from_ledger(move || in_window(&ledger, Source::Ledger, window, name)),
                    ])
                };
                self.cached(&format!("users {name}"), &classes.popular, fill, exchange)
            }
            Asked::Range(range) if !range.is_empty() && self.app.may_be_gone(range.start) => {
                return answer::rejected(exchange, not_kept("exact users"));
            }
            Asked::Range(range) => {
                let Range { start: from_ms, end: to_ms } = range;
                let fill = || {
                    let app = self.app.clone();
                    Fill(vec![from_ledger(move || in_range(&app, from_ms, to_ms))])
                };
                self.cached(&format!("users {from_ms} {to_ms}"), &classes.rankings, fill, exchange)
            }
        };
        if let Some(shown) = shown {
            self.answer_shown(&shown, request, exchange);
        }
    }
}

/// From the live store, or, while that is away, the same window from the ledger, which knows it exactly.
fn in_window(app: &App, source: Source, window: Window, name: &'static str) -> Result<Filled, FillError> {
    let (as_of_ms, is_stale) = (app.live_status.as_of_ms(), app.is_live_stale());
    let is_live = source == Source::Live;
    let users = if is_live { app.users_live(window).map(Some) } else { app.users_ledger(window) };
    let users = users.map_err(read_failed(FillError::Busy))?.ok_or(FillError::Busy)?;
    keep_users(
        &Users {
            window: Some(name),
            from: None,
            to: None,
            as_of: answer::as_of(as_of_ms),
            source: source.name(),
            stale: is_stale || !is_live,
            approximate: is_live,
            users,
        },
        as_of_ms,
    )
}

fn in_range(app: &App, from_ms: i64, to_ms: i64) -> Result<Filled, FillError> {
    let as_of_ms = app.ledger_status.as_of_ms();
    let users = match from_ms < to_ms {
        true => app.ledger.users(from_ms, to_ms).map_err(read_failed(FillError::TooLarge))?,
        false => Some(0),
    };
    let users = users.ok_or(FillError::TooLarge)?;
    keep_users(
        &Users {
            window: None,
            from: Some(answer::rfc3339(from_ms)),
            to: Some(answer::rfc3339(to_ms)),
            as_of: answer::as_of(as_of_ms),
            source: Source::Ledger.name(),
            stale: false,
            approximate: false,
            users,
        },
        as_of_ms,
    )
}

fn keep_users(users: &Users, as_of_ms: i64) -> Result<Filled, FillError> {
    let says = (users.window, &users.from, &users.to, users.source, users.stale, users.users);
    keep(&says, as_of_ms, users)
}

/// A range where an end of one is given, else a window.
fn asked(query: &str, app: &App) -> Result<Asked, Rejection> {
    let query = Query::known(query, &["window", "from", "to"])?;
    let has_range = query.get("from").is_some() || query.get("to").is_some();
    if !has_range {
        return window(&query).map(|(window, name)| Asked::Window(window, name));
    }
    if query.get("window").is_some() {
        return Err(Rejection::of_field("invalid_parameter", "window", "and a range exclude each other"));
    }
    query.range(app, DEFAULT_MS).map(Asked::Range)
}
