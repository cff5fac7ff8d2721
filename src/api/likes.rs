//! `POST /api/posts/like` and `/api/posts/{postId}/like`: an action is answered with the state right after it, once
//! the ledger has committed it.

use std::borrow::Cow;
use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};

use super::answer::{self, Answered, Decided, Failure, decided, finish};
use super::cached::{Kept, from_ledger, keep, read_failed};
use super::content;
use super::query::{Query, id_of_path};
use super::state::Api;
use super::wire::{Rejection, Scalar, event_id, id};
use crate::app::{App, likes_key};
use crate::cache::{Fill, FillError, Filled};
use crate::events::{Event, EventType};
use crate::http::{Exchange, Method, Request};
use crate::limits::EVENT_BYTES_MAX;
use crate::ports::{Likes, Verdict};

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, expecting = "an object")]
struct WireLike<'a> {
    #[serde(borrow)]
    user_id: Scalar<'a>,
    post_id: Scalar<'a>,
    action: Scalar<'a>,
    event_id: Scalar<'a>,
}

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
    pub(super) fn post_like(&self, _: &str, request: &Request<'_>, exchange: &mut Exchange<'_>) -> Answered {
        exchange.settle();
        let wanted = content::read(request, EVENT_BYTES_MAX, exchange).and_then(|body| {
            let wire: WireLike<'_> = content::object(body.text()?)?;
            let action = action(&wire.action)?;
            let post = id("postId", wire.post_id)?.ok_or_else(|| required("postId"))?.into_owned();
            self.wanted(action, post, wire.user_id, wire.event_id)
        });
        self.take_wanted(wanted, exchange)
    }

    /// `PUT` and `DELETE /api/posts/{postId}/like`: the user is in the body, or in the query of clients that send none.
    pub(super) fn set_like(&self, post: &str, request: &Request<'_>, exchange: &mut Exchange<'_>) -> Answered {
        let action = if request.method == Method::Put { EventType::Like } else { EventType::Unlike };
        let wanted = content::read(request, EVENT_BYTES_MAX, exchange).and_then(|body| {
            let post = id_of_path("postId", post)?.into_owned();
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
        self.take_wanted(wanted, exchange)
    }

    pub(super) fn get_like(&self, post: &str, request: &Request<'_>, exchange: &mut Exchange<'_>) -> Answered {
        let post = id_of_path("postId", post)?.into_owned();
        let query = Query::parse(request.query)?;
        let Some(user) = query.user()? else { return self.like_count(&post, exchange) };
        let Likes { like_count, liked } = self.likes_of(&post, user, exchange)?;
        let state = State { post_id: &post, like_count, liked: Some(liked) };
        answer::json_with(exchange, 200, &[answer::PRIVATE], &state)
    }

    /// The post's likes now, and whether the user is among them.
    fn likes_of(&self, post: &str, user: &str, exchange: &mut Exchange<'_>) -> Result<Likes, Failure> {
        let (post, user) = (post.to_owned(), user.to_owned());
        finish(self.app.ask_ledger(exchange.ticket(), move |ledger| ledger.likes(&post, Some(&user))), exchange)
    }

    /// The count alone is the same for everybody: cached.
    fn like_count(&self, post: &str, exchange: &mut Exchange<'_>) -> Answered {
        let fill = || {
            let (app, post) = (self.app.clone(), post.to_owned());
            Fill(vec![from_ledger(move || counted(&app, &post))])
        };
        let shown = self.cached(&likes_key(post), &self.app.caching.classes.likes, fill, exchange)?;
        let like_count = serde_json::from_slice(Kept::of(&shown.copy.value).body).map_err(|_| Failure::Unwritable)?;
        answer::json(exchange, 200, &State { post_id: post, like_count, liked: None })
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
            id_from_client: client_id.is_some(),
            user_id: Some(user.clone().into()),
            post_id: Some(post.clone().into()),
            ..Event::new(client_id.unwrap_or_else(|| self.app.new_id(now_ms)), event_type, now_ms)
        };
        Ok(Wanted { event, post, user })
    }

    fn take_wanted(&self, wanted: Result<Wanted, Rejection>, exchange: &mut Exchange<'_>) -> Answered {
        let wanted = wanted.inspect_err(|_| _ = self.app.counters.rejected.fetch_add(1, Ordering::Relaxed))?;
        let decisions = self.app.take_like(&wanted.event, exchange.ticket())?;
        let (post_id, user_id) = (wanted.post.as_str(), wanted.user.as_str());
        let outcome = match decided(exchange, &decisions)? {
            Decided::Now(Some(Verdict::Like(outcome))) => Some((outcome.liked, outcome.like_count, outcome.changed)),
            // Done by an earlier request of that id, which may have been long ago: what holds now is the answer.
            Decided::Now(Some(Verdict::Duplicate)) => {
                self.likes_of(post_id, user_id, exchange).ok().map(|now| (now.liked, now.like_count, false))
            }
            // Late; or the ledger's reply was lost, and of an action that changed nothing no count is written down.
            _ => None,
        };
        if outcome.is_none_or(|(_, _, changed)| changed) {
            // Its count, and nothing else, or likes would empty the cache.
            self.forget(&[likes_key(post_id)], exchange);
        }
        match outcome {
            Some((liked, like_count, changed)) => {
                answer::json(exchange, 200, &Outcome { post_id, user_id, liked, like_count, changed })
            }
            None => answer::json(exchange, 202, &Queued { post_id, user_id, status: "queued" }),
        }
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
    named.ok_or_else(|| Rejection::value("action", "must be toggle, like or unlike"))
}

pub(super) fn required(field: &'static str) -> Rejection {
    Rejection::of_field("missing_field", field, "is required")
}
