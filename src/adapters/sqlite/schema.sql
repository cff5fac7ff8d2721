-- The ledger in SQLite: the names of schema.sql. Times are milliseconds since the epoch, ids are text.
-- `bucket` and `hour` of rollups count minutes or hours since the epoch. The program also sets `application_id`, which tells
-- our files from those of other programs, and `user_version`, the number of this schema.

CREATE TABLE IF NOT EXISTS events (
    event_id     TEXT NOT NULL,
    event_type   TEXT NOT NULL,
    user_id      TEXT,
    session_id   TEXT,
    component_id INTEGER,
    element_id   TEXT,
    keyword      TEXT,
    post_id      TEXT,
    url          TEXT,
    referrer     TEXT,
    result_count INTEGER,
    -- As sent, byte for byte.
    properties   TEXT CHECK (properties IS NULL OR json_valid(properties)),
    event_time   INTEGER NOT NULL,
    received_at  INTEGER NOT NULL,
    -- The names that the event counts under: of `url` and of `keyword`. An erasure keeps them.
    page         TEXT,
    keyword_key  TEXT,
    source       TEXT,
    campaign     TEXT,
    bot          INTEGER,
    name         TEXT,
    visitor_id   TEXT,
    -- The record: `number` of its journal in `watermark`, and its position there.
    stream       INTEGER NOT NULL,
    position     INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS events_event_time ON events (event_time);

CREATE TABLE IF NOT EXISTS post (
    post_id    TEXT PRIMARY KEY,
    user_id    TEXT NOT NULL,
    content    TEXT NOT NULL,
    hashtags   TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(hashtags)),
    image_urls TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(image_urls)),
    created_at INTEGER NOT NULL,
    -- The content case-folded and in NFC, by the program; null where it is the content.
    folded     TEXT,
    -- When what it says was written, by which an erasure takes it or not; null where that is created_at.
    written_at INTEGER
) WITHOUT ROWID;

