//! `/api/statistics`: live lists and exact counts.

use std::fmt::Write;

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::answer::{self, Answered, Failure};
use super::cached::{from_ledger, from_live, keep, read_failed, unwritable};
use super::lists::{Item, Named, list_key, window};
use super::query::Query;
use super::state::Api;
use super::wire::{Rejection, id_fault};
use crate::app::App;
use crate::app::reads::Source;
use crate::cache::{Fill, FillError, Filled};
use crate::events::{fold_keyword, page_key};
use crate::http::{Exchange, Request};
use crate::limits::{COUNT_RANGE_MS_MAX, ELEMENT_BYTES_MAX, LIST_ROWS_MAX, URL_BYTES_MAX};
use crate::ports::{CountFilter, LiveTop, TopQuery};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct List<'a> {
    window: &'a str,
    as_of: Option<String>,
    source: &'static str,
    stale: bool,
    approximate: bool,
    items: &'a RawValue,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CountBody {
    count: u64,
    as_of: Option<String>,
    source: &'static str,
    stale: bool,
}

/// What a key of a list takes.
const KEY_BYTES_USUAL: usize = 64;

impl Api {
    /// A ranked list: from the live store, or from the ledger while that is away.
    pub(super) fn popular(&self, list: &str, request: &Request<'_>, exchange: &mut Exchange<'_>) -> Answered {
        let named = Named::of(list).ok_or(Failure::NotFound("there is no such list"))?;
        let (query, window) = top_query(named, request.query)?;
        let TopQuery { parts, hot, limit, .. } = &query;
        let mut key = String::with_capacity(KEY_BYTES_USUAL);
        // A write into a String does not fail.
        let _ = write!(key, "popular {window} {hot} {limit} ");
        list_key(&mut key, named, parts.iter().map(|(dimension, weight)| (*dimension, *weight as i64)));
        let fill = || {
            let (app, of_live, of_ledger) = (self.app.clone(), query.clone(), query.clone());
            let ledger = self.app.clone();
            Fill(vec![
                from_live(move || popular(&app, Source::Live, &of_live, named, window)),
                from_ledger(move || popular(&ledger, Source::Ledger, &of_ledger, named, window)),
            ])
        };
        self.answer_cached(&key, &self.app.caching.classes.popular, fill, request, exchange)
    }

    pub(super) fn count(&self, _: &str, request: &Request<'_>, exchange: &mut Exchange<'_>) -> Answered {
        let filter = count_filter(request.query, &self.app)?;
        if !filter.is_empty()
            && has_several(&filter)
            && filter.from_ms.is_some_and(|from_ms| self.app.may_be_gone(from_ms))
        {
            return Err(not_kept("several filters at once").into());
        }
        let key = format!("count {filter:?}");
        let fill = || {
            let (app, filter) = (self.app.clone(), filter.clone());
            Fill(vec![from_ledger(move || counted(&app, &filter))])
        };
        self.answer_cached(&key, &self.app.caching.classes.counts, fill, request, exchange)
    }
}

fn popular(
    app: &App,
    source: Source,
    query: &TopQuery,
    named: Named,
    window: &'static str,
) -> Result<Filled, FillError> {
    let (as_of_ms, is_stale) = (app.live_status.as_of_ms(), app.is_live_stale());
    let LiveTop { items, approximate } = app.top(source, query).map_err(read_failed(FillError::Busy))?;
    let items =
        items.into_iter().enumerate().map(|(at, (name, score))| Item::scored(named, at + 1, name, score, query.hot));
    let items = to_raw_value(&items.collect::<Vec<_>>()).map_err(unwritable)?;
    let (stale, source) = (is_stale || source == Source::Ledger, source.name());
    let says = (window, source, stale, approximate, items.get());
    let body = List { window, as_of: answer::as_of(as_of_ms), source, stale, approximate, items: &items };
    keep(&says, as_of_ms, &body)
}

