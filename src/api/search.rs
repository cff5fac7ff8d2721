//! `GET /api/search`: posts by hashtag or by their content, those with most likes first; the search itself is an event.
//!
//! An answer is bounded in bytes. `next` names the last post of a page, and the next page begins after its place in the
//! order, whatever was liked meanwhile.

use std::borrow::Cow;

use serde::Deserialize;

use super::answer::{self, Answered, Failure};
use super::cacheable;
use super::cached::{Kept, from_ledger, keep_written, read_failed, unwritable};
use super::posts::PostBody;
use super::query::{Query, TIME_MS_MAX, read_cursor, write_cursor};
use super::state::Api;
use super::wire::{Rejection, id_fault};
use crate::app::reads::Source;
use crate::app::{App, search_key};
use crate::cache::{Fill, FillError, Filled, Policy};
use crate::events::{fold_hashtag, fold_keyword};
use crate::http::{Exchange, Method, Request};
use crate::limits::{ANSWER_BYTES_MAX, ANSWER_FRAME_BYTES_MAX, LIST_ROWS_MAX, SEARCH_POSTS};
use crate::ports::{PostRank, PostSearch};

struct Wanted {
    user: Option<String>,
    /// As typed: trimmed, NFC.
    keyword: String,
    query: PostSearch,
    /// The first page becomes a SEARCH event.
    record: bool,
}

/// Posts as they are cached: how many, where each ends, and the array that they are. A shorter list is a piece of it.
struct Found<'a> {
    ends: &'a [[u8; 4]],
    array: &'a [u8],
    /// The search finds more than these.
    has_more: bool,
}

struct Page<'a> {
    count: usize,
    /// The array without its last bracket.
    posts: &'a [u8],
    /// The last post, if there are more after it.
    last: Option<&'a [u8]>,
}

/// The flag of [`Found::has_more`], beside the number of posts.
const MORE: u8 = 0x80;
const _: () = assert!(LIST_ROWS_MAX < MORE as usize);

impl<'a> Found<'a> {
    /// As many of the rows as an answer holds and `limit` allows. There may be one more row, which is not shown.
    fn write(rows: &[PostBody<'_, String>], limit: usize) -> Result<Vec<u8>, FillError> {
        let (mut ends, mut array) = (Vec::with_capacity(4 * rows.len()), vec![b'[']);
        for row in rows.iter().take(limit) {
            let before = array.len();
            if before > 1 {
                array.push(b',');
            }
            serde_json::to_writer(&mut array, row).map_err(unwritable)?;
            if before > 1 && array.len() + ANSWER_FRAME_BYTES_MAX > ANSWER_BYTES_MAX {
                array.truncate(before);
                break;
            }
            let end = u32::try_from(array.len()).map_err(|_| FillError::Internal)?;
            ends.push(end.to_le_bytes());
        }
        array.push(b']');
        let more = if ends.len() < rows.len() { MORE } else { 0 };
        let count = u8::try_from(ends.len()).map_err(|_| FillError::Internal)?;
        Ok([&[count | more], ends.as_flattened(), &array].concat())
    }

    /// `None`: another version cached something else.
    fn read(body: &'a [u8]) -> Option<Found<'a>> {
        let (count, rest) = body.split_first()?;
        let (ends, array) = rest.split_at_checked(4 * usize::from(count & !MORE))?;
        Some(Found { ends: ends.as_chunks().0, array, has_more: count & MORE != 0 })
    }

    /// The first posts, up to `limit`.
    fn first(&self, limit: usize) -> Option<Page<'a>> {
        let count = self.ends.len().min(limit);
        let end = |at: usize| u32::from_le_bytes(self.ends[at]) as usize;
        let until = count.checked_sub(1).map_or(1, end);
        let has_more = self.has_more || count < self.ends.len();
        let last = match count {
            1.. if has_more => Some(self.array.get(count.checked_sub(2).map_or(0, end) + 1..until)?),
            _ => None,
        };
        Some(Page { count, posts: self.array.get(..until)?, last })
    }
}

/// The place of a rendered post: what a cursor names.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Place<'a> {
    #[serde(borrow)]
    post_id: Cow<'a, str>,
    #[serde(borrow)]
    created_at: Cow<'a, str>,
    like_count: i64,
}