-- The index of searches. A term is a hashtag (text) or the number of a character, or of two side by side, of the folded
-- content (integer): values of the two types never compare equal, so one table holds both.
CREATE TABLE IF NOT EXISTS post_term (
    term    ANY NOT NULL,
    post_id TEXT NOT NULL,
    PRIMARY KEY (term, post_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS post_stat (
    post_id    TEXT PRIMARY KEY,
    like_count INTEGER NOT NULL DEFAULT 0 CHECK (like_count >= 0),
    version    INTEGER NOT NULL DEFAULT 0,
    -- As in `post`; null where there is none.
    made_at    INTEGER
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS post_stat_rank ON post_stat (like_count DESC, made_at DESC, post_id)
    WHERE made_at IS NOT NULL;

CREATE TABLE IF NOT EXISTS post_like (
    user_id  TEXT NOT NULL,
    post_id  TEXT NOT NULL,
    liked_at INTEGER NOT NULL,
    PRIMARY KEY (post_id, user_id)
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS post_like_log (
    seq        INTEGER PRIMARY KEY AUTOINCREMENT,
    stream     TEXT NOT NULL,
    position   INTEGER NOT NULL,
    post_id    TEXT NOT NULL,
    user_id    TEXT NOT NULL,
    action     TEXT NOT NULL CHECK (action IN ('LIKE', 'UNLIKE')),
    like_count INTEGER NOT NULL CHECK (like_count >= 0),
    version    INTEGER NOT NULL,
    changed_at INTEGER NOT NULL,
    happened_at INTEGER,
    UNIQUE (stream, position, seq)
);
CREATE INDEX IF NOT EXISTS post_like_log_changed_at ON post_like_log (changed_at);

CREATE TABLE IF NOT EXISTS erased (
    id       TEXT PRIMARY KEY,
    at       INTEGER NOT NULL,
    seq      INTEGER NOT NULL,
    stream   TEXT NOT NULL,
    position INTEGER NOT NULL
) WITHOUT ROWID;
CREATE UNIQUE INDEX IF NOT EXISTS erased_seq ON erased (seq);

CREATE TABLE IF NOT EXISTS tombstone (
    post_id  TEXT PRIMARY KEY,
    version  INTEGER NOT NULL,
    at_ms    INTEGER NOT NULL,
    stream   TEXT NOT NULL,
    position INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS tombstone_position ON tombstone (stream, position);

CREATE TABLE IF NOT EXISTS dead_letter (
    stream   TEXT NOT NULL,
    position INTEGER NOT NULL,
    reason   TEXT NOT NULL,
    record   BLOB NOT NULL,
    at       INTEGER NOT NULL,
    user_id     TEXT,
    happened_ms INTEGER,
    PRIMARY KEY (stream, position)
);
CREATE INDEX IF NOT EXISTS dead_letter_user ON dead_letter (user_id) WHERE user_id IS NOT NULL;

CREATE TABLE IF NOT EXISTS watermark (
    stream   TEXT PRIMARY KEY,
    -- The journal's short name in `events`.
    number   INTEGER NOT NULL UNIQUE,
    position INTEGER NOT NULL,
    crc      INTEGER NOT NULL,
    newest_ms INTEGER NOT NULL DEFAULT 0,
    pruned   INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;

-- 1 duplicate, 2 dead, 3 a post was made, 4 replaced, 5 deleted, 6 there was none to delete, 7 its user was erased,
-- 8 a person was erased.
CREATE TABLE IF NOT EXISTS verdict (
    stream        TEXT NOT NULL,
    position      INTEGER NOT NULL,
    kind          INTEGER NOT NULL,
    created_at_ms INTEGER,
    likes         INTEGER,
    version       INTEGER,
    PRIMARY KEY (stream, position)
) WITHOUT ROWID;

-- dimension: 1 type, 2 keyword, 3 zero-result keyword, 4 post views, 5 post clicks, 6 net likes, 7 page, 8 component;
-- 9 to 12: see schema.sql.
CREATE TABLE IF NOT EXISTS rollup_minute (
    dimension INTEGER NOT NULL,
    bucket    INTEGER NOT NULL,
    key       TEXT NOT NULL,
    count     INTEGER NOT NULL,
    PRIMARY KEY (dimension, bucket, key)
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS rollup_hour (
    dimension INTEGER NOT NULL,
    bucket    INTEGER NOT NULL,
    key       TEXT NOT NULL,
    count     INTEGER NOT NULL,
    PRIMARY KEY (dimension, bucket, key)
) WITHOUT ROWID;

-- Hours before `rollup_state.until_hour`, by UTC day and by span of 32 UTC days.
CREATE TABLE IF NOT EXISTS rollup_day (
    dimension INTEGER NOT NULL,
    bucket    INTEGER NOT NULL,
    key       TEXT NOT NULL,
    count     INTEGER NOT NULL,
    PRIMARY KEY (dimension, key, bucket)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS rollup_day_count ON rollup_day (dimension, bucket, count DESC, key)
    WHERE dimension BETWEEN 2 AND 8;

CREATE TABLE IF NOT EXISTS rollup_span (
    dimension INTEGER NOT NULL,
    bucket    INTEGER NOT NULL,
    key       TEXT NOT NULL,
    count     INTEGER NOT NULL,
    PRIMARY KEY (dimension, key, bucket)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS rollup_span_count ON rollup_span (dimension, bucket, count DESC, key)
    WHERE dimension BETWEEN 2 AND 8;

CREATE TABLE IF NOT EXISTS rollup_state (
    one           INTEGER PRIMARY KEY DEFAULT 1 CHECK (one = 1),
    until_hour    INTEGER NOT NULL DEFAULT 0,
    until_day     INTEGER NOT NULL DEFAULT 0,
    rows_since    INTEGER NOT NULL DEFAULT 0,
    minutes_since INTEGER NOT NULL DEFAULT 0
);
INSERT OR IGNORE INTO rollup_state (one) VALUES (1);

-- Events and distinct users of `minutes` minutes from `at` on; type 0 is all together. An hour of type 0 without users has
-- to be counted again.
CREATE TABLE IF NOT EXISTS series (
    minutes    INTEGER NOT NULL,
    event_type INTEGER NOT NULL,
    at         INTEGER NOT NULL,
    count      INTEGER NOT NULL,
    users      INTEGER,
    PRIMARY KEY (minutes, event_type, at)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS series_stale ON series (at) WHERE users IS NULL;

CREATE TABLE IF NOT EXISTS rollup_total (
    dimension INTEGER NOT NULL,
    key       TEXT NOT NULL,
    count     INTEGER NOT NULL,
    PRIMARY KEY (dimension, key)
) STRICT, WITHOUT ROWID;

-- event_type: 1 click, 2 page view, 3 search, 4 like, 5 unlike.
CREATE TABLE IF NOT EXISTS user_hour (
    hour       INTEGER NOT NULL,
    event_type INTEGER NOT NULL,
    user_id    TEXT NOT NULL,
    PRIMARY KEY (hour, event_type, user_id)
) WITHOUT ROWID;

-- Ordinals of visitors, and bitmaps of them: see schema.sql.
CREATE TABLE IF NOT EXISTS visitor (
    ordinal INTEGER PRIMARY KEY AUTOINCREMENT,
    key     TEXT NOT NULL UNIQUE,
    day     INTEGER NOT NULL
);

CREATE TABLE IF NOT EXISTS visitor_bitmap (
    hours      INTEGER NOT NULL,
    event_type INTEGER NOT NULL,
    at         INTEGER NOT NULL,
    members    BLOB NOT NULL,
    PRIMARY KEY (hours, event_type, at)
);

-- Counts of batches that are not in the rollups yet: see schema.sql.
CREATE TABLE IF NOT EXISTS rollup_delta (
    id            INTEGER PRIMARY KEY,
    dimension     INTEGER NOT NULL,
    oldest_minute INTEGER NOT NULL,
    counts        BLOB NOT NULL
);

CREATE TABLE IF NOT EXISTS event_id_a (event_id TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS event_id_b (event_id TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS event_id_current (
    one      INTEGER PRIMARY KEY DEFAULT 1 CHECK (one = 1),
    name     TEXT NOT NULL CHECK (name IN ('a', 'b')),
    since_ms INTEGER NOT NULL
);
INSERT OR IGNORE INTO event_id_current (one, name, since_ms) VALUES (1, 'a', 0);

CREATE TABLE IF NOT EXISTS recent_forgotten (
    user_id TEXT NOT NULL,
    keyword TEXT NOT NULL,
    at      INTEGER NOT NULL,
    PRIMARY KEY (user_id, keyword)
) WITHOUT ROWID;
