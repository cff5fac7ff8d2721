//! Search: what many posts say is found by walking them from the most liked on, what few say by an index; the text decides.

use postgres::types::{ToSql, Type};

use super::connect::{Failure, Session};
use super::read::post_of;
use crate::ledger_fold::keyword_grams;
use crate::limits::SEARCH_WALK_POSTS;
use crate::ports::{Post, PostSearch};

/// The first matches among the most liked posts: if they are as many as were asked for, nothing else can come before them.
const WALK: &str = "WITH top AS MATERIALIZED (SELECT post_id, like_count AS likes FROM post_stat \
       WHERE made_at IS NOT NULL ORDER BY like_count DESC, made_at DESC, post_id LIMIT $4) \
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
              ORDER BY likes DESC, found.created_at DESC, post_id LIMIT $4) \
     SELECT post_id, user_id, content, hashtags, image_urls, (extract(epoch FROM post.created_at) * 1000)::int8, likes \
       FROM best JOIN post USING (post_id) ORDER BY likes DESC, post.created_at DESC, post_id";

/// How the server goes about both ways: for people who measure.
pub(super) fn plans(session: &mut Session, query: &PostSearch) -> Result<Vec<String>, Failure> {
    let (limit, grams) = (i64::try_from(query.limit).unwrap_or(i64::MAX), keyword_grams(&query.keyword));
    let mut explain = |sql: &str, values: &[(&(dyn ToSql + Sync), Type)]| -> Result<Vec<String>, Failure> {
        let rows = session.client.query_typed(&format!("EXPLAIN (ANALYZE, COSTS OFF) {sql}"), values)?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    };
    let keyword: (&(dyn ToSql + Sync), Type) = (&query.keyword, Type::TEXT);
    let hashtag: (&(dyn ToSql + Sync), Type) = (&query.hashtag, Type::TEXT);
    let limit: (&(dyn ToSql + Sync), Type) = (&limit, Type::INT8);
    let walk = explain(WALK, &[hashtag.clone(), keyword.clone(), limit.clone(), (&SEARCH_WALK_POSTS, Type::INT8)])?;
    let find = explain(FIND, &[hashtag, (&grams, Type::INT4_ARRAY), keyword, limit])?;
    Ok([vec!["the walk".to_owned()], walk, vec!["the index".to_owned()], find].concat())
}

/// Planned for each keyword anew: the plan for one that few posts have would take seconds where many have it.
pub(super) fn posts(session: &mut Session, query: &PostSearch) -> Result<Vec<Post>, Failure> {
    let limit = i64::try_from(query.limit).unwrap_or(i64::MAX);
    let values: [(&(dyn ToSql + Sync), Type); 4] = [
        (&query.hashtag, Type::TEXT),
        (&query.keyword, Type::TEXT),
        (&limit, Type::INT8),
        (&SEARCH_WALK_POSTS, Type::INT8),
    ];
    let walked = session.client.query_typed(WALK, &values)?;
    if walked.len() >= query.limit {
        return Ok(walked.iter().map(post_of).collect());
    }
    let grams = keyword_grams(&query.keyword);
    let values: [(&(dyn ToSql + Sync), Type); 4] =
        [(&query.hashtag, Type::TEXT), (&grams, Type::INT4_ARRAY), (&query.keyword, Type::TEXT), (&limit, Type::INT8)];
    Ok(session.client.query_typed(FIND, &values)?.iter().map(post_of).collect())
}