/// What a cursor holds: a version, a checksum of what is searched for, so that a cursor of one search is none of another,
/// and likes, time and id of the last post.
type Cursor = (u8, u32, i64, i64, String);

fn next_page(keyword: &str, post: &[u8]) -> Option<String> {
    let Place { post_id, created_at, like_count } = serde_json::from_slice(post).ok()?;
    let at_ms = created_at.parse::<jiff::Timestamp>().ok()?.as_millisecond();
    write_cursor(&(1, crc32c::crc32c(keyword.as_bytes()), like_count, at_ms, post_id))
}

fn place_in(keyword: &str, cursor: &str) -> Option<PostRank> {
    let (version, sum, like_count, created_at_ms, post_id): Cursor = read_cursor(cursor)?;
    let is_ours = version == 1
        && sum == crc32c::crc32c(keyword.as_bytes())
        && like_count >= 0
        && (0..=TIME_MS_MAX).contains(&created_at_ms)
        && id_fault(&post_id).is_none();
    is_ours.then_some(PostRank { like_count, created_at_ms, post_id })
}

impl Api {
    pub(super) fn search(&self, _: &str, request: &Request<'_>, exchange: &mut Exchange<'_>) -> Answered {
        let Wanted { user, keyword, query, record } = wanted(request.query)?;
        let is_first = query.after.is_none();
        // Of the first page one of two sizes is read and cached, so that a write knows which keys there are.
        let size = match query.limit {
            limit if !is_first => limit,
            ..=SEARCH_POSTS => SEARCH_POSTS,
            _ => LIST_ROWS_MAX,
        };
        let fill = || {
            let (app, query) = (self.app.clone(), query.clone());
            Fill(vec![from_ledger(move || found(&app, query, size))])
        };
        let policy = self.app.caching.classes.search;
        let policy = if is_first { policy } else { Policy { fresh_ms: 0, ..policy } };
        let shown = self.cached(&search_key(&query.keyword, size), &policy, fill, exchange)?;
        let kept = Kept::of(&shown.copy.value);
        let found = Found::read(kept.body).ok_or(Failure::Unwritable)?;
        let page = found.first(query.limit).ok_or(Failure::Unwritable)?;
        if record && request.method == Method::Get && is_first {
            self.app.record_search(user.as_deref(), &keyword, page.count, exchange.ticket());
        }
        let (source, stale) = if shown.is_late { ("cache", true) } else { (Source::Ledger.name(), false) };
        // Of all posts there is a hash already.
        let says = if page.count == found.ends.len() { kept.tag.as_bytes() } else { page.posts };
        let tag = cacheable::tag_of(&(says, page.count, &keyword, source, stale));
        let next = page.last.and_then(|post| next_page(&query.keyword, post));
        let body = render(&keyword, page.posts, next.as_deref(), shown.copy.as_of_ms, source, stale);
        let body = body.map_err(|_| Failure::Unwritable)?;
        cacheable::tagged(exchange, request, self.access.rules.keys.read.is_open(), &shown.copy, &tag, &body);
        Ok(())
    }
}

