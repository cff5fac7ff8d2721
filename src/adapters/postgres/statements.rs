//! The statements of a batch.
//!
//! Small batches are one statement and one round trip: moving the watermark gates every insert of it. Larger ones and those
//! that first have to read (ids, posts) are a transaction that shares its pieces. Every batch appends its counts to
//! `rollup_delta`; upkeep adds them to the rollups.

use std::sync::LazyLock;

use super::encode::EVENT_COLUMNS;

fn users(first: usize, gate: &str) -> String {
    format!(
        "u AS (INSERT INTO user_hour (hour, event_type, user_id) SELECT * FROM {} {gate} ON CONFLICT DO NOTHING)",
        unnest(first, &["int8", "int2", "text"])
    )
}

/// Rows of `rollup_delta` from parameter `first` on: dimensions, counts, and the last minute that counts in its hour only.
fn deltas(first: usize, gate: &str) -> String {
    let rows = unnest(first, &["int2", "bytea"]);
    format!(
        "d AS (INSERT INTO rollup_delta (dimension, counts, oldest_minute) SELECT *, ${}::int8 FROM {rows} {gate})",
        first + 2
    )
}

/// Rows of events from parameter `first` on; `number` is an expression, the journal's.
fn events(first: usize, number: &str, gate: &str) -> String {
    let rows = unnest(
        first,
        &[
            "uuid",
            "text",
            "text",
            "text",
            "int8",
            "text",
            "text",
            "text",
            "text",
            "text",
            "int8",
            "json",
            "timestamptz",
            "timestamptz",
            "text",
            "text",
            "int8",
        ],
    );
    format!("e AS (INSERT INTO events ({EVENT_COLUMNS}) SELECT *, {number} FROM {rows} {gate})")
}

/// From parameter `first` on: a watermark's new position and checksum, its stream and what they were, the latest erasure that the
/// writer knows of, and the latest time in the batch.
fn move_watermark(first: usize) -> String {
    let [position, crc, stream, from, from_crc, erased, newest] =
        [0, 1, 2, 3, 4, 5, 6].map(|at| format!("${}", first + at));
    format!(
        "UPDATE watermark SET position = {position}, crc = {crc}, newest_ms = greatest(newest_ms, {newest}) \
         WHERE stream = {stream} AND position = {from} AND crc = {from_crc} \
           AND NOT EXISTS (SELECT FROM erased WHERE seq > {erased})"
    )
}

const GATE: &str = "WHERE EXISTS (SELECT FROM w)";

/// A whole batch: deltas from $1 on, users from $4 on, events from $7 on, the watermark from $24 on, its first day $31. Returns
/// whether the watermark was moved, which it is not if it is another, if a user was erased that the writer does not know of, if
/// rows of the first day were deleted, or if likes are not as they were seen; the first day that has rows; and whether likes are
/// as they were seen.
fn apply_all(first: &str, is_as_seen: &str, likes: &str) -> String {
    format!(
        "WITH {first}w AS ({} AND (SELECT rows_since FROM rollup_state) <= $31 AND {is_as_seen} RETURNING number), \
         {}, {}, {}{likes} \
         SELECT EXISTS (SELECT FROM w), (SELECT rows_since FROM rollup_state), {is_as_seen}",
        move_watermark(24),
        events(7, "(SELECT number FROM w)", GATE),
        users(4, GATE),
        deltas(1, GATE),
    )
}

/// A batch without likes.
pub(super) static APPLY_ALL: LazyLock<String> = LazyLock::new(|| apply_all("", "true", ""));
/// A batch with likes of posts $32, which were seen at versions $33: whatever changes the likes of a post changes its version.
pub(super) static APPLY_LIKES: LazyLock<String> = LazyLock::new(|| {
    let is_as_seen = "(SELECT array_agg(version ORDER BY post_id) FROM l) IS NOT DISTINCT FROM $33::int8[]";
    let first = "l AS MATERIALIZED (SELECT post_id, version FROM post_stat WHERE post_id = ANY ($32::text[]) \
           ORDER BY post_id FOR UPDATE), ";
    apply_all(first, is_as_seen, &format!(", {}", write_likes(GATE, "$26", 34)))
});
/// The watermark of a transaction. Prepared by name, so that the text that opens the transaction has it executed.
pub(super) static PREPARE_MOVE: LazyLock<String> = LazyLock::new(|| {
    format!("PREPARE move_watermark (int8, int8, uuid, int8, int8, int8, int8) AS {}", move_watermark(1))
});
/// Deltas, users and events of an open transaction.
pub(super) static STORE: LazyLock<String> =
    LazyLock::new(|| format!("WITH {}, {}, {} SELECT 1", deltas(1, ""), users(4, ""), events(7, "$24::int2", "")));
/// Deltas and users, if the events went by COPY.
pub(super) static STORE_COUNTS: LazyLock<String> =
    LazyLock::new(|| format!("WITH {}, {} SELECT 1", deltas(1, ""), users(4, "")));
