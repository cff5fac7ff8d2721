//! `POST /api/posts/like` and `/api/posts/{postId}/like`: an action is answered with the state right after it, once
//! the ledger has committed it.

use std::borrow::Cow;
use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};

use super::cached::{Kept, from_ledger, keep, read_failed};
use super::query::{Query, decode};
use super::wire::{Rejection, Scalar, event_id, id, id_fault};
use super::{Api, answer, content};
use crate::app::ingest::Decisions;
use crate::app::{App, likes_key};
use crate::cache::{Fill, FillError, Filled};
use crate::events::{Event, EventType};
use crate::http::{Exchange, Method, Request, Waited};
use crate::limits::{EVENT_BYTES_MAX, LEDGER_WAIT_MS};
use crate::ports::{Likes, Verdict};

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, expecting = "an object")]
struct WireLike<'a> {
    #[serde(borrow)]
    user_id: Scalar<'a>,
    #[serde(borrow)]
    post_id: Scalar<'a>,
    #[serde(borrow)]
    action: Scalar<'a>,
    #[serde(borrow)]
    event_id: Scalar<'a>,
}

/// What a request asks for: valid, and its own.
struct Wanted {
    event: Event<'static>,
    post: String,
    user: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Outcome<'a> {
    post_id: &'a str,
    user_id: &'a str,
    liked: bool,
    like_count: i64,
    changed: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Queued<'a> {
    post_id: &'a str,
    user_id: &'a str,
    status: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct State<'a> {
    post_id: &'a str,
    like_count: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    liked: Option<bool>,
}

impl Api {
    /// `POST /api/posts/like`: everything is in the body.
    pub(super) fn post_like(&self, request: &Request<'_>, exchange: &mut Exchange<'_>) {
        exchange.settle();
        let wanted = content::read(request, EVENT_BYTES_MAX, exchange).and_then(|body| {
            let wire: WireLike<'_> = content::object(body.text()?)?;
            let action = action(&wire.action)?;
            let post = id("postId", wire.post_id)?.ok_or_else(|| required("postId"))?.into_owned();
            self.wanted(action, post, wire.user_id, wire.event_id)
        });
        self.take_wanted(wanted, exchange);
    }

    /// `PUT` and `DELETE /api/posts/{postId}/like`: the user is in the body, or in the query where clients send none.
    pub(super) fn set_like(&self, post: &str, request: &Request<'_>, exchange: &mut Exchange<'_>) {
        let action = if request.method == Method::Put { EventType::Like } else { EventType::Unlike };
        let wanted = content::read(request, EVENT_BYTES_MAX, exchange).and_then(|body| {
            let post = post_of_path(post)?;
            let query = Query::parse(request.query)?;
            let mut wire = match body.text()?.trim_ascii() {
                "" => WireLike::default(),
                text => content::object(text)?,
            };
            if let (Scalar::Absent, Some(user)) = (&wire.user_id, query.get("userId")) {
                wire.user_id = Scalar::Text(Cow::Borrowed(user));
            }
            self.wanted(action, post, wire.user_id, wire.event_id)
        });
        self.take_wanted(wanted, exchange);
    }

    pub(super) fn get_like(&self, post: &str, request: &Request<'_>, exchange: &mut Exchange<'_>) {
        let parsed = post_of_path(post).and_then(|post| {
            let user = Query::parse(request.query)?.get("userId").map(str::to_owned);
            match user.as_deref().and_then(id_fault) {
                Some(fault) => Err(Rejection::of_field("invalid_parameter", "userId", fault)),
                None => Ok((post, user)),
            }
        });
        let (post, user) = match parsed {
            Ok(parsed) => parsed,
            Err(rejection) => return answer::rejected(exchange, rejection),
        };
        let Some(user) = user else { return self.like_count(&post, exchange) };
        let read = self.app.likes(post.clone(), Some(user), exchange.ticket());
        match self.finish(read, exchange) {
            Some(Ok(Likes { like_count, liked })) => {
                let state = State { post_id: &post, like_count, liked: Some(liked) };
                answer::json_with(exchange, 200, &[answer::PRIVATE], &state);
            }
            other => answer::read_failed(exchange, other.and_then(Result::err)),
        }
    }

    /// The count alone is the same for everybody: cached.
    fn like_count(&self, post: &str, exchange: &mut Exchange<'_>) {
        let fill = || {
            let (app, post) = (self.app.clone(), post.to_owned());
            Fill(vec![from_ledger(move || counted(&app, &post))])
        };
        let classes = &self.app.caching.classes;
        let Some(shown) = self.cached(&likes_key(post), &classes.likes, fill, exchange) else { return };
        match serde_json::from_slice(Kept::of(&shown.copy.value).body) {
            Ok(like_count) => answer::json(exchange, 200, &State { post_id: post, like_count, liked: None }),
            Err(_) => answer::unwritable(exchange),
        }
    }

