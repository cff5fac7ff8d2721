//! `/api/statistics/users`: distinct users, live of a window or exact of a range. A user is a `userId`: events of
//! sessions alone are nobody's.

use std::ops::Range;

use serde::Serialize;

use super::answer::{self, Answered};
use super::cached::{from_ledger, from_live, keep, read_failed};
use super::lists::window;
use super::query::Query;
use super::state::Api;
use super::statistics::not_kept;
use super::wire::Rejection;
use crate::app::App;
use crate::app::reads::Source;
use crate::cache::{Fill, FillError, Filled};
use crate::http::{Exchange, Request};
use crate::ports::Window;

/// Where only one end is given, the range is a day.
const DEFAULT_MS: i64 = 86_400_000;

#[derive(Default, Serialize)]
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
    pub(super) fn users(&self, _: &str, request: &Request<'_>, exchange: &mut Exchange<'_>) -> Answered {
        let classes = &self.app.caching.classes;
        match asked(request.query, &self.app)? {
            Asked::Window(window, name) => {
                let fill = || {
                    let (app, ledger) = (self.app.clone(), self.app.clone());
                    Fill(vec![
                        from_live(move || in_window(&app, Source::Live, window, name)),
                        from_ledger(move || in_window(&ledger, Source::Ledger, window, name)),
                    ])
                };
                self.answer_cached(&format!("users {name}"), &classes.popular, fill, request, exchange)
            }
            Asked::Range(range) if !range.is_empty() && self.app.may_be_gone(range.start) => {
                Err(not_kept("exact users").into())
            }
            Asked::Range(Range { start: from_ms, end: to_ms }) => {
                let fill = || {
                    let app = self.app.clone();
                    Fill(vec![from_ledger(move || in_range(&app, from_ms, to_ms))])
                };
                self.answer_cached(&format!("users {from_ms} {to_ms}"), &classes.rankings, fill, request, exchange)
            }
        }
    }
}

/// From the live store, or, while that is away, the same window from the ledger, which knows it exactly.
fn in_window(app: &App, source: Source, window: Window, name: &'static str) -> Result<Filled, FillError> {
    let as_of_ms = app.live_status.as_of_ms();
    let (is_live, is_stale) = (source == Source::Live, app.is_live_stale());
    let users = app.users(source, window).map_err(read_failed(FillError::Busy))?.ok_or(FillError::Busy)?;
    let body =
        Users { window: Some(name), stale: is_stale || !is_live, approximate: is_live, ..Users::new(source, users) };
    keep_users(body, as_of_ms)
}

fn in_range(app: &App, from_ms: i64, to_ms: i64) -> Result<Filled, FillError> {
    let as_of_ms = app.ledger_status.as_of_ms();
    let users = match from_ms < to_ms {
        true => app.ledger.users(from_ms, to_ms).map_err(read_failed(FillError::TooLarge))?,
        false => Some(0),
    };
    let users = Users::new(Source::Ledger, users.ok_or(FillError::TooLarge)?);
    let (from, to) = (Some(answer::rfc3339(from_ms)), Some(answer::rfc3339(to_ms)));
    keep_users(Users { from, to, ..users }, as_of_ms)
}

fn keep_users(users: Users, as_of_ms: i64) -> Result<Filled, FillError> {
    let users = Users { as_of: answer::as_of(as_of_ms), ..users };
    let says = (users.window, &users.from, &users.to, users.source, users.stale, users.users);
    keep(&says, as_of_ms, &users)
}

impl Users {
    fn new(source: Source, users: u64) -> Users {
        Users { source: source.name(), users, ..Users::default() }
    }
}

fn asked(query: &str, app: &App) -> Result<Asked, Rejection> {
    let query = Query::known(query, &["window", "from", "to"])?;
    let has_range = query.get("from").is_some() || query.get("to").is_some();
    if !has_range {
        return window(&query).map(|(window, name)| Asked::Window(window, name));
    }
    if query.get("window").is_some() {
        return Err(Rejection::parameter("window", "and a range exclude each other"));
    }
    query.range(app, DEFAULT_MS).map(Asked::Range)
}
