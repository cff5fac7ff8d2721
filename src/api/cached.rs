//! Reads through the cache: a request waits for its flight here, and what was filled is rendered and kept as it is sent.
//!
//! A kept value is an ETag and a JSON body that says where it was read and that it is not stale; an answer that took a
//! stale value in the place of a fill says the other thing. Of a search the posts alone are kept (`search::Found`).

use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;
use std::hash::Hash;

use super::answer::{Answered, Failure};
use super::cacheable;
use super::state::Api;
use crate::cache::{Ask, Copy, Fill, FillError, Filled, Hit, How, Lane, Outcome, Policy, Stage};
use crate::http::{Exchange, Request, Waited};
use crate::limits::{CACHE_REVALIDATE_WAIT_MS, CACHE_WRITE_WAIT_MS};
use crate::ports::StoreError;
use crate::runtime::complete;

pub(super) struct Shown {
    pub(super) copy: Arc<Copy>,
    how: How,
    age_ms: u64,
    /// It expired long ago and took the place of a fill that did not come in time.
    pub(super) is_late: bool,
}

impl Api {
    pub(super) fn cached(
        &self,
        key: &str,
        policy: &Policy,
        fill: impl Fn() -> Fill,
        exchange: &mut Exchange<'_>,
    ) -> Result<Shown, Failure> {
        let shown = self.ask(key, policy, &fill, exchange).map_err(Failure::Unfilled)?;
        let age = (shown.age_ms / 1_000).to_string();
        exchange.carry(&[("X-Cache", shown.how.name()), ("Age", &age)]);
        Ok(shown)
    }

    pub(super) fn answer_cached(
        &self,
        key: &str,
        policy: &Policy,
        fill: impl Fn() -> Fill,
        request: &Request<'_>,
        exchange: &mut Exchange<'_>,
    ) -> Answered {
        let shown = self.cached(key, policy, fill, exchange)?;
        let kept = Kept::of(&shown.copy.value);
        let is_open = self.access.rules.keys.read.is_open();
        match shown.is_late.then(|| as_stale(kept.body)).flatten() {
            // What it says is another thing: so is its tag.
            Some(body) => {
                let tag = cacheable::tag_of(&(kept.tag, "stale"));
                cacheable::tagged(exchange, request, is_open, &shown.copy, &tag, &body);
            }
            None => cacheable::tagged(exchange, request, is_open, &shown.copy, kept.tag, kept.body),
        }
        Ok(())
    }

    fn ask(
        &self,
        key: &str,
        policy: &Policy,
        fill: &impl Fn() -> Fill,
        exchange: &mut Exchange<'_>,
    ) -> Result<Shown, FillError> {
        let cache = &self.app.caching.cache;
        // Most answers are at hand and need no second look at the clock.
        let mut began = None;
        let mut deaths = 0;
        loop {
            let (flight, copy) = match cache.ask(key, policy, fill) {
                Ask::Have(hit) => return Ok(shown(hit)),
                Ask::Failed(error) => return Err(error),
                Ask::Wait(flight, copy) => (flight, copy),
            };
            let began = *began.get_or_insert_with(Instant::now);
            let insists = copy.is_none();
            let mut patience_ms = CACHE_REVALIDATE_WAIT_MS;
            let outcome = loop {
                let left_ms = u64::from(policy.deadline_ms).saturating_sub(ms_since(began));
                let ticket = exchange.ticket().clone();
                let end = flight.join(insists, || {
                    ticket.add();
                    Box::new(move || complete([ticket], true))
                });
                if end.is_some() || left_ms == 0 {
                    break end;
                }
                if exchange.wait(patience_ms.min(left_ms)) != Waited::Late {
                    break flight.shown();
                }
                let fallback = copy.clone().and_then(|copy| cache.late(copy, policy));
                let fallback = fallback.or_else(|| cache.fallback(key, policy));
                if let Some(hit) = fallback {
                    cache.stats.waited(ms_since(began));
                    return Ok(late(hit));
                }
                patience_ms = left_ms;
            };
            cache.stats.waited(ms_since(began));
            match (outcome, copy) {
                (Some(Outcome::Hit(hit)), _) if hit.how == How::Stale => {
                    return Ok(shown(cache.stats.at_once(hit)));
                }
                (Some(Outcome::Hit(hit)), _) => return Ok(shown(hit)),
                (_, Some(copy)) => return cache.late(copy, policy).map(late).ok_or(FillError::Away),
                // Joined while it was giving up: the next one is told that somebody insists.
                (Some(Outcome::Ducked), None) => {}
                (Some(Outcome::Died), None) if deaths == 0 => deaths += 1,
                (Some(Outcome::Failed(error)), None) => {
                    return cache.fallback(key, policy).map(late).ok_or(error);
                }
                (Some(Outcome::Died) | None, None) => return Err(FillError::Away),
            }
        }
    }

