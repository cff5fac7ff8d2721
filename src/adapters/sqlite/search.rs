//! Search: what many posts say is found by walking them from the most liked on, what few say by an index; the text decides.

use std::borrow::Cow;

use rusqlite::types::Type;
use rusqlite::{OptionalExtension, Result, Row, Transaction, params};

use crate::ledger::stats::search::{content_grams, first_posts, keyword_grams};
use crate::limits::{SEARCH_GRAM_ROWS_COUNTED, SEARCH_WALK_POSTS};
use crate::ports::{Post, PostRank, PostSearch};

/// The first matches among the most liked posts: if they are as many as were asked for, nothing else can come before them.
const WALK: &str = "SELECT p.post_id, user_id, content, hashtags, image_urls, p.created_at, like_count FROM \
       (SELECT post_id, like_count, made_at FROM post_stat WHERE made_at IS NOT NULL \
          AND like_count <= ?5 AND (like_count < ?5 OR made_at < ?6 OR made_at = ?6 AND post_id > ?7) \
        ORDER BY like_count DESC, made_at DESC, post_id LIMIT ?4) AS top \
       CROSS JOIN post p ON p.post_id = top.post_id \
     WHERE instr(coalesce(p.folded, p.content), ?2) > 0 OR EXISTS (SELECT 1 FROM json_each(hashtags) WHERE value = ?1) \
     ORDER BY like_count DESC, made_at DESC, top.post_id LIMIT ?3";

/// CROSS JOIN keeps the order: from the index to the posts, never through all posts.
const SEARCH: &str = "WITH \
     found AS MATERIALIZED ( \
         SELECT post_id FROM post_term WHERE term = ?1 UNION \
         SELECT t.post_id FROM post_term t CROSS JOIN post p ON p.post_id = t.post_id \
         WHERE t.term = ?2 AND instr(coalesce(p.folded, p.content), ?3) > 0), \
     best AS MATERIALIZED ( \
         SELECT p.post_id, coalesce(like_count, 0) AS likes FROM found f CROSS JOIN post p ON p.post_id = f.post_id \
         LEFT JOIN post_stat s ON s.post_id = p.post_id \
         WHERE coalesce(like_count, 0) < ?5 OR coalesce(like_count, 0) = ?5 \
           AND (p.created_at < ?6 OR p.created_at = ?6 AND p.post_id > ?7) ORDER BY likes DESC, p.created_at DESC, p.post_id LIMIT ?4) \
     SELECT p.post_id, user_id, content, hashtags, image_urls, created_at, likes FROM best b \
       CROSS JOIN post p ON p.post_id = b.post_id ORDER BY likes DESC, created_at DESC, p.post_id";

pub(super) fn posts(transaction: &Transaction<'_>, query: &PostSearch) -> Result<Vec<Post>> {
    let limit = i64::try_from(query.limit).unwrap_or(i64::MAX);
    let PostRank { like_count, created_at_ms, post_id } = query.after.clone().unwrap_or_else(PostRank::before_all);
    let mut walk = transaction.prepare_cached(WALK)?;
    let values = params![query.hashtag, query.keyword, limit, SEARCH_WALK_POSTS, like_count, created_at_ms, post_id];
    let (walked, is_enough) = first_posts(walk.query_map(values, post_of)?, query.limit)?;
    if is_enough {
        return Ok(walked);
    }
    let gram = rarest(transaction, &query.keyword)?;
    let mut statement = transaction.prepare_cached(SEARCH)?;
    let values = params![query.hashtag, gram, query.keyword, limit, like_count, created_at_ms, post_id];
    Ok(first_posts(statement.query_map(values, post_of)?, query.limit)?.0)
}

/// The number of a keyword that fewest posts have: every post that matches has it, as it has the others.
fn rarest(transaction: &Transaction<'_>, keyword: &str) -> Result<Option<i32>> {
    let mut count =
        transaction.prepare_cached("SELECT count(*) FROM (SELECT 1 FROM post_term WHERE term = ?1 LIMIT ?2)")?;
    let mut fewest: Option<(i64, i32)> = None;
    for gram in keyword_grams(keyword) {
        let most = fewest.map_or(SEARCH_GRAM_ROWS_COUNTED, |(rows, _)| rows);
        let rows = count.query_row(params![gram, most], |row| row.get(0))?;
        fewest = fewest.into_iter().chain([(rows, gram)]).min();
    }
    Ok(fewest.map(|(_, gram)| gram))
}

/// Puts a post into the index, under what [`forget`] took out or was never there.
pub(super) fn remember(
    transaction: &Transaction<'_>,
    post_id: &str,
    folded: &str,
    hashtags: &[Cow<'_, str>],
) -> Result<()> {
    let mut insert = transaction.prepare_cached("INSERT OR IGNORE INTO post_term (term, post_id) VALUES (?1, ?2)")?;
    for gram in content_grams(folded) {
        insert.execute(params![gram, post_id])?;
    }
    for hashtag in hashtags {
        insert.execute(params![hashtag, post_id])?;
    }
    Ok(())
}

/// Takes a post out of the index, before it is replaced or removed: what it is found by is told by what it says.
pub(super) fn forget(transaction: &Transaction<'_>, post_id: &str) -> Result<()> {
    let kept = "SELECT coalesce(folded, content), hashtags FROM post WHERE post_id = ?1";
    let kept: Option<(String, String)> =
        transaction.prepare_cached(kept)?.query_row([post_id], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    let Some((folded, hashtags)) = kept else { return Ok(()) };
    let mut delete = transaction.prepare_cached("DELETE FROM post_term WHERE term = ?1 AND post_id = ?2")?;
    for gram in content_grams(&folded) {
        delete.execute(params![gram, post_id])?;
    }
    transaction
        .prepare_cached("DELETE FROM post_term WHERE post_id = ?1 AND term IN (SELECT value FROM json_each(?2))")?
        .execute(params![post_id, hashtags])?;
    Ok(())
}

/// Post, user, content, hashtags, images, milliseconds, likes: in this order.
fn post_of(row: &Row<'_>) -> Result<Post> {
    let list = |column| -> Result<Vec<String>> {
        let text = row.get_ref(column)?.as_str()?;
        serde_json::from_str(text).map_err(|e| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, e.into()))
    };
    Ok(Post {
        post_id: row.get(0)?,
        user_id: row.get(1)?,
        content: row.get(2)?,
        hashtags: list(3)?,
        image_urls: list(4)?,
        created_at_ms: row.get(5)?,
        like_count: row.get(6)?,
    })
}
