//! `GET /api/search`: posts by hashtag or by what they say, those with most likes first; the search itself is an event.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::posts::PostBody;
use super::query::Query;
use super::wire::{Rejection, id_fault, normal_keyword};
use super::{Api, answer, cacheable};
use crate::app::reads::Source;
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
    posts: &'a RawValue,
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
        let as_of = answer::rfc3339(self.app.ledger_status.as_of_ms());
        let read = self.app.search(query, exchange.ticket());
        let Some(Ok(posts)) = self.finish(read, exchange) else { return answer::store_away(exchange) };
        if request.method == Method::Get {
            self.app.record_search(user.as_deref(), &keyword, posts.len(), exchange.ticket());
        }
        let rows: Vec<PostBody<'_, String>> = posts.iter().map(PostBody::of).collect();
        let Ok(posts) = to_raw_value(&rows) else { return answer::unwritable(exchange) };
        let (source, stale) = (Source::Ledger.name(), false);
        let says = (&keyword, source, stale, posts.get());
        match serde_json::to_vec(&Found { keyword: &keyword, posts: &posts, as_of, source, stale }) {
            Ok(body) => cacheable::json(exchange, request, self.access.keys.read.is_open(), &says, &body),
            Err(_) => answer::unwritable(exchange),
        }
    }
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
