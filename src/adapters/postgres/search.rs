//! Search: the index gives the posts worth looking at, the text decides, likes rank.

use postgres::types::{ToSql, Type};

use super::connect::{Failure, Session};
use super::read::post_of;
use crate::ledger_fold::keyword_grams;
use crate::ports::{Post, PostSearch};

/// Two look-ups and not one with OR: that would read the numbers of every post it finds, to ask them again. The second
/// leaves out what the first has, which is cheaper than to find what came twice.
///
/// Measured: below 1 ms among 1,000 posts; among a million up to 10 ms for a keyword that few have, 0.3 to 0.7 s for
/// one that 5 to 66 in 100 have, as the likes of all of them are read. What takes longer than a read may, the server
/// ends.
const SEARCH: &str = "WITH \
     found AS (SELECT post_id, created_at FROM post WHERE hashtags @> ARRAY[$1] UNION ALL \
               SELECT post_id, created_at FROM post \
               WHERE grams @> $2 AND strpos(coalesce(folded, content), $3) > 0 AND NOT hashtags @> ARRAY[$1]), \
     best AS (SELECT post_id, created_at, coalesce(like_count, 0) AS likes \
              FROM found LEFT JOIN post_stat USING (post_id) \
              ORDER BY likes DESC, created_at DESC, post_id LIMIT $4) \
     SELECT post_id, user_id, content, hashtags, image_urls, (extract(epoch FROM post.created_at) * 1000)::int8, likes \
       FROM best JOIN post USING (post_id) ORDER BY likes DESC, post.created_at DESC, post_id";

/// Planned for each keyword anew: the plan for one that few posts have would take seconds where many have it.
pub(super) fn posts(session: &mut Session, query: &PostSearch) -> Result<Vec<Post>, Failure> {
    let grams = keyword_grams(&query.keyword);
    let limit = i64::try_from(query.limit).unwrap_or(i64::MAX);
    let values: [(&(dyn ToSql + Sync), Type); 4] =
        [(&query.hashtag, Type::TEXT), (&grams, Type::INT4_ARRAY), (&query.keyword, Type::TEXT), (&limit, Type::INT8)];
    Ok(session.client.query_typed(SEARCH, &values)?.iter().map(post_of).collect())
}
