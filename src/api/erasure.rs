//! `DELETE /api/users/{userId}`: a person goes, from every store and from what is still on its way.

use serde::Serialize;

use super::answer::{self, Answered, Decided, Failure, decided, finish};
use super::query::{Query, id_of_path};
use super::state::Api;
use crate::app::{likes_key, search_keys};
use crate::http::{Exchange, Request, Waited};
use crate::limits::{CACHE_WRITE_WAIT_MS, ERASE_LIVE_WAIT_MS, ERASED_POSTS_CACHED_MAX, LEDGER_WAIT_MS};
use crate::ports::{Belongings, Ledger};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Erased<'a> {
    user_id: &'a str,
    status: &'static str,
}

impl Api {
    /// 202 once it is in the journal; with `wait=true` 200 once the ledger has applied it.
    pub(super) fn delete_user(&self, user: &str, request: &Request<'_>, exchange: &mut Exchange<'_>) -> Answered {
        let user = id_of_path("userId", user)?;
        let wait = Query::parse(request.query)?.get("wait") == Some("true");
        // Before the write, which leaves nothing to find them by.
        let before = self.cached_of(&user, exchange);
        let is_erased = if wait { self.erase_and_wait(&user, exchange)? } else { self.erase_later(&user, exchange)? };
        if !before.is_empty() {
            self.app.wrote(before, exchange.ticket());
            exchange.wait(CACHE_WRITE_WAIT_MS);
        }
        let (code, status) = if is_erased { (200, "erased") } else { (202, "queued") };
        answer::json(exchange, code, &Erased { user_id: &user, status })
    }

    fn erase_and_wait(&self, user: &str, exchange: &mut Exchange<'_>) -> Result<bool, Failure> {
        let decisions = self.app.erase_decided(user, exchange.ticket())?;
        if let Decided::Later = decided(exchange, &decisions)? {
            return Ok(false);
        }
        // Who erases and reads sees the person gone. A live store that is away is no reason to fail.
        if self.app.live_reaches_now(ERASE_LIVE_WAIT_MS, exchange.ticket()).is_ok() {
            exchange.wait(ERASE_LIVE_WAIT_MS + CACHE_WRITE_WAIT_MS);
        }
        Ok(true)
    }

    fn erase_later(&self, user: &str, exchange: &mut Exchange<'_>) -> Result<bool, Failure> {
        self.app.erase_durably(user, exchange.ticket())?;
        match exchange.wait(LEDGER_WAIT_MS) {
            Waited::Done => Ok(false),
            Waited::Late | Waited::Failed => Err(Failure::NotDurable),
        }
    }

    fn cached_of(&self, user: &str, exchange: &mut Exchange<'_>) -> Vec<Box<str>> {
        let user = user.to_owned();
        let read = move |ledger: &dyn Ledger| ledger.belongings(&user, ERASED_POSTS_CACHED_MAX);
        let read = self.app.ask_ledger(exchange.ticket(), read);
        // A ledger that does not answer: what is cached runs out by itself.
        let Ok(Belongings { posts, liked }) = finish(read, exchange) else { return Vec::new() };
        let hashtags = posts.iter().flat_map(|(_, hashtags)| hashtags).flat_map(|hashtag| search_keys(hashtag));
        let likes = posts.iter().map(|(post, _)| post).chain(&liked).map(|post| likes_key(post));
        hashtags.chain(likes).collect()
    }
}
