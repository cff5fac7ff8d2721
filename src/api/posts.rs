//! `/api/posts`: made, replaced, read and deleted.
//!
//! A given `postId` that is taken replaces that post. Its time stays, unless `createdAt` says another; its likes stay.
//! Deleting removes the post and its likes, and is a success where there is nothing (left) to delete. Events that name
//! it stay, and so do the exact counts of them.

use std::borrow::Cow;

use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::answer::{self, Answered, Decided, Failure, decided, finish};
use super::content;
use super::likes::required;
use super::query::id_of_path;
use super::state::Api;
use super::wire::{Rejection, Scalar, id, moment, text};
use crate::app::ingest::Decisions;
use crate::app::{likes_key, search_keys};
use crate::events::{PostDelete, PostPut, fold_hashtag};
use crate::http::{Exchange, Request};
use crate::limits::{
    EVENT_FUTURE_MS_MAX, HASHTAG_BYTES_MAX, POST_BYTES_MAX, POST_CONTENT_BYTES_MAX, POST_HASHTAGS_MAX, POST_IMAGES_MAX,
    POST_LIST_ITEMS_MAX, URL_BYTES_MAX,
};
use crate::ports::{Post, PostOutcome, Verdict};
use crate::sinks::Until;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, expecting = "an object")]
struct WirePost<'a> {
    #[serde(borrow)]
    post_id: Scalar<'a>,
    user_id: Scalar<'a>,
    content: Scalar<'a>,
    hashtags: Option<&'a RawValue>,
    image_urls: Option<&'a RawValue>,
    created_at: Scalar<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PostBody<'a, T: Serialize> {
    post_id: &'a str,
    user_id: &'a str,
    content: &'a str,
    hashtags: &'a [T],
    image_urls: &'a [T],
    created_at: String,
    like_count: i64,
}

impl<'a> PostBody<'a, String> {
    pub(super) fn of(post: &'a Post) -> PostBody<'a, String> {
        PostBody {
            post_id: &post.post_id,
            user_id: &post.user_id,
            content: &post.content,
            hashtags: &post.hashtags,
            image_urls: &post.image_urls,
            created_at: answer::rfc3339(post.created_at_ms),
            like_count: post.like_count,
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Queued<'a> {
    post_id: &'a str,
    status: &'static str,
}

impl Api {
    pub(super) fn post_post(&self, _: &str, request: &Request<'_>, exchange: &mut Exchange<'_>) -> Answered {
        exchange.settle();
        let body = content::read(request, POST_BYTES_MAX, exchange)?;
        let (put, given) = self.parse_post(body.text()?)?;
        // Before the write: the hashtags of the post that it replaces.
        let before = self.cached_under(&put.post_id, given, exchange);
        let decisions = self.app.decide(Until::Ledger, exchange.ticket(), |bytes| put.encode(bytes))?;
        let outcome = outcome(&decisions, exchange)?;
        let now = put.hashtags.iter().flat_map(|hashtag| search_keys(hashtag));
        let keys: Vec<Box<str>> = before.into_iter().chain(now).collect();
        self.forget(&keys, exchange);
        answer_put(&put, outcome, exchange)
    }

    /// The keys under which a post that is there already is kept.
    fn cached_under(&self, post_id: &str, may_be_there: bool, exchange: &mut Exchange<'_>) -> Vec<Box<str>> {
        if !may_be_there {
            return Vec::new();
        }
        let id = post_id.to_owned();
        let read = self.app.ask_ledger(exchange.ticket(), move |ledger| ledger.post(&id));
        // A ledger that does not answer cannot show the old one either, but for what is cached already.
        let Ok(Some(post)) = finish(read, exchange) else { return vec![likes_key(post_id)] };
        post.hashtags.iter().flat_map(|hashtag| search_keys(hashtag)).chain([likes_key(post_id)]).collect()
    }

    pub(super) fn get_post(&self, post: &str, _: &Request<'_>, exchange: &mut Exchange<'_>) -> Answered {
        let id = id_of_path("postId", post)?.into_owned();
        let read = self.app.ask_ledger(exchange.ticket(), move |ledger| ledger.post(&id));
        let post = finish(read, exchange)?.ok_or(Failure::NotFound("there is no post with this id"))?;
        answer::json(exchange, 200, &PostBody::of(&post))
    }

    pub(super) fn delete_post(&self, post: &str, _: &Request<'_>, exchange: &mut Exchange<'_>) -> Answered {
        let post = id_of_path("postId", post)?.into_owned();
        let before = self.cached_under(&post, true, exchange);
        let delete = PostDelete { post_id: (&*post).into(), at_ms: self.app.clock.now_ms() };
        let decisions = self.app.decide(Until::Ledger, exchange.ticket(), |bytes| delete.encode(bytes))?;
        let outcome = outcome(&decisions, exchange)?;
        self.forget(&before, exchange);
        match outcome {
            Some(_) => answer::empty(exchange, 204),
            None => queued(&post, exchange),
        }
    }

    fn parse_post(&self, body: &str) -> Result<(PostPut<'static>, bool), Rejection> {
        let wire: WirePost<'_> = content::object(body)?;
        let now_ms = self.app.clock.now_ms();
        let given = id("postId", wire.post_id)?.map(Cow::into_owned);
        let is_given = given.is_some();
        let post_id = given.unwrap_or_else(|| self.app.new_id(now_ms).to_string());
        let content = text("content", wire.content, POST_CONTENT_BYTES_MAX)?;
        let content = content.filter(|content| !content.trim().is_empty()).ok_or_else(|| required("content"))?;
        let put = PostPut {
            post_id: post_id.into(),
            user_id: id("userId", wire.user_id)?.ok_or_else(|| required("userId"))?.into_owned().into(),
            content: content.into_owned().into(),
            hashtags: hashtags(wire.hashtags)?,
            image_urls: image_urls(wire.image_urls)?,
            created_at_ms: created_at(&wire.created_at, now_ms)?,
            at_ms: now_ms,
        };
        Ok((put, is_given))
    }
}

/// What the ledger made of a post; `None`: it is in the journal and will be applied in order.
fn outcome(decisions: &Decisions, exchange: &mut Exchange<'_>) -> Result<Option<PostOutcome>, Failure> {
    Ok(match decided(exchange, decisions)? {
        Decided::Now(Some(Verdict::Post(outcome))) => Some(outcome),
        _ => None,
    })
}

fn answer_put(put: &PostPut<'_>, outcome: Option<PostOutcome>, exchange: &mut Exchange<'_>) -> Answered {
    let Some(PostOutcome::Put { replaced, created_at_ms, like_count, .. }) = outcome else {
        return queued(&put.post_id, exchange);
    };
    let body = PostBody {
        post_id: &put.post_id,
        user_id: &put.user_id,
        content: &put.content,
        hashtags: &put.hashtags,
        image_urls: &put.image_urls,
        created_at: answer::rfc3339(created_at_ms),
        like_count,
    };
    answer::json(exchange, if replaced { 200 } else { 201 }, &body)
}

fn queued(post_id: &str, exchange: &mut Exchange<'_>) -> Answered {
    answer::json(exchange, 202, &Queued { post_id, status: "queued" })
}

/// The first items of a list, one more than it may have; the rest is only parsed.
struct FirstItems<'a>(Vec<Scalar<'a>>);

impl<'de: 'a, 'a> Deserialize<'de> for FirstItems<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Items;
        impl<'de> Visitor<'de> for Items {
            type Value = FirstItems<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an array of strings")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
                let mut first = Vec::new();
                while first.len() <= POST_LIST_ITEMS_MAX
                    && let Some(item) = items.next_element()?
                {
                    first.push(item);
                }
                while items.next_element::<IgnoredAny>()?.is_some() {}
                Ok(FirstItems(first))
            }
        }
        deserializer.deserialize_seq(Items)
    }
}