fn counted(app: &App, filter: &CountFilter) -> Result<Filled, FillError> {
    let as_of_ms = app.ledger_status.as_of_ms();
    let tellable = |at_ms: Option<i64>| at_ms.map(|at_ms| app.tellable(at_ms));
    let (from_ms, to_ms) = (tellable(filter.from_ms), tellable(filter.to_ms));
    let told = CountFilter { from_ms, to_ms, ..filter.clone() };
    let count = match told.is_empty() {
        true => 0,
        false => app.ledger.count(&told).map_err(read_failed(FillError::TooLarge))?,
    };
    let body = CountBody { count, as_of: answer::as_of(as_of_ms), source: Source::Ledger.name(), stale: false };
    keep(&count, as_of_ms, &body)
}

fn top_query(named: Named, query: &str) -> Result<(TopQuery, &'static str), Rejection> {
    let query = Query::known(query, &[named.parameters(), &["window", "limit"]].concat())?;
    let (window, name) = window(&query)?;
    let hot = named.mode(&query, &["count", "hot", "zero-result"])? == "hot";
    let limit = query.limit(10, LIST_ROWS_MAX)?;
    let parts = named.parts(&query)?.into_iter();
    let parts = parts.map(|(dimension, weight)| (dimension, f64::from(weight))).collect();
    Ok((TopQuery { parts, window, hot, limit }, name))
}

const COUNT_PARAMETERS: [&str; 9] =
    ["eventType", "componentId", "elementId", "keyword", "postId", "url", "page", "from", "to"];

fn count_filter(query: &str, app: &App) -> Result<CountFilter, Rejection> {
    let query = Query::known(query, &COUNT_PARAMETERS)?;
    let component_id = query.get("componentId").map(|text| {
        text.parse()
            .ok()
            .filter(|id| *id >= 1)
            .ok_or_else(|| Rejection::parameter("componentId", "must be an integer, 1 or more"))
    });
    let post_id =
        query.get("postId").map(|id| id_fault(id).map_or(Ok(id), |fault| Err(Rejection::parameter("postId", fault))));
    let keyword = query.keyword("keyword")?.map(|typed| fold_keyword(&typed).into_owned());
    let (url, page) = (query.text("url", URL_BYTES_MAX)?, query.text("page", URL_BYTES_MAX)?);
    let (from_ms, to_ms) = query.ends(app)?;
    let filter = CountFilter {
        event_type: query.event_type()?,
        component_id: component_id.transpose()?,
        element_id: query.text("elementId", ELEMENT_BYTES_MAX)?.map(str::to_owned),
        keyword,
        post_id: post_id.transpose()?.map(str::to_owned),
        page: url.or(page).map(|url| page_key(url).into_owned()),
        from_ms,
        to_ms,
    };
    if filter.component_id.is_some() && filter.element_id.is_some() {
        let reason = "and componentId exclude each other: an element is counted for clicks without a component";
        return Err(Rejection::parameter("elementId", reason));
    }
    check_range(&filter)?;
    Ok(filter)
}

fn has_several(filter: &CountFilter) -> bool {
    let CountFilter { component_id, element_id, keyword, post_id, page, .. } = filter;
    let texts = [element_id, keyword, post_id, page].into_iter().filter(|text| text.is_some()).count();
    texts + usize::from(component_id.is_some()) > 1
}

/// What only rows tell, asked for of a time whose rows may be gone.
pub(super) fn not_kept(what: &str) -> Rejection {
    let reason =
        format!("must not be earlier than RETENTION_DAYS ago: {what} are told from rows, which are not kept longer");
    Rejection::of_field("range_not_kept", "from", reason)
}

/// Several filters at once are answered from raw rows: over a bounded range only.
fn check_range(filter: &CountFilter) -> Result<(), Rejection> {
    if !has_several(filter) || filter.is_empty() {
        return Ok(());
    }
    match (filter.from_ms, filter.to_ms) {
        (Some(from), Some(to)) if to.saturating_sub(from) <= COUNT_RANGE_MS_MAX => Ok(()),
        _ => {
            let reason = "and to are needed with several filters, at most 31 days apart";
            Err(Rejection::of_field("missing_range", "from", reason))
        }
    }
}
