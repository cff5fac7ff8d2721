//! `GET /api/search`: posts by hashtag or by what they say, those with most likes first; the search itself is an event.

use super::cached::{Kept, from_ledger, keep_written, read_failed, unwritable};
use super::posts::PostBody;
use super::query::Query;
use super::wire::{Rejection, id_fault};
use super::{Api, answer, cacheable};
use crate::app::App;
use crate::app::reads::Source;
use crate::cache::{Fill, FillError, Filled};
use crate::events::{fold_hashtag, fold_keyword};
use crate::http::{Exchange, Method, Request};
use crate::limits::{LIST_ROWS_MAX, SEARCH_POSTS};
use crate::ports::PostSearch;

/// What a request asks for: valid, and its own.
struct Wanted {
    user: Option<String>,
    /// As typed: trimmed, NFC.
    keyword: String,
    query: PostSearch,
}

/// Posts as they are kept: their number, where each ends, and the array that they are. A shorter list is a piece of it.
struct Found<'a> {
    ends: &'a [[u8; 4]],
    array: &'a [u8],
}

impl<'a> Found<'a> {
    fn write(rows: &[PostBody<'_, String>]) -> Result<Vec<u8>, FillError> {
        let count = u8::try_from(rows.len()).expect("LIST_ROWS_MAX fits");
        let (mut ends, mut array) = (Vec::with_capacity(4 * rows.len()), vec![b'[']);
        for (at, row) in rows.iter().enumerate() {
            if at > 0 {
                array.push(b',');
            }
            serde_json::to_writer(&mut array, row).map_err(unwritable)?;
            let end = u32::try_from(array.len()).map_err(|_| FillError::TooLarge)?;
            ends.extend_from_slice(&end.to_le_bytes());
        }
        array.push(b']');
        Ok([&[count], ends.as_slice(), &array].concat())
    }

    /// `None`: another version kept something else.
    fn read(body: &'a [u8]) -> Option<Found<'a>> {
        let (count, rest) = body.split_first()?;
        let (ends, array) = rest.split_at_checked(4 * usize::from(*count))?;
        Some(Found { ends: ends.as_chunks().0, array })
    }

    /// The first posts, up to `limit`: their number, and the array without its last bracket.
    fn first(&self, limit: usize) -> Option<(usize, &'a [u8])> {
        let count = self.ends.len().min(limit);
        let end = count.checked_sub(1).map_or(1, |last| u32::from_le_bytes(self.ends[last]) as usize);
        Some((count, self.array.get(..end)?))
    }
}

impl Api {
    pub(super) fn search(&self, request: &Request<'_>, exchange: &mut Exchange<'_>) {
        let Wanted { user, keyword, query } = match wanted(request.query) {
            Ok(wanted) => wanted,
            Err(rejection) => return answer::rejected(exchange, rejection),
        };
        // One of two sizes is read and kept, whatever was asked for: a write knows which keys there are.
        let size = if query.limit <= SEARCH_POSTS { SEARCH_POSTS } else { LIST_ROWS_MAX };
        let fill = || {
            let (app, query) = (self.app.clone(), PostSearch { limit: size, ..query.clone() });
            Fill(vec![from_ledger(move || found(&app, &query))])
        };
        let key = search_key(&query.keyword, size);
        let Some(shown) = self.cached(&key, &self.app.caching.classes.search, fill, exchange) else { return };
        let kept = Kept::of(&shown.copy.value);
        let Some(found) = Found::read(kept.body) else { return answer::unwritable(exchange) };
        let Some((count, posts)) = found.first(query.limit) else { return answer::unwritable(exchange) };
        if request.method == Method::Get {
            self.app.record_search(user.as_deref(), &keyword, count, exchange.ticket());
        }
        let (source, stale) = if shown.is_late { ("cache", true) } else { (Source::Ledger.name(), false) };
        // Of all posts there is a hash already.
        let says = if count == found.ends.len() { kept.tag.as_bytes() } else { posts };
        let tag = cacheable::tag_of(&(says, count, &keyword, source, stale));
        let Ok(body) = render(&keyword, posts, shown.copy.as_of_ms, source, stale) else {
            return answer::unwritable(exchange);
        };
        cacheable::tagged(exchange, request, self.access.rules.keys.read.is_open(), &shown.copy, &tag, &body);
    }
}

/// The answer around posts that are rendered.
fn render(keyword: &str, posts: &[u8], as_of_ms: i64, source: &str, stale: bool) -> serde_json::Result<Vec<u8>> {
    let mut body = Vec::with_capacity(posts.len() + 2 * keyword.len() + 128);
    body.extend_from_slice(br#"{"keyword":"#);
    serde_json::to_writer(&mut body, keyword)?;
    body.extend_from_slice(br#","posts":"#);
    body.extend_from_slice(posts);
    body.extend_from_slice(br#"],"asOf":"#);
    serde_json::to_writer(&mut body, &answer::as_of(as_of_ms))?;
    body.extend_from_slice(format!(r#","source":"{source}","stale":{stale}}}"#).as_bytes());
    Ok(body)
}

/// The posts that are found, read and rendered: an array.
fn found(app: &App, query: &PostSearch) -> Result<Filled, FillError> {
    let as_of_ms = app.ledger_status.as_of_ms();
    let posts = app.ledger.search(query).map_err(read_failed)?;
    let rows: Vec<PostBody<'_, String>> = posts.iter().map(PostBody::of).collect();
    Ok(keep_written(as_of_ms, &Found::write(&rows)?))
}

fn search_key(keyword: &str, size: usize) -> String {
    format!("found {size} {keyword}")
}

/// Under which keys searches that find a hashtag are kept.
pub(super) fn search_keys(hashtag: &str) -> impl Iterator<Item = Box<str>> {
    let typed = [fold_keyword(hashtag).into_owned(), format!("#{}", fold_keyword(hashtag))];
    typed.into_iter().flat_map(|typed| [SEARCH_POSTS, LIST_ROWS_MAX].map(|size| search_key(&typed, size).into()))
}

fn wanted(query: &str) -> Result<Wanted, Rejection> {
    let query = Query::parse(query)?;
    let invalid = |field, reason: &str| Rejection::of_field("invalid_parameter", field, reason);
    let keyword = query.keyword("keyword")?.ok_or_else(|| invalid("keyword", "is required"))?.into_owned();
    let user = query.get("userId").map(str::to_owned);
    if let Some(fault) = user.as_deref().and_then(id_fault) {
        return Err(invalid("userId", fault));
    }
    let limit = query.limit(SEARCH_POSTS, LIST_ROWS_MAX)?;
    let query = PostSearch { keyword: fold_keyword(&keyword).into_owned(), hashtag: fold_hashtag(&keyword), limit };
    Ok(Wanted { user, keyword, query })
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
            let kept = Found::write(&rows).unwrap();
            for limit in 1..=4 {
                let (count, array) = Found::read(&kept).unwrap().first(limit).unwrap();
                let body = render("\"", array, 0, "ledger", false).unwrap();
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