    /// What is cached under `keys` was written: it goes here at once, and elsewhere before this returns; or, where that
    /// takes too long, before anybody reads it here again.
    pub(super) fn forget(&self, keys: &[Box<str>], exchange: &mut Exchange<'_>) {
        if keys.is_empty() {
            return;
        }
        self.app.wrote(keys.to_vec(), exchange.ticket());
        if exchange.wait(CACHE_WRITE_WAIT_MS) == Waited::Late {
            self.app.caching.cache.overdue(keys);
        }
    }
}

fn shown(Hit { copy, how, age_ms }: Hit) -> Shown {
    Shown { copy, how, age_ms, is_late: false }
}

fn late(hit: Hit) -> Shown {
    Shown { is_late: hit.how == How::Stale, ..shown(hit) }
}

fn ms_since(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// What the body of an answer that is served late says: not from where it was read once.
fn as_stale(body: &[u8]) -> Option<Vec<u8>> {
    // A quote within a JSON string is escaped: these bytes are found where the field is, and nowhere else.
    let text = std::str::from_utf8(body).ok()?;
    let (before, rest) = text.split_once(r#","source":""#)?;
    let (_, after) = rest.split_once('"')?;
    let after = after.strip_prefix(r#","stale":"#)?;
    let after = after.strip_prefix("false").or_else(|| after.strip_prefix("true"))?;
    Some(format!(r#"{before},"source":"cache","stale":true{after}"#).into_bytes())
}

pub(super) struct Kept<'a> {
    pub(super) tag: &'a str,
    pub(super) body: &'a [u8],
}

impl<'a> Kept<'a> {
    pub(super) fn of(value: &'a [u8]) -> Kept<'a> {
        let (tag, body) = value.split_at(cacheable::TAG_BYTES.min(value.len()));
        Kept { tag: std::str::from_utf8(tag).unwrap_or_default(), body }
    }
}

/// A value to keep: a body that says `says`, behind its ETag, both as they are sent.
pub(super) fn keep(says: &impl Hash, as_of_ms: i64, body: &impl Serialize) -> Result<Filled, FillError> {
    let mut value = cacheable::tag_of(says).into_bytes();
    serde_json::to_writer(&mut value, body).map_err(unwritable)?;
    Ok(Filled { value: value.into(), as_of_ms, is_null: false })
}

pub(super) fn keep_written(as_of_ms: i64, body: &[u8]) -> Filled {
    let value = [cacheable::tag_of(&body).as_bytes(), body].concat();
    Filled { value: value.into(), as_of_ms, is_null: false }
}

/// What a value that cannot be rendered means to those who wait for it.
#[allow(clippy::needless_pass_by_value, reason = "it stands in map_err")]
pub(super) fn unwritable(error: serde_json::Error) -> FillError {
    tracing::error!(%error, "an answer could not be written");
    FillError::Internal
}

pub(super) fn from_ledger(run: impl FnOnce() -> Result<Filled, FillError> + Send + 'static) -> Stage {
    Stage { lane: Lane::Ledger, run: Box::new(run) }
}

pub(super) fn from_live(run: impl FnOnce() -> Result<Filled, FillError> + Send + 'static) -> Stage {
    Stage { lane: Lane::Live, run: Box::new(run) }
}

/// What a failed read means to the requests that wait for it; `cancelled` if the store ended it for want of time.
pub(super) fn read_failed(cancelled: FillError) -> impl Fn(StoreError) -> FillError {
    move |error| match error {
        StoreError::Retry(_) => {
            tracing::debug!(%error, "a read did not come to an end");
            FillError::Away
        }
        StoreError::Cancelled(_) => {
            tracing::debug!(%error, "a read was cancelled");
            cancelled
        }
        StoreError::Poison(_) | StoreError::Fenced { .. } | StoreError::Fatal(_) => {
            tracing::error!(%error, "a read failed");
            FillError::Internal
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_body_says_so_and_nothing_else_of_it_changes() {
        let body =
            br#"{"keyword":",\"source\":\"live\",\"stale\":false","asOf":"x","source":"ledger","stale":false,"n":1}"#;
        let late =
            br#"{"keyword":",\"source\":\"live\",\"stale\":false","asOf":"x","source":"cache","stale":true,"n":1}"#;
        assert_eq!(as_stale(body).as_deref(), Some(&late[..]));
        assert_eq!(as_stale(b"{}"), None);
    }

    #[test]
    fn a_kept_value_is_taken_apart_as_it_was_put_together() {
        let filled = keep(&"says", 1, &[1, 2]).unwrap();
        let kept = Kept::of(&filled.value);
        assert_eq!((kept.tag, kept.body), (cacheable::tag_of(&"says").as_str(), &b"[1,2]"[..]));
        assert!(Kept::of(b"short").body.is_empty(), "what another version kept breaks nothing");
    }
}
