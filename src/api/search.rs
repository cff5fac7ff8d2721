//! `GET /api/search`: posts by hashtag or by what they say, those with most likes first; the search itself is an event.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::value::RawValue;

use super::cached::{Kept, from_ledger, keep, read_failed};
use super::posts::PostBody;
use super::query::Query;
use super::wire::{Rejection, id_fault, normal_keyword};
use super::{Api, answer, cacheable};
use crate::app::App;
use crate::app::reads::Source;
use crate::cache::{Fill, FillError, Filled};
use crate::events::{fold_hashtag, fold_keyword};
use crate::http::{Exchange, Method, Request};
use crate::limits::{KEYWORD_BYTES_MAX, LIST_ROWS_MAX, SEARCH_POSTS};
use crate::ports::PostSearch;

/// What a request asks for: valid, and its own.
struct Wanted {
    user: Option<String>,
    /// As typed: trimmed, NFC.
    keyword: String,
    query: PostSearch,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Found<'a> {
    keyword: &'a str,
    posts: &'a [Box<RawValue>],
    as_of: String,
    source: &'static str,
    stale: bool,
}

impl Api {
    pub(super) fn search(&self, request: &Request<'_>, exchange: &mut Exchange<'_>) {
        let Wanted { user, keyword, query } = match wanted(request.query) {
            Ok(wanted) => wanted,
            Err(rejection) => return answer::rejected(exchange, rejection),
        };
        // One of two sizes is read and kept, whatever was asked for: a write knows which keys there are.
        let size = if query.limit <= SEARCH_POSTS { SEARCH_POSTS } else { LIST_ROWS_MAX };
        let fill = || {
            let (app, query) = (self.app.clone(), PostSearch { limit: size, ..query.clone() });
            Fill(vec![from_ledger(move || found(&app, &query))])
        };
        let key = search_key(&query.keyword, size);
        let Some(shown) = self.cached(&key, &self.app.caching.classes.search, fill, exchange) else { return };
        let Ok(mut posts) = serde_json::from_slice::<Vec<Box<RawValue>>>(Kept::of(&shown.copy.value).body) else {
            return answer::unwritable(exchange);
        };
        posts.truncate(query.limit);
        if request.method == Method::Get {
            self.app.record_search(user.as_deref(), &keyword, posts.len(), exchange.ticket());
        }
        let (source, stale) = if shown.is_late { ("cache", true) } else { (Source::Ledger.name(), false) };
        let texts: Vec<&str> = posts.iter().map(|post| post.get()).collect();
        let tag = cacheable::tag_of(&(&keyword, source, stale, texts));
        let as_of = answer::rfc3339(shown.copy.as_of_ms);
        match serde_json::to_vec(&Found { keyword: &keyword, posts: &posts, as_of, source, stale }) {
            Ok(body) => cacheable::tagged(exchange, request, self.access.keys.read.is_open(), &tag, &body),
            Err(_) => answer::unwritable(exchange),
        }
    }
}

/// The posts that are found, read and rendered: an array.
fn found(app: &App, query: &PostSearch) -> Result<Filled, FillError> {
    let as_of_ms = app.ledger_status.as_of_ms();
    let posts = app.ledger.search(query).map_err(read_failed)?;
    let rows: Vec<PostBody<'_, String>> = posts.iter().map(PostBody::of).collect();
    keep(&(), as_of_ms, &rows)
}

fn search_key(keyword: &str, size: usize) -> String {
    format!("search {size} {keyword}")
}

/// Under which keys searches that find a hashtag are kept.
pub(super) fn search_keys(hashtag: &str) -> impl Iterator<Item = Box<str>> {
    let typed = [fold_keyword(hashtag).into_owned(), format!("#{}", fold_keyword(hashtag))];
    typed.into_iter().flat_map(|typed| [SEARCH_POSTS, LIST_ROWS_MAX].map(|size| search_key(&typed, size).into()))
}

fn wanted(query: &str) -> Result<Wanted, Rejection> {
    let query = Query::parse(query)?;
    let invalid = |field, reason: &str| Rejection::of_field("invalid_parameter", field, reason);
    let typed = query.get("keyword").unwrap_or_default();
    let keyword = normal_keyword(Cow::Borrowed(typed)).into_owned();
    if !(1..=KEYWORD_BYTES_MAX).contains(&keyword.len()) {
        return Err(invalid("keyword", "must have 1 to 200 bytes after trimming"));
    }
    let user = query.get("userId").map(str::to_owned);
    if let Some(fault) = user.as_deref().and_then(id_fault) {
        return Err(invalid("userId", fault));
    }
    let limit = query.limit(SEARCH_POSTS, LIST_ROWS_MAX)?;
    let query = PostSearch { keyword: fold_keyword(&keyword).into_owned(), hashtag: fold_hashtag(&keyword), limit };
    Ok(Wanted { user, keyword, query })
}