pub(super) static COPY: LazyLock<String> =
    LazyLock::new(|| format!("COPY events ({EVENT_COLUMNS}) FROM STDIN (FORMAT binary)"));

/// The journal's number, that of its rows in `events` (none for a probe), and the first day that has rows.
pub(super) const NUMBER: &str = "SELECT (SELECT number FROM watermark WHERE stream = $1), rows_since FROM rollup_state";
pub(super) const WATERMARK: &str = "SELECT position, crc FROM watermark WHERE stream = $1";
/// Tests first: an insert that meets a row uses up a number all the same, and there are 32,767.
pub(super) const REGISTER: &str = "INSERT INTO watermark (stream, position, crc) SELECT $1::uuid, 0, 0 \
     WHERE NOT EXISTS (SELECT FROM watermark WHERE stream = $1) ON CONFLICT DO NOTHING";

/// Held to the end of the transaction, so that the tables are not switched under it.
pub(super) const CURRENT_IDS: &str = "SELECT name FROM event_id_current FOR SHARE";
/// Answers the ids that are new. Another instance that inserts the same one first makes us wait, then skip it.
pub(super) fn claim_ids(current: &str) -> &'static str {
    match current {
        "a" => {
            "WITH n AS (INSERT INTO event_id_a SELECT * FROM unnest($1::uuid[]) ON CONFLICT DO NOTHING \
             RETURNING event_id) SELECT event_id FROM n WHERE event_id NOT IN \
             (SELECT event_id FROM event_id_b WHERE event_id = ANY ($1::uuid[]))"
        }
        _ => {
            "WITH n AS (INSERT INTO event_id_b SELECT * FROM unnest($1::uuid[]) ON CONFLICT DO NOTHING \
             RETURNING event_id) SELECT event_id FROM n WHERE event_id NOT IN \
             (SELECT event_id FROM event_id_a WHERE event_id = ANY ($1::uuid[]))"
        }
    }
}

pub(super) const ENSURE_POSTS: &str =
    "INSERT INTO post_stat (post_id) SELECT * FROM unnest($1::text[]) ON CONFLICT DO NOTHING";
pub(super) const LOCK_POSTS: &str = "SELECT post_id, like_count, version FROM post_stat WHERE post_id = ANY ($1) \
     ORDER BY post_id FOR UPDATE";
/// Behind the lock, a new statement: so that it sees what the last holder of the lock committed.
// Through the key, one pair after the other; OFFSET keeps it from becoming a join, whose plan would be kept while the table
// grows, and reads all of it.
pub(super) const READ_LIKES: &str = "SELECT l.user_id, l.post_id, (extract(epoch FROM l.liked_at) * 1000)::int8 AS ms \
     FROM unnest($1::text[], $2::text[]) AS pair(u, p) \
     CROSS JOIN LATERAL (SELECT * FROM post_like WHERE post_id = p AND user_id = u OFFSET 0) AS l";
/// The same without a lock, and of posts $3 their likes and versions, without a user: all of one moment.
pub(super) static SEE_LIKES: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT NULL, post_id, like_count, version, NULL::int8 FROM unnest($3::text[]) AS wanted(p) \
           CROSS JOIN LATERAL (SELECT * FROM post_stat WHERE post_id = p OFFSET 0) AS stat \
         UNION ALL SELECT user_id, post_id, NULL, NULL, ms FROM ({READ_LIKES}) AS pairs"
    )
});

/// When the posts that are there were made, in milliseconds, by whom, and when what they say was written; behind the lock as
/// well.
pub(super) const READ_POSTS: &str = "SELECT post_id, (extract(epoch FROM created_at) * 1000)::int8, user_id, \
     (extract(epoch FROM coalesce(written_at, created_at)) * 1000)::int8 FROM post WHERE post_id = ANY ($1)";

/// For the rest of the transaction; milliseconds as a text.
pub(super) const ALLOW_TIME: &str = "SELECT set_config('statement_timeout', $1::text, true)";

/// Undoes the likes of a post by all but the named users: post, spared, stream, position, likes, version, time.
pub(super) const CLEAR_LIKES: &str = "WITH \
     gone AS (DELETE FROM post_like WHERE post_id = $1 AND user_id <> ALL ($2::text[]) \
               RETURNING user_id, liked_at), \
     ranked AS (SELECT user_id, liked_at, row_number() OVER (ORDER BY user_id) AS n FROM gone) \
     INSERT INTO post_like_log (stream, position, post_id, user_id, action, like_count, version, changed_at, happened_at) \
       SELECT $3::uuid, $4::int8, $1, user_id, 'UNLIKE', greatest($5::int8 - n, 0), $6::int8 + n, \
              'epoch'::timestamptz + interval '1 millisecond' * $7::int8, liked_at FROM ranked ORDER BY n";

