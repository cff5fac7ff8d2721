//! `/api/search/recent/{userId}`: a user's recent searches, read and forgotten.

use serde::Serialize;
use std::borrow::Cow;

use super::answer::{self, Answered, finish};
use super::query::{Query, id_of_path};
use super::state::Api;
use super::wire::{Rejection, normal_keyword};
use crate::app::reads::Source;
use crate::events::Forget;
use crate::http::{Exchange, Request, Waited};
use crate::limits::{KEYWORD_BYTES_MAX, LEDGER_WAIT_MS, READ_WAIT_MS, RECENT_SEARCHES_MAX};
use crate::sinks::Until;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Recent<'a> {
    user_id: &'a str,
    keywords: Vec<String>,
    as_of: Option<String>,
    source: &'static str,
    stale: bool,
}

impl Api {
    pub(super) fn get_recent(&self, user: &str, request: &Request<'_>, exchange: &mut Exchange<'_>) -> Answered {
        let (user, limit) = recent_parameters(user, request.query)?;
        let (as_of, stale) = answer::live_as_of(&self.app);
        let live = self.app.recent(Source::Live, user.clone().into_owned(), exchange.ticket());
        let (mut keywords, source) = match finish(live, exchange) {
            Ok(keywords) => (keywords, "live"),
            Err(_) => {
                let ledger = self.app.recent(Source::Ledger, user.clone().into_owned(), exchange.ticket());
                (finish(ledger, exchange)?, "ledger")
            }
        };
        keywords.truncate(limit);
        let stale = stale || source == "ledger";
        let recent = Recent { user_id: &user, keywords, as_of, source, stale };
        answer::json_with(exchange, 200, &[answer::PRIVATE], &recent)
    }

    pub(super) fn delete_recent(&self, user: &str, request: &Request<'_>, exchange: &mut Exchange<'_>) -> Answered {
        let (user, _) = recent_parameters(user, request.query)?;
        let keyword = keyword_to_forget(&Query::parse(request.query)?)?;
        let forget = Forget { user_id: user, keyword: keyword.map(Into::into), at_ms: self.app.clock.now_ms() };
        let decisions = self.app.decide(Until::Live, exchange.ticket(), |bytes| forget.encode(bytes))?;
        // Who deletes and reads sees it gone. Without the stores it is in the journal and will be: no less a success.
        let is_done = answer::waited(exchange, &decisions)? == Waited::Done;
        answer::empty(exchange, if is_done { 204 } else { 202 })
    }
}

/// None: all of them. A keyword that is there has to be one: an empty one must not be taken for all.
fn keyword_to_forget(query: &Query<'_>) -> Result<Option<String>, Rejection> {
    let Some(typed) = query.get_or_empty("keyword") else { return Ok(None) };
    let keyword = normal_keyword(Cow::Borrowed(typed)).into_owned();
    if keyword.is_empty() || keyword.len() > KEYWORD_BYTES_MAX {
        let reason = format!("must have 1 to {KEYWORD_BYTES_MAX} bytes; without it all are forgotten");
        return Err(Rejection::parameter("keyword", reason));
    }
    Ok(Some(keyword))
}

fn recent_parameters<'a>(user: &'a str, query: &str) -> Result<(Cow<'a, str>, usize), Rejection> {
    let user = id_of_path("userId", user)?;
    let limit = Query::parse(query)?.limit(RECENT_SEARCHES_MAX, RECENT_SEARCHES_MAX)?;
    Ok((user, limit))
}

const _: () = assert!(READ_WAIT_MS <= LEDGER_WAIT_MS);
