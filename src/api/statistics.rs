//! `/api/statistics`: live lists and exact counts.

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::cached::{from_ledger, from_live, keep, read_failed, unwritable};
use super::query::Query;
use super::wire::{Rejection, id_fault};
use super::{Api, answer};
use crate::app::App;
use crate::app::reads::Source;
use crate::cache::{Fill, FillError, Filled};
use crate::events::{Dimension, ELEMENT_SIGN, fold_keyword, page_key};
use crate::http::{Exchange, Request, Waited};
use crate::limits::{COUNT_RANGE_MS_MAX, ELEMENT_BYTES_MAX, LIST_ROWS_MAX, READ_WAIT_MS, URL_BYTES_MAX};
use crate::ports::{CountFilter, LiveTop, StoreError, TopQuery, Window};
use crate::runtime::{LaneFull, Pending};
use std::fmt::Write;

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
pub(super) struct Item {
    rank: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    keyword: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    post_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    component_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    element_id: Option<String>,
    count: Count,
}

/// A count is a whole number but where it decays.
#[derive(Serialize)]
#[serde(untagged)]
enum Count {
    Whole(i64),
    Decayed(f64),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CountBody {
    count: u64,
    as_of: Option<String>,
    source: &'static str,
    stale: bool,
}

/// What a list sums, by its query, each with its weight.
pub(super) type Parts = fn(&Query<'_>) -> Result<Vec<(Dimension, i32)>, Rejection>;

/// What a key of a list takes.
const KEY_BYTES_USUAL: usize = 64;

/// What the names of a list are.
#[derive(Clone, Copy)]
pub(super) enum Named {
    Keyword,
    Post,
    Page,
    /// Components, and the elements of clicks without a component.
    Component,
}

impl Named {
    /// The parameters that say what a list of these counts.
    pub(super) fn parameters(self) -> &'static [&'static str] {
        match self {
            Named::Post => &["mode", "by"],
            Named::Keyword | Named::Page | Named::Component => &["mode"],
        }
    }
}

impl Api {
    pub(super) fn popular_keywords(&self, request: &Request<'_>, exchange: &mut Exchange<'_>) {
        self.list(Named::Keyword, request, exchange, keyword_parts);
    }

    pub(super) fn popular_posts(&self, request: &Request<'_>, exchange: &mut Exchange<'_>) {
        self.list(Named::Post, request, exchange, post_parts);
    }

    pub(super) fn popular_pages(&self, request: &Request<'_>, exchange: &mut Exchange<'_>) {
        self.list(Named::Page, request, exchange, page_parts);
    }

    pub(super) fn popular_components(&self, request: &Request<'_>, exchange: &mut Exchange<'_>) {
        self.list(Named::Component, request, exchange, component_parts);
    }

    /// A ranked list: from the live store, or from the ledger while that is away.
    fn list(&self, named: Named, request: &Request<'_>, exchange: &mut Exchange<'_>, parts: Parts) {
        let (query, window) = match top_query(named, request.query, parts) {
            Ok(query) => query,
            Err(rejection) => return answer::rejected(exchange, rejection),
        };
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
        let shown = self.cached(&key, &self.app.caching.classes.popular, fill, exchange);
        if let Some(shown) = shown {
            self.answer_shown(&shown, request, exchange);
        }
    }

    pub(super) fn count(&self, request: &Request<'_>, exchange: &mut Exchange<'_>) {
        let filter = match count_filter(request.query, &self.app) {
            Ok(filter) => filter,
            Err(rejection) => return answer::rejected(exchange, rejection),
        };
        if !filter.is_empty()
            && has_several(&filter)
            && filter.from_ms.is_some_and(|from_ms| self.app.may_be_gone(from_ms))
        {
            return answer::rejected(exchange, not_kept("several filters at once"));
        }
        let key = format!("count {filter:?}");
        let fill = || {
            let (app, filter) = (self.app.clone(), filter.clone());
            Fill(vec![from_ledger(move || counted(&app, &filter))])
        };
        if let Some(shown) = self.cached(&key, &self.app.caching.classes.counts, fill, exchange) {
            self.answer_shown(&shown, request, exchange);
        }
    }

