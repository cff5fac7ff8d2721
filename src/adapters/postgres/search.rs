//! Search: what many posts say is found by walking them from the most liked on, what few say by an index; the text decides.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use postgres::Row;
use postgres::fallible_iterator::FallibleIterator;
use postgres::types::{ToSql, Type};

use super::connect::{Failure, Session};
use crate::ledger::stats::search::{first_posts, keyword_grams};
use crate::limits::SEARCH_WALK_POSTS;
use crate::ports::{Post, PostRank, PostSearch};

/// The first matches among the most liked posts: if they are as many as were asked for, nothing else can come before them.
const WALK: &str = "WITH top AS MATERIALIZED (SELECT post_id, like_count AS likes FROM post_stat \
       WHERE made_at IS NOT NULL AND like_count <= $5 \
         AND (like_count < $5 OR made_at < $6 OR made_at = $6 AND post_id > $7) \
       ORDER BY like_count DESC, made_at DESC, post_id LIMIT $4) \
     SELECT post_id, user_id, content, hashtags, image_urls, (extract(epoch FROM post.created_at) * 1000)::int8, likes \
       FROM top JOIN post USING (post_id) \
       WHERE strpos(coalesce(folded, content), $2) > 0 OR hashtags @> ARRAY[$1] \
       ORDER BY likes DESC, post.created_at DESC, post_id LIMIT $3";

/// All matches, ranked. Two look-ups and not one with OR: that would read the numbers of every post it finds, to ask them
/// again. The second leaves out what the first has, which is cheaper than to find what came twice. What takes longer than a
/// read may, the server ends.
const FIND: &str = "WITH \
     found AS (SELECT post_id, created_at FROM post WHERE hashtags @> ARRAY[$1] UNION ALL \
               SELECT post_id, created_at FROM post \
               WHERE grams @> $2 AND strpos(coalesce(folded, content), $3) > 0 AND NOT hashtags @> ARRAY[$1]), \
     best AS (SELECT post_id, found.created_at, coalesce(like_count, 0) AS likes \
              FROM found LEFT JOIN post_stat USING (post_id) \
              WHERE coalesce(like_count, 0) < $5 OR coalesce(like_count, 0) = $5 \
                AND (found.created_at < $6 OR found.created_at = $6 AND post_id > $7) \
              ORDER BY likes DESC, found.created_at DESC, post_id LIMIT $4) \
     SELECT post_id, user_id, content, hashtags, image_urls, (extract(epoch FROM post.created_at) * 1000)::int8, likes \
       FROM best JOIN post USING (post_id) ORDER BY likes DESC, post.created_at DESC, post_id";

/// What both statements are given, each value with its type.
struct Values {
    hashtag: String,
    keyword: String,
    grams: Vec<i32>,
    limit: i64,
    likes: i64,
    created_at: SystemTime,
    post_id: String,
}

type Typed<'v> = [(&'v (dyn ToSql + Sync), Type); 7];

impl Values {
    fn of(query: &PostSearch) -> Values {
        let PostRank { like_count, created_at_ms, post_id } = query.after.clone().unwrap_or_else(PostRank::before_all);
        let limit = i64::try_from(query.limit).unwrap_or(i64::MAX);
        let created_at = UNIX_EPOCH + Duration::from_millis(u64::try_from(created_at_ms).unwrap_or(0));
        let (hashtag, keyword, grams) = (query.hashtag.clone(), query.keyword.clone(), keyword_grams(&query.keyword));
        Values { hashtag, keyword, grams, limit, likes: like_count, created_at, post_id }
    }

    fn after(&self) -> [(&(dyn ToSql + Sync), Type); 3] {
        [(&self.likes, Type::INT8), (&self.created_at, Type::TIMESTAMPTZ), (&self.post_id, Type::TEXT)]
    }

    fn of_walk(&self) -> Typed<'_> {
        let [likes, at, id] = self.after();
        let (hashtag, keyword) = ((&self.hashtag as _, Type::TEXT), (&self.keyword as _, Type::TEXT));
        [hashtag, keyword, (&self.limit, Type::INT8), (&SEARCH_WALK_POSTS, Type::INT8), likes, at, id]
    }

    fn of_find(&self) -> Typed<'_> {
        let [likes, at, id] = self.after();
        let (hashtag, keyword) = ((&self.hashtag as _, Type::TEXT), (&self.keyword as _, Type::TEXT));
        [hashtag, (&self.grams, Type::INT4_ARRAY), keyword, (&self.limit, Type::INT8), likes, at, id]
    }
}

/// How the server goes about both ways: for people who measure.
pub(super) fn plans(session: &mut Session, query: &PostSearch) -> Result<Vec<String>, Failure> {
    let values = Values::of(query);
    let mut explain = |sql: &str, values: &[(&(dyn ToSql + Sync), Type)]| -> Result<Vec<String>, Failure> {
        let rows = session.client.query_typed(&format!("EXPLAIN (ANALYZE, COSTS OFF) {sql}"), values)?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    };
    let walk = explain(WALK, &values.of_walk())?;
    let find = explain(FIND, &values.of_find())?;
    Ok([vec!["the walk".to_owned()], walk, vec!["the index".to_owned()], find].concat())
}

/// Planned for each keyword anew: the plan for one that few posts have would take seconds where many have it.
pub(super) fn posts(session: &mut Session, query: &PostSearch) -> Result<Vec<Post>, Failure> {
    let values = Values::of(query);
    let (walked, is_enough) = read(session, WALK, values.of_walk(), query.limit)?;
    if is_enough {
        return Ok(walked);
    }
    Ok(read(session, FIND, values.of_find(), query.limit)?.0)
}

/// Row by row, so that no more than an answer is in memory.
fn read(session: &mut Session, sql: &str, values: Typed<'_>, limit: usize) -> Result<(Vec<Post>, bool), Failure> {
    let mut rows = session.client.query_typed_raw(sql, values)?;
    let rows = std::iter::from_fn(|| rows.next().transpose());
    Ok(first_posts(rows.map(|row| row.map(|row| post_of(&row))), limit)?)
}

/// Post, user, content, hashtags, images, milliseconds, likes: in this order.
fn post_of(row: &Row) -> Post {
    Post {
        post_id: row.get(0),
        user_id: row.get(1),
        content: row.get(2),
        hashtags: row.get(3),
        image_urls: row.get(4),
        created_at_ms: row.get(5),
        like_count: row.get(6),
    }
}
