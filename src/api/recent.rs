//! `/api/search/recent/{userId}`: a user's recent searches, read and forgotten.

use serde::Serialize;
use std::borrow::Cow;

use super::query::{Query, decode};
use super::wire::{Rejection, id_fault, normal_keyword};
use super::{Api, answer};
use crate::http::{Answer, Exchange, Request, Waited};
use crate::limits::{KEYWORD_BYTES_MAX, LEDGER_WAIT_MS, READ_WAIT_MS, RECENT_SEARCHES_MAX};

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
    pub(super) fn get_recent(&self, user: &str, request: &Request<'_>, exchange: &mut Exchange<'_>) {
        let (user, limit) = match recent_parameters(user, request.query) {
            Ok(parameters) => parameters,
            Err(rejection) => return answer::rejected(exchange, rejection),
        };
        let (as_of, stale) = answer::live_as_of(&self.app);
        let live = self.app.recent_live(user.clone().into_owned(), exchange.ticket());
        let (mut keywords, source) = match self.finish(live, exchange) {
            Some(Ok(keywords)) => (keywords, "live"),
            _ => match self.finish(self.app.recent_ledger(user.clone().into_owned(), exchange.ticket()), exchange) {
                Some(Ok(keywords)) => (keywords, "ledger"),
                other => return answer::read_failed(exchange, other.and_then(Result::err)),
            },
        };
        keywords.truncate(limit);
        let stale = stale || source == "ledger";
        let recent = Recent { user_id: &user, keywords, as_of, source, stale };
        answer::json_with(exchange, 200, &[answer::PRIVATE], &recent);
    }

    pub(super) fn delete_recent(&self, user: &str, request: &Request<'_>, exchange: &mut Exchange<'_>) {
        let parsed = recent_parameters(user, request.query)
            .and_then(|(user, _)| Ok((user, keyword_to_forget(&Query::parse(request.query)?)?)));
        let (user, keyword) = match parsed {
            Ok(parsed) => parsed,
            Err(rejection) => return answer::rejected(exchange, rejection),
        };
        let decisions = match self.app.forget_recent(&user, keyword.as_deref(), exchange.ticket()) {
            Ok(decisions) => decisions,
            Err(why) => return answer::refused(exchange, why),
        };
        // Who deletes and reads sees it gone. Without the stores it is in the journal and will be: no less a success.
        let status = match answer::waited(exchange, LEDGER_WAIT_MS, &decisions) {
            Some(Waited::Done) => 204,
            Some(_) => 202,
            None => return,
        };
        exchange.respond(Answer { status, content_type: "", headers: &[], body: b"" });
    }
}

/// None: all of them. A keyword that is there has to be one: an empty one must not be taken for all.
fn keyword_to_forget(query: &Query<'_>) -> Result<Option<String>, Rejection> {
    let Some(typed) = query.get_or_empty("keyword") else { return Ok(None) };
    let keyword = normal_keyword(Cow::Borrowed(typed)).into_owned();
    if keyword.is_empty() || keyword.len() > KEYWORD_BYTES_MAX {
        let reason = format!("must have 1 to {KEYWORD_BYTES_MAX} bytes; without it all are forgotten");
        return Err(Rejection::of_field("invalid_parameter", "keyword", reason));
    }
    Ok(Some(keyword))
}

fn recent_parameters<'a>(user: &'a str, query: &str) -> Result<(Cow<'a, str>, usize), Rejection> {
    let user = decode(user, false)?;
    if let Some(fault) = id_fault(&user) {
        return Err(Rejection::of_field("invalid_parameter", "userId", fault));
    }
    let limit = Query::parse(query)?.limit(RECENT_SEARCHES_MAX, RECENT_SEARCHES_MAX)?;
    Ok((user, limit))
}

const _: () = assert!(READ_WAIT_MS <= LEDGER_WAIT_MS);