    /// Sleeps for a read; `None` where it did not come to an end in time.
    pub(super) fn finish<T>(
        &self,
        read: Result<Pending<Result<T, StoreError>>, LaneFull>,
        exchange: &mut Exchange<'_>,
    ) -> Option<Result<T, StoreError>> {
        let pending = read.ok()?;
        match exchange.wait(READ_WAIT_MS) {
            Waited::Late => None,
            Waited::Done | Waited::Failed => pending.take(),
        }
    }
}

/// A list, read from one of its sources and rendered.
fn popular(
    app: &App,
    source: Source,
    query: &TopQuery,
    named: Named,
    window: &'static str,
) -> Result<Filled, FillError> {
    let (as_of_ms, is_stale) = (app.live_status.as_of_ms(), app.is_live_stale());
    let read = if source == Source::Live { app.top_live(query) } else { app.top_ledger(query) };
    let LiveTop { items, approximate } = read.map_err(read_failed(FillError::Busy))?;
    let items = items.into_iter().enumerate().map(|(at, row)| item(named, at + 1, row, query.hot));
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

/// Appends what is listed to a key of the cache.
pub(super) fn list_key(key: &mut String, named: Named, parts: impl Iterator<Item = (Dimension, i64)>) {
    // A write into a String does not fail.
    let _ = write!(key, "{}", named as u8);
    for (dimension, weight) in parts {
        let _ = write!(key, " {}x{weight}", dimension as u8);
    }
}

pub(super) fn keyword_parts(query: &Query<'_>) -> Result<Vec<(Dimension, i32)>, Rejection> {
    match query.get("mode") {
        Some("zero-result") => Ok(vec![(Dimension::ZeroResult, 1)]),
        _ => Ok(vec![(Dimension::Keyword, 1)]),
    }
}

pub(super) fn page_parts(_: &Query<'_>) -> Result<Vec<(Dimension, i32)>, Rejection> {
    Ok(vec![(Dimension::Page, 1)])
}

pub(super) fn component_parts(_: &Query<'_>) -> Result<Vec<(Dimension, i32)>, Rejection> {
    Ok(vec![(Dimension::Component, 1)])
}

pub(super) fn post_parts(query: &Query<'_>) -> Result<Vec<(Dimension, i32)>, Rejection> {
    use Dimension::{PostClicks, PostLikes, PostViews};
    match query.get("by").unwrap_or("views") {
        "views" => Ok(vec![(PostViews, 1)]),
        "clicks" => Ok(vec![(PostClicks, 1)]),
        "likes" => Ok(vec![(PostLikes, 1)]),
        "score" => Ok(vec![(PostViews, 1), (PostClicks, 3), (PostLikes, 10)]),
        _ => Err(Rejection::of_field("invalid_parameter", "by", "must be views, clicks, likes or score")),
    }
}

/// `window` and its name.
pub(super) fn window(query: &Query<'_>) -> Result<(Window, &'static str), Rejection> {
    Ok(match query.get("window").unwrap_or("1h") {
        "10m" => (Window::TenMinutes, "10m"),
        "1h" => (Window::Hour, "1h"),
        "24h" => (Window::Day, "24h"),
        "7d" => (Window::Week, "7d"),
        _ => return Err(Rejection::of_field("invalid_parameter", "window", "must be 10m, 1h, 24h or 7d")),
    })
}

fn top_query(named: Named, query: &str, parts: Parts) -> Result<(TopQuery, &'static str), Rejection> {
    let query = Query::known(query, &[named.parameters(), &["window", "limit"]].concat())?;
    let (window, name) = window(&query)?;
    let hot = match (named, query.get("mode").unwrap_or("count")) {
        (_, "count") | (Named::Keyword, "zero-result") => false,
        (Named::Keyword | Named::Post, "hot") => true,
        (Named::Keyword, _) => {
            return Err(Rejection::of_field("invalid_parameter", "mode", "must be count, hot or zero-result"));
        }
        (Named::Post, _) => return Err(Rejection::of_field("invalid_parameter", "mode", "must be count or hot")),
        (_, _) => return Err(Rejection::of_field("invalid_parameter", "mode", "must be count")),
    };
    let limit = query.limit(10, LIST_ROWS_MAX)?;
    let parts = parts(&query)?.into_iter().map(|(dimension, weight)| (dimension, f64::from(weight))).collect();
    Ok((TopQuery { parts, window, hot, limit }, name))
}

fn item(named: Named, rank: usize, (name, score): (String, f64), hot: bool) -> Item {
    let count = if hot { Count::Decayed((score * 1_000.0).round() / 1_000.0) } else { Count::Whole(score as i64) };
    Item::new(named, rank, name, count)
}

impl Item {
    /// A name with an exact count.
    pub(super) fn exact(named: Named, rank: usize, name: String, count: i64) -> Item {
        Item::new(named, rank, name, Count::Whole(count))
    }

    fn new(named: Named, rank: usize, name: String, count: Count) -> Item {
        let mut item =
            Item { rank, keyword: None, post_id: None, url: None, component_id: None, element_id: None, count };
        match named {
            Named::Keyword => item.keyword = Some(name),
            Named::Post => item.post_id = Some(name),
            Named::Page => item.url = Some(name),
            Named::Component => match name.strip_prefix(ELEMENT_SIGN) {
                Some(element) => item.element_id = Some(element.to_owned()),
                None => item.component_id = Some(name),
            },
        }
        item
    }
}

const COUNT_PARAMETERS: [&str; 9] =
    ["eventType", "componentId", "elementId", "keyword", "postId", "url", "page", "from", "to"];

fn count_filter(query: &str, app: &App) -> Result<CountFilter, Rejection> {
    let query = Query::known(query, &COUNT_PARAMETERS)?;
    let invalid = |field, reason| Rejection::of_field("invalid_parameter", field, reason);
    let component_id = query.get("componentId").map(|text| {
        text.parse().ok().filter(|id| *id >= 1).ok_or_else(|| invalid("componentId", "must be an integer, 1 or more"))
    });
    let post_id = query.get("postId").map(|id| id_fault(id).map_or(Ok(id), |fault| Err(invalid("postId", fault))));
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
        return Err(invalid("elementId", reason));
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
