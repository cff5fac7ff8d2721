//! Posts, their likes, and what a batch decided on its records.

use uuid::Uuid;

use crate::ledger::batch::verdicts::{VerdictRow, log_ranges, merge_verdicts};
use crate::ledger::sql::{Row, Sql, Value};
use crate::ports::{Belongings, Erasure, LikeOutcome, Likes, Position, Post, StoreError, Verdicts, Watermark};

pub fn watermark(sql: &mut dyn Sql, stream: Uuid) -> Result<Option<Watermark>, StoreError> {
    let query = "SELECT position, crc FROM watermark WHERE stream = $1";
    Ok(sql.first(query, &[Value::Uuid(stream)])?.map(|row| watermark_of(&row, 0)))
}

pub fn watermark_of(row: &Row, column: usize) -> Watermark {
    Watermark { position: row.count(column), crc: u32::try_from(row.int(column + 1)).unwrap_or(u32::MAX) }
}

pub fn verdicts(
    sql: &mut dyn Sql,
    stream: Uuid,
    after: Position,
    up_to: Position,
) -> Result<Option<Verdicts>, StoreError> {
    let bound = |position| i64::try_from(position).unwrap_or(i64::MAX);
    let (after, up_to) = (bound(after), bound(up_to));
    let pruned = "SELECT 1 FROM watermark WHERE stream = $1 AND pruned > $2";
    if sql.first(pruned, &[Value::Uuid(stream), Value::Int(after)])?.is_some() {
        return Ok(None);
    }
    let within = |after, up_to| [Value::Uuid(stream), Value::Int(after), Value::Int(up_to)];
    let rows = "SELECT position, kind, created_at_ms, likes, version FROM verdict \
         WHERE stream = $1 AND position > $2 AND position <= $3 ORDER BY position";
    let of_row = |row: &Row| {
        let (kind, created_at_ms, likes) = (row.int(1) as i16, row.opt_int(2), row.opt_int(3));
        (row.int(0), VerdictRow { kind, created_at_ms, likes, version: row.opt_int(4) })
    };
    let rows: Vec<(i64, VerdictRow)> = sql.query(rows, &within(after, up_to))?.iter().map(of_row).collect();
    let mut log = Vec::new();
    for (after, up_to) in log_ranges(after, up_to, &rows) {
        let likes = "SELECT position, action, like_count, version FROM post_like_log \
             WHERE stream = $1 AND position > $2 AND position <= $3";
        log.extend(sql.query(likes, &within(after, up_to))?.iter().map(|row| (row.int(0), like_outcome(row))));
    }
    Ok(Some(merge_verdicts(rows, log)))
}

fn like_outcome(row: &Row) -> LikeOutcome {
    LikeOutcome { liked: row.text(1) == "LIKE", changed: true, like_count: row.int(2), version: row.int(3) }
}

/// What the erasure at a position did to posts.
pub fn erasure(sql: &mut dyn Sql, stream: Uuid, position: Position) -> Result<Erasure, StoreError> {
    let mut rows = |query: &str| -> Result<Vec<(String, i64)>, StoreError> {
        let mut rows = sql.query(query, &[Value::Uuid(stream), Value::Int(position.cast_signed())])?;
        Ok(rows.iter_mut().map(|row| (row.take_text(0), row.int(1))).collect())
    };
    let unliked =
        "SELECT post_id, count(*) FROM post_like_log WHERE stream = $1 AND position = $2 GROUP BY 1 ORDER BY 1";
    let deleted = "SELECT post_id, version FROM tombstone WHERE stream = $1 AND position = $2 ORDER BY 1";
    Ok(Erasure { unliked: rows(unliked)?, deleted: rows(deleted)? })
}

/// The posts that a person made or likes.
pub fn belongings(sql: &mut dyn Sql, user: &str, limit: usize) -> Result<Belongings, StoreError> {
    let hashtags = sql.dialect().json("hashtags");
    let posts = format!("SELECT post_id, {hashtags} FROM post WHERE user_id = $1 LIMIT {limit}");
    let mut posts = sql.query(&posts, &[Value::Text(user)])?;
    let liked = format!("SELECT post_id FROM post_like WHERE user_id = $1 LIMIT {limit}");
    let mut liked = sql.query(&liked, &[Value::Text(user)])?;
    Ok(Belongings {
        posts: posts.iter_mut().map(|row| (row.take_text(0), list_of(row, 1))).collect(),
        liked: liked.iter_mut().map(|row| row.take_text(0)).collect(),
    })
}

fn list_of(row: &Row, column: usize) -> Vec<String> {
    serde_json::from_str(row.text(column)).unwrap_or_default()
}

pub fn likes(sql: &mut dyn Sql, post: &str, user: Option<&str>) -> Result<Likes, StoreError> {
    let query = "SELECT coalesce((SELECT like_count FROM post_stat WHERE post_id = $1), 0), \
                        (SELECT count(*) FROM post_like WHERE post_id = $1 AND user_id = $2)";
    let row = sql.first(query, &[Value::Text(post), Value::OptText(user)])?;
    Ok(row.map_or(Likes::default(), |row| Likes { like_count: row.int(0), liked: row.int(1) > 0 }))
}

pub fn post(sql: &mut dyn Sql, post: &str) -> Result<Option<Post>, StoreError> {
    let dialect = sql.dialect();
    let query = format!(
        "SELECT post_id, user_id, content, {}, {}, {}, coalesce(like_count, 0) \
         FROM post LEFT JOIN post_stat USING (post_id) WHERE post_id = $1",
        dialect.json("hashtags"),
        dialect.json("image_urls"),
        dialect.ms("created_at")
    );
    let post_of = |mut row: Row| Post {
        post_id: row.take_text(0),
        user_id: row.take_text(1),
        content: row.take_text(2),
        hashtags: list_of(&row, 3),
        image_urls: list_of(&row, 4),
        created_at_ms: row.int(5),
        like_count: row.int(6),
    };
    Ok(sql.first(&query, &[Value::Text(post)])?.map(post_of))
}
