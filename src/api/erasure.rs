//! `DELETE /api/users/{userId}`: a person goes, from every store and from what is still on its way.

use serde::Serialize;

use super::likes::required;
use super::query::{Query, decode};
use super::search::search_keys;
use super::wire::{Rejection, id_fault};
use super::{Api, answer};
use crate::app::likes_key;
use crate::http::{Exchange, Request, Waited};
use crate::limits::{CACHE_WRITE_WAIT_MS, ERASE_LIVE_WAIT_MS, ERASED_POSTS_CACHED_MAX, LEDGER_WAIT_MS};
use crate::ports::{Belongings, Verdict};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Erased<'a> {
    user_id: &'a str,
    status: &'static str,
}

impl Api {
    /// 202 once it is in the journal; with `wait=true` 200 once the ledger has applied it.
    pub(super) fn delete_user(&self, user: &str, request: &Request<'_>, exchange: &mut Exchange<'_>) {
        let parsed = user_of_path(user).and_then(|user| {
            let wait = Query::parse(request.query)?.get("wait") == Some("true");
            Ok((user, wait))
        });
        let (user, wait) = match parsed {
            Ok(parsed) => parsed,
            Err(rejection) => return answer::rejected(exchange, rejection),
        };
        // Before the write, which leaves nothing to find them by.
        let before = self.cached_of(&user, exchange);
        let done = if wait { self.erase_and_wait(&user, exchange) } else { self.erase_later(&user, exchange) };
        let Some(status) = done else { return };
        if !before.is_empty() {
            self.app.wrote(before, exchange.ticket());
            exchange.wait(CACHE_WRITE_WAIT_MS);
        }
        let (code, user_id) = (if status == "erased" { 200 } else { 202 }, user.as_str());
        answer::json(exchange, code, &Erased { user_id, status });
    }

    /// What became of it; `None`: it failed, and that was answered.
    fn erase_and_wait(&self, user: &str, exchange: &mut Exchange<'_>) -> Option<&'static str> {
        let decisions = match self.app.erase_decided(user, exchange.ticket()) {
            Ok(decisions) => decisions,
            Err(why) => {
                answer::refused(exchange, why);
                return None;
            }
        };
        match answer::waited(exchange, LEDGER_WAIT_MS, &decisions)? {
            Waited::Done if decisions.verdict() == Some(Verdict::Dead) => {
                answer::dead(exchange);
                None
            }
            Waited::Done => {
                // Who erases and reads sees the person gone. A live store that is away is no reason to fail.
                if self.app.live_reaches_now(ERASE_LIVE_WAIT_MS, exchange.ticket()).is_ok() {
                    exchange.wait(ERASE_LIVE_WAIT_MS + CACHE_WRITE_WAIT_MS);
                }
                Some("erased")
            }
            _ => Some("queued"),
        }
    }

    fn erase_later(&self, user: &str, exchange: &mut Exchange<'_>) -> Option<&'static str> {
        if let Err(why) = self.app.erase_durably(user, exchange.ticket()) {
            answer::refused(exchange, why);
            return None;
        }
        if exchange.wait(LEDGER_WAIT_MS) == Waited::Done {
            return Some("queued");
        }
        exchange.respond(answer::not_durable());
        None
    }

    /// The keys under which answers are kept that the person is in.
    fn cached_of(&self, user: &str, exchange: &mut Exchange<'_>) -> Vec<Box<str>> {
        let read = self.app.belongings(user.to_owned(), ERASED_POSTS_CACHED_MAX, exchange.ticket());
        // A ledger that does not answer: what is cached runs out by itself.
        let Some(Ok(Belongings { posts, liked })) = self.finish(read, exchange) else { return Vec::new() };
        let hashtags = posts.iter().flat_map(|(_, hashtags)| hashtags).flat_map(|hashtag| search_keys(hashtag));
        let likes = posts.iter().map(|(post, _)| post).chain(&liked).map(|post| likes_key(post));
        hashtags.chain(likes).collect()
    }
}

fn user_of_path(segment: &str) -> Result<String, Rejection> {
    let user = decode(segment, false)?;
    if user.is_empty() {
        return Err(required("userId"));
    }
    match id_fault(&user) {
        Some(fault) => Err(Rejection::of_field("invalid_parameter", "userId", fault)),
        None => Ok(user.into_owned()),
    }
}