/// Lists of texts come as JSON, lists of numbers as the server writes them: arrays of arrays of different lengths have
/// no type.
pub(super) const WRITE_POSTS: &str = "WITH ranked AS (UPDATE post_stat SET made_at = t \
       FROM unnest($1::text[], $6::timestamptz[]) AS made(p, t) WHERE post_id = p) \
     INSERT INTO post (post_id, user_id, content, hashtags, image_urls, created_at, folded, grams, written_at) \
     SELECT p, u, c, ARRAY(SELECT jsonb_array_elements_text(h::jsonb)), ARRAY(SELECT jsonb_array_elements_text(i::jsonb)), \
            t, f, g::int4[], w \
       FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::timestamptz[], $7::text[], $8::text[], \
                   $9::timestamptz[]) AS new(p, u, c, h, i, t, f, g, w) \
     ON CONFLICT (post_id) DO UPDATE SET user_id = excluded.user_id, content = excluded.content, \
       hashtags = excluded.hashtags, image_urls = excluded.image_urls, created_at = excluded.created_at, \
       folded = excluded.folded, grams = excluded.grams, \
       written_at = excluded.written_at";
pub(super) const DELETE_POSTS: &str = "WITH unranked AS (UPDATE post_stat SET made_at = NULL WHERE post_id = ANY ($1::text[])) \
     DELETE FROM post WHERE post_id = ANY ($1::text[])";

/// `unnest` of the parameters from `first` on.
fn unnest(first: usize, types: &[&str]) -> String {
    let arrays: Vec<String> = (first..).zip(types).map(|(at, of)| format!("${at}::{of}[]")).collect();
    format!("unnest({})", arrays.join(", "))
}

/// Likes and their log, from parameter `first` on; the posts have rows, and they are locked.
fn write_likes(gate: &str, stream: &str, first: usize) -> String {
    let and = gate.replacen("WHERE", "AND", 1);
    let added = unnest(first, &["text", "text", "timestamptz"]);
    let removed = unnest(first + 3, &["text", "text"]);
    let posts = unnest(first + 5, &["text", "int8", "int8"]);
    let log = unnest(first + 8, &["int8", "text", "text", "text", "int8", "int8", "timestamptz", "timestamptz"]);
    format!(
        "added AS (INSERT INTO post_like (user_id, post_id, liked_at) SELECT * FROM {added} {gate} \
                 ON CONFLICT (post_id, user_id) DO UPDATE SET liked_at = excluded.liked_at), \
         removed AS (DELETE FROM post_like WHERE ctid = ANY (ARRAY(SELECT l.ctid FROM {removed} AS gone(u, p) \
                 CROSS JOIN LATERAL (SELECT ctid FROM post_like WHERE post_id = p AND user_id = u OFFSET 0) AS l)) {and}), \
         stat AS (UPDATE post_stat SET like_count = n, version = v FROM {posts} AS new(p, n, v) WHERE post_id = p {and}), \
         log AS (INSERT INTO post_like_log (stream, position, post_id, user_id, action, like_count, version, changed_at, \
                                happened_at) SELECT {stream}::uuid, * FROM {log} {gate})"
    )
}
/// Of an open transaction; the stream is the last parameter.
pub(super) static WRITE_LIKES: LazyLock<String> =
    LazyLock::new(|| format!("WITH {} SELECT 1", write_likes("", "$17", 1)));

pub(super) const WRITE_VERDICTS: &str = "INSERT INTO verdict (stream, position, kind, created_at_ms, likes, version) \
     SELECT $1::uuid, * FROM unnest($2::int8[], $3::int2[], $4::int8[], $5::int8[], $6::int8[])";
/// Tombstones of a stream: posts, versions, times, positions.
pub(super) const BURY: &str = "INSERT INTO tombstone (stream, post_id, version, at_ms, position) \
     SELECT $1::uuid, * FROM unnest($2::text[], $3::int8[], $4::int8[], $5::int8[]) \
     ON CONFLICT (post_id) DO UPDATE SET version = excluded.version, at_ms = excluded.at_ms, stream = excluded.stream, \
       position = excluded.position";
pub(super) const LIFT: &str = "DELETE FROM tombstone WHERE post_id = ANY ($1::text[])";
pub(super) const WRITE_LETTERS: &str = "INSERT INTO dead_letter (stream, position, reason, record, user_id, happened_ms) \
     SELECT $1::uuid, * FROM unnest($2::int8[], $3::text[], $4::bytea[], $5::text[], $6::int8[])";
pub(super) const WRITE_FORGETS: &str = "INSERT INTO recent_forgotten (user_id, keyword, at) \
     SELECT * FROM unnest($1::text[], $2::text[], $3::int8[]) \
     ON CONFLICT (user_id, keyword) DO UPDATE SET at = greatest(recent_forgotten.at, excluded.at)";