fn render(
    keyword: &str,
    posts: &[u8],
    next: Option<&str>,
    as_of_ms: i64,
    source: &str,
    stale: bool,
) -> serde_json::Result<Vec<u8>> {
    let mut body = Vec::with_capacity(posts.len() + 2 * keyword.len() + next.map_or(0, str::len) + 128);
    body.extend_from_slice(br#"{"keyword":"#);
    serde_json::to_writer(&mut body, keyword)?;
    body.extend_from_slice(br#","posts":"#);
    body.extend_from_slice(posts);
    body.push(b']');
    if let Some(next) = next {
        body.extend_from_slice(format!(r#","next":"{next}""#).as_bytes());
    }
    body.extend_from_slice(br#","asOf":"#);
    serde_json::to_writer(&mut body, &answer::as_of(as_of_ms))?;
    body.extend_from_slice(format!(r#","source":"{source}","stale":{stale}}}"#).as_bytes());
    Ok(body)
}

/// The posts that are found, read and rendered: an array. One more than `size` tells whether there are more.
fn found(app: &App, query: PostSearch, size: usize) -> Result<Filled, FillError> {
    let as_of_ms = app.ledger_status.as_of_ms();
    let posts =
        app.ledger.search(&PostSearch { limit: size + 1, ..query }).map_err(read_failed(FillError::TooBroad))?;
    let rows: Vec<PostBody<'_, String>> = posts.iter().map(PostBody::of).collect();
    Ok(keep_written(as_of_ms, &Found::write(&rows, size)?))
}

fn wanted(query: &str) -> Result<Wanted, Rejection> {
    let query = Query::parse(query)?;
    let keyword = query.keyword("keyword")?.ok_or_else(|| Rejection::parameter("keyword", "is required"))?.into_owned();
    let user = query.user()?.map(str::to_owned);
    let record = match query.get("record") {
        None | Some("true") => true,
        Some("false") => false,
        Some(_) => return Err(Rejection::parameter("record", "must be true or false")),
    };
    let limit = query.limit(SEARCH_POSTS, LIST_ROWS_MAX)?;
    let (folded, hashtag) = (fold_keyword(&keyword).into_owned(), fold_hashtag(&keyword));
    let after = query.get("cursor").map(|text| {
        let reason = "is not one of this search: pass `next` of the page before, with the same keyword";
        place_in(&folded, text).ok_or_else(|| Rejection::of_field("invalid_cursor", "cursor", reason))
    });
    let query = PostSearch { after: after.transpose()?, keyword: folded, hashtag, limit };
    Ok(Wanted { user, keyword, query, record })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::Post;

    #[test]
    fn a_shorter_list_is_a_piece_of_the_one_that_is_kept() {
        let post = |id: &str| Post {
            post_id: id.into(),
            user_id: "u".into(),
            content: "], \"a\"".into(),
            hashtags: Vec::new(),
            image_urls: Vec::new(),
            created_at_ms: 0,
            like_count: 0,
        };
        let posts: Vec<Post> = ["1", "b", "\u{1F408}"].map(post).into();
        for n in 0..=posts.len() {
            let rows: Vec<_> = posts[..n].iter().map(PostBody::of).collect();
            let kept = Found::write(&rows, 4).unwrap();
            for limit in 1..=4 {
                let Page { count, posts: array, last } = Found::read(&kept).unwrap().first(limit).unwrap();
                let next = last.map(|post| next_page("\"", post).unwrap());
                let place = next.as_deref().map(|next| place_in("\"", next).unwrap().post_id);
                assert_eq!(place.as_deref(), (limit < n).then(|| &*posts[limit - 1].post_id));
                let body = render("\"", array, next.as_deref(), 0, "ledger", false).unwrap();
                let answer: serde_json::Value = serde_json::from_slice(&body).unwrap();
                let shown: Vec<&str> =
                    answer["posts"].as_array().unwrap().iter().map(|p| p["postId"].as_str().unwrap()).collect();
                let expected: Vec<&str> = posts[..n.min(limit)].iter().map(|p| &*p.post_id).collect();
                assert_eq!((shown, count, answer["keyword"].as_str()), (expected, n.min(limit), Some("\"")));
            }
        }
        assert!(
            Found::read(b"").is_none() && Found::read(b"[{}]").is_none(),
            "what another version kept breaks nothing"
        );
    }
}