/// The strings of a list, those that are null or empty left out; each is judged by `keep`, given the ones before it.
fn list(
    field: &'static str,
    value: Option<&RawValue>,
    items_max: usize,
    keep: impl Fn(&str, &[Cow<'static, str>]) -> Result<Option<String>, Rejection>,
) -> Result<Vec<Cow<'static, str>>, Rejection> {
    let not_a_list = || Rejection::value(field, "must be an array of strings");
    let Some(value) = value.map(RawValue::get).filter(|value| *value != "null") else { return Ok(Vec::new()) };
    let too_many = |max: usize| Rejection::value(field, format!("must have at most {max} items"));
    let FirstItems(items) = serde_json::from_str(value).map_err(|_| not_a_list())?;
    if items.len() > POST_LIST_ITEMS_MAX {
        return Err(too_many(POST_LIST_ITEMS_MAX));
    }
    let mut kept: Vec<Cow<'static, str>> = Vec::new();
    for item in items {
        let item = match item {
            Scalar::Absent => continue,
            Scalar::Text(item) if item.len() > URL_BYTES_MAX => {
                let reason = format!("must have at most {URL_BYTES_MAX} bytes each");
                return Err(Rejection::value(field, reason));
            }
            Scalar::Text(item) => keep(&item, &kept)?,
            _ => return Err(not_a_list()),
        };
        let Some(item) = item else { continue };
        if kept.len() == items_max {
            return Err(too_many(items_max));
        }
        kept.push(Cow::Owned(item));
    }
    Ok(kept)
}

fn hashtags(value: Option<&RawValue>) -> Result<Vec<Cow<'static, str>>, Rejection> {
    list("hashtags", value, POST_HASHTAGS_MAX, |typed, kept| {
        let folded = Scalar::Text(fold_hashtag(typed).into());
        let hashtag = text("hashtags", folded, HASHTAG_BYTES_MAX)?.map(Cow::into_owned);
        Ok(hashtag.filter(|hashtag| kept.iter().all(|known| known != hashtag)))
    })
}

fn image_urls(value: Option<&RawValue>) -> Result<Vec<Cow<'static, str>>, Rejection> {
    list("imageUrls", value, POST_IMAGES_MAX, |url, _| {
        text("imageUrls", Scalar::Text(Cow::Borrowed(url)), URL_BYTES_MAX).map(|kept| kept.map(Cow::into_owned))
    })
}

/// When the post was made, for those who bring posts from elsewhere.
fn created_at(value: &Scalar<'_>, now_ms: i64) -> Result<Option<i64>, Rejection> {
    let at_ms = moment("createdAt", value)?;
    match at_ms {
        Some(at_ms) if !(0..=now_ms + EVENT_FUTURE_MS_MAX).contains(&at_ms) => {
            Err(Rejection::value("createdAt", "must be between 1970 and now"))
        }
        _ => Ok(at_ms),
    }
}