    fn wanted(
        &self,
        event_type: EventType,
        post: String,
        user: Scalar<'_>,
        event: Scalar<'_>,
    ) -> Result<Wanted, Rejection> {
        let user = id("userId", user)?.ok_or_else(|| required("userId"))?.into_owned();
        let client_id = event_id(event)?;
        let now_ms = self.app.clock.now_ms();
        let event = Event {
            id: client_id.unwrap_or_else(|| self.app.new_id(now_ms)),
            id_from_client: client_id.is_some(),
            event_type,
            user_id: Some(user.clone().into()),
            session_id: None,
            component_id: None,
            element_id: None,
            keyword: None,
            post_id: Some(post.clone().into()),
            url: None,
            referrer: None,
            result_count: None,
            properties: None,
            event_time_ms: now_ms,
            received_at_ms: now_ms,
        };
        Ok(Wanted { event, post, user })
    }

    fn take_wanted(&self, wanted: Result<Wanted, Rejection>, exchange: &mut Exchange<'_>) {
        match wanted {
            Err(rejection) => {
                self.app.counters.rejected.fetch_add(1, Ordering::Relaxed);
                answer::rejected(exchange, rejection);
            }
            Ok(wanted) => match self.app.take_like(&wanted.event, exchange.ticket()) {
                Err(why) => answer::refused(exchange, why),
                Ok(decisions) => self.answer_like(&wanted, &decisions, exchange),
            },
        }
    }

    fn answer_like(&self, wanted: &Wanted, decisions: &Decisions, exchange: &mut Exchange<'_>) {
        let Some(waited) = answer::waited(exchange, LEDGER_WAIT_MS, decisions) else { return };
        let (post_id, user_id) = (wanted.post.as_str(), wanted.user.as_str());
        let verdict = if waited == Waited::Done { decisions.verdict() } else { None };
        let outcome = match verdict {
            Some(Verdict::Like(outcome)) => Some((outcome.liked, outcome.like_count, outcome.changed)),
            Some(Verdict::Dead) => return answer::dead(exchange),
            Some(Verdict::Erased) => return answer::erased(exchange),
            // Done by an earlier request of that id, which may have been long ago: what holds now is the answer.
            Some(Verdict::Duplicate) => self.likes_now(wanted, exchange).map(|now| (now.liked, now.like_count, false)),
            // Late; or the ledger's reply was lost, and of an action that changed nothing no count is written down.
            _ => None,
        };
        if outcome.is_none_or(|(_, _, changed)| changed) {
            // Its count, and nothing else, or likes would empty the cache.
            self.forget(&[likes_key(post_id)], exchange);
        }
        match outcome {
            Some((liked, like_count, changed)) => {
                answer::json(exchange, 200, &Outcome { post_id, user_id, liked, like_count, changed });
            }
            None => answer::json(exchange, 202, &Queued { post_id, user_id, status: "queued" }),
        }
    }

    fn likes_now(&self, wanted: &Wanted, exchange: &mut Exchange<'_>) -> Option<Likes> {
        let read = self.app.likes(wanted.post.clone(), Some(wanted.user.clone()), exchange.ticket());
        self.finish(read, exchange)?.ok()
    }
}

/// A post's likes, read to be kept. None is what the ledger knows of a post that nobody ever liked.
fn counted(app: &App, post: &str) -> Result<Filled, FillError> {
    let as_of_ms = app.ledger_status.as_of_ms();
    let Likes { like_count, .. } = app.ledger.likes(post, None).map_err(read_failed(FillError::Busy))?;
    Ok(Filled { is_null: like_count == 0, ..keep(&like_count, as_of_ms, &like_count)? })
}

fn action(value: &Scalar<'_>) -> Result<EventType, Rejection> {
    let named = match value {
        Scalar::Absent => Some(EventType::Toggle),
        Scalar::Text(name) if name.eq_ignore_ascii_case("toggle") => Some(EventType::Toggle),
        Scalar::Text(name) if name.eq_ignore_ascii_case("like") => Some(EventType::Like),
        Scalar::Text(name) if name.eq_ignore_ascii_case("unlike") => Some(EventType::Unlike),
        _ => None,
    };
    named.ok_or_else(|| Rejection::of_field("invalid_field", "action", "must be toggle, like or unlike"))
}

pub(super) fn required(field: &'static str) -> Rejection {
    Rejection::of_field("missing_field", field, "is required")
}

/// The post's id in a path: percent-decoded once, and one that a body could hold.
pub(super) fn post_of_path(segment: &str) -> Result<String, Rejection> {
    let post = decode(segment, false)?;
    match id_fault(&post) {
        Some(fault) => Err(Rejection::of_field("invalid_parameter", "postId", fault)),
        None => Ok(post.into_owned()),
    }
}
