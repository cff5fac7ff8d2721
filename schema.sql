-- The ledger in PostgreSQL 15 or newer: the durable record of every event and everything derived from it.
-- Applied to a new database in one transaction under an advisory lock; every statement may run again.
-- A column of rollups that is called `bucket` or `hour` counts minutes or hours since the epoch.

-- One row. `program` tells our databases from those of other programs that keep a `schema_version` too.
CREATE TABLE IF NOT EXISTS schema_version (
    version int NOT NULL,
    program text NOT NULL DEFAULT 'event-tracker' CHECK (program = 'event-tracker')
);

-- One row an event, by UTC day of its (clamped) time. Days are attached as events_YYYYMMDD by the program.
-- No primary key: only ids that clients chose can repeat, and those have tables of their own.
CREATE TABLE IF NOT EXISTS events (
    event_id     uuid NOT NULL,
    event_type   text NOT NULL,
    user_id      text,
    session_id   text,
    component_id bigint,
    element_id   text,
    keyword      text,
    post_id      text,
    url          text,
    referrer     text,
    result_count bigint,
    -- Not jsonb, which rewrites numbers and blanks: it is read back byte for byte.
    properties   json,
    event_time   timestamptz NOT NULL,
    received_at  timestamptz NOT NULL,
    -- The names that the event counts under: of `url` and of `keyword`. An erasure keeps them.
    page         text,
    keyword_key  text,
    source       text,
    campaign     text,
    bot          boolean,
    name         text,
    visitor_id   text,
    -- The record: `number` of its journal in `watermark`, and its position there.
    stream       smallint NOT NULL,
    position     bigint NOT NULL
) PARTITION BY RANGE (event_time);
-- For readers that follow a journal. Several ranges per block range: streams have distant positions, and a plain BRIN index
-- would match every row.
CREATE INDEX IF NOT EXISTS events_position ON events
    USING brin (((stream::bigint << 48) | position) int8_minmax_multi_ops) WITH (autosummarize = on);

-- What a count over several filters looks up: hashes of the values that an event names. Housekeeping builds an index over it
-- for each day that is over.
CREATE OR REPLACE FUNCTION event_terms(component_id bigint, element_id text, keyword_key text, post_id text, page text)
RETURNS int4[] LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT array_remove(ARRAY[
        hashtext('c' || coalesce(component_id::text, '#' || element_id)), hashtext('k' || keyword_key),
        hashtext('p' || post_id), hashtext('g' || page)], NULL)
$$;
-- In finer ranges than usual: a range that is cut within an hour reads one of them too many on either side.
CREATE INDEX IF NOT EXISTS events_event_time ON events
    USING brin (event_time) WITH (autosummarize = on, pages_per_range = 32);

CREATE TABLE IF NOT EXISTS post (
    post_id    text COLLATE "C" PRIMARY KEY,
    user_id    text NOT NULL,
    content    text NOT NULL,
    hashtags   text[] NOT NULL DEFAULT '{}',
    image_urls text[] NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL,
    -- The content as keywords are compared with it, case-folded and in NFC by the program; null where it is the content.
    folded     text,
    -- What a search looks up: numbers of the characters of the folded content, and of each two side by side.
    grams      int4[] NOT NULL DEFAULT '{}',
    -- When what it says was written, by which an erasure takes it or not; null where that is created_at.
    written_at timestamptz
);
-- Without a list of what is to be added, which every search would have to read.
CREATE INDEX IF NOT EXISTS post_search ON post USING gin (grams, hashtags) WITH (fastupdate = off);

-- A like needs no post of ours, so the counter has a row of its own. Its lock orders a post's likes.
CREATE TABLE IF NOT EXISTS post_stat (
    post_id    text COLLATE "C" PRIMARY KEY,
    like_count bigint NOT NULL DEFAULT 0 CHECK (like_count >= 0),
    version    bigint NOT NULL DEFAULT 0,
    -- When the post was made, as in `post`; null where there is none: a search walks the posts that there are by their likes.
    made_at    timestamptz
) WITH (fillfactor = 70);
CREATE INDEX IF NOT EXISTS post_stat_rank ON post_stat (like_count DESC, made_at DESC, post_id)
    WHERE made_at IS NOT NULL;

CREATE TABLE IF NOT EXISTS post_like (
    user_id  text COLLATE "C" NOT NULL,
    post_id  text COLLATE "C" NOT NULL,
    -- By the event's time or its receipt, whichever is earlier: an erasure takes the like or not by it.
    liked_at timestamptz NOT NULL,
    -- The post first: a post that goes takes its likes with it.
    PRIMARY KEY (post_id, user_id)
);

-- One row a change; a like that changed nothing has none. Also the verdict on its record. A post that was deleted has a
-- row for each like that went with it, all of one position. Within a post `version` is the order.
CREATE TABLE IF NOT EXISTS post_like_log (
    seq        bigint GENERATED ALWAYS AS IDENTITY,
    stream     uuid NOT NULL,
    position   bigint NOT NULL,
    post_id    text NOT NULL,
    user_id    text NOT NULL,
    action     text NOT NULL CHECK (action IN ('LIKE', 'UNLIKE')),
    like_count bigint NOT NULL CHECK (like_count >= 0),
    version    bigint NOT NULL,
    -- Where the change counts.
    changed_at timestamptz NOT NULL,
    -- When what it tells of the user happened, by which an erasure takes the name or not; null where that is changed_at. A
    -- like that went with its post tells of the like.
    happened_at timestamptz,
    PRIMARY KEY (stream, position, seq)
);

-- For net likes of a part of an hour: in finer ranges than usual, as an hour has few likes. Databases made by an earlier program
-- keep the usual ones, which are as right.
CREATE INDEX IF NOT EXISTS post_like_log_changed_at ON post_like_log
    USING brin (changed_at) WITH (autosummarize = on, pages_per_range = 32);

-- Erased users, tagged (`u:`), and up to when (milliseconds): earlier records are dropped, through whichever journal they come.
-- `seq` grows with every change, so that a writer knows whether it knows all. `stream` and `position` are those of the erasure.
-- Kept for ever.
CREATE TABLE IF NOT EXISTS erased (
    id       text COLLATE "C" PRIMARY KEY,
    at       bigint NOT NULL,
    seq      bigint NOT NULL,
    stream   uuid NOT NULL,
    position bigint NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS erased_seq ON erased (seq);

-- Posts that are deleted, until they are put again: lists and rankings skip them. `stream` and `position` are those of the
-- deletion, or of the erasure that took the post.
CREATE TABLE IF NOT EXISTS tombstone (
    post_id  text COLLATE "C" PRIMARY KEY,
    -- post_stat.version right after the deletion.
    version  bigint NOT NULL,
    at_ms    bigint NOT NULL,
    stream   uuid NOT NULL,
    position bigint NOT NULL
);
CREATE INDEX IF NOT EXISTS tombstone_position ON tombstone (stream, position);

-- Records that the ledger refuses, as the journal holds them.
CREATE TABLE IF NOT EXISTS dead_letter (
    stream   uuid NOT NULL,
    position bigint NOT NULL,
    reason   text NOT NULL,
    record   bytea NOT NULL,
    at       timestamptz NOT NULL DEFAULT now(),
    -- Whose it is, and when it happened, in milliseconds: for erasures. What is refused may have any time.
    user_id     text COLLATE "C",
    happened_ms bigint,
    PRIMARY KEY (stream, position)
);
CREATE INDEX IF NOT EXISTS dead_letter_user ON dead_letter (user_id) WHERE user_id IS NOT NULL;

-- How far each journal is applied, and the checksum of the frame that ends there.
CREATE TABLE IF NOT EXISTS watermark (
    stream   uuid PRIMARY KEY,
    -- The journal's short name in `events`.
    number   smallint GENERATED ALWAYS AS IDENTITY UNIQUE,
    position bigint NOT NULL,
    crc      bigint NOT NULL,
    -- The latest time of an event or of its receipt, milliseconds: a read that ends later reads whole minutes and hours.
    newest_ms bigint NOT NULL DEFAULT 0,
    -- Verdicts up to here are removed: nobody may take their absence for "stored".
    pruned   bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);

-- Decisions beyond "stored": 1 duplicate, 2 dead, 3 a post was made, 4 one was replaced, 5 one was deleted, 6 there was
-- none to delete, 7 its user was erased, 8 a person was erased. Likes are in their log.
CREATE TABLE IF NOT EXISTS verdict (
    stream        uuid NOT NULL,
    position      bigint NOT NULL,
    kind          smallint NOT NULL,
    -- Of 3 and 4: when the post was made.
    created_at_ms bigint,
    -- Of 3 and 4: the post's likes; of 5 and 6: those that went with it.
    likes         bigint,
    -- Of 3 to 6: post_stat.version right after it.
    version       bigint,
    PRIMARY KEY (stream, position)
);

-- dimension: 1 type, 2 keyword, 3 zero-result keyword, 4 post views, 5 post clicks, 6 net likes, 7 page, 8 component;
-- 9 to 12: posts, pages, components and keywords that events of other types name, key `TYPE<tab>value`.
CREATE TABLE IF NOT EXISTS rollup_minute (
    dimension smallint NOT NULL,
    bucket    bigint NOT NULL,
    key       text COLLATE "C" NOT NULL,
    count     bigint NOT NULL,
    PRIMARY KEY (dimension, bucket, key)
) WITH (fillfactor = 70);

CREATE TABLE IF NOT EXISTS rollup_hour (
    dimension smallint NOT NULL,
    bucket    bigint NOT NULL,
    key       text COLLATE "C" NOT NULL,
    count     bigint NOT NULL,
    PRIMARY KEY (dimension, bucket, key)
) WITH (fillfactor = 70);

-- Closed hours: by UTC day, and by span of 32 UTC days. They hold exactly the hours before `rollup_state.until_hour`. The key
-- comes before the bucket: a count of one name is a walk; the index by count: a ranking begins with the highest of each bucket.
CREATE TABLE IF NOT EXISTS rollup_day (
    dimension smallint NOT NULL,
    bucket    bigint NOT NULL,
    key       text COLLATE "C" NOT NULL,
    count     bigint NOT NULL,
    PRIMARY KEY (dimension, key, bucket) INCLUDE (count)
) WITH (fillfactor = 80);
CREATE INDEX IF NOT EXISTS rollup_day_count ON rollup_day (dimension, bucket, count DESC, key)
    WHERE dimension BETWEEN 2 AND 8;

CREATE TABLE IF NOT EXISTS rollup_span (
    dimension smallint NOT NULL,
    bucket    bigint NOT NULL,
    key       text COLLATE "C" NOT NULL,
    count     bigint NOT NULL,
    PRIMARY KEY (dimension, key, bucket) INCLUDE (count)
) WITH (fillfactor = 80);
CREATE INDEX IF NOT EXISTS rollup_span_count ON rollup_span (dimension, bucket, count DESC, key)
    WHERE dimension BETWEEN 2 AND 8;

-- One row. Only upkeep and retention change it.
CREATE TABLE IF NOT EXISTS rollup_state (
    one           boolean PRIMARY KEY DEFAULT true CHECK (one),
    -- Hours before this one are in rollup_day, days before this one in rollup_span.
    until_hour    bigint NOT NULL DEFAULT 0,
    until_day     bigint NOT NULL DEFAULT 0,
    -- Rows of days before this one were deleted; later records of them are set aside.
    rows_since    bigint NOT NULL DEFAULT 0,
    -- Minutes before this one may be missing from rollup_minute.
    minutes_since bigint NOT NULL DEFAULT 0
);
INSERT INTO rollup_state DEFAULT VALUES ON CONFLICT DO NOTHING;

-- Points of series, counted once: events and distinct users of `minutes` minutes from `at` (minutes since the epoch) on, by
-- type (see user_hour; 0: all together, and there for every point). Minutes and hours are of UTC, days those of TIME_ZONE. An
-- hour of type 0 without users is dirty: it has to be counted (again), and till then nothing that contains it is valid. Its count
-- grows by one each time that it becomes dirty: a reader without a lock sees whether something changed meanwhile.
CREATE TABLE IF NOT EXISTS series (
    minutes    int NOT NULL,
    event_type smallint NOT NULL,
    at         bigint NOT NULL,
    count      bigint NOT NULL,
    users      bigint,
    PRIMARY KEY (minutes, event_type, at)
) WITH (fillfactor = 90);
CREATE INDEX IF NOT EXISTS series_stale ON series (at) WHERE users IS NULL;

-- All-time sums by dimension, and by type where dimension is 1 (else key is empty).
CREATE TABLE IF NOT EXISTS rollup_total (
    dimension smallint NOT NULL,
    key       text COLLATE "C" NOT NULL,
    count     bigint NOT NULL,
    PRIMARY KEY (dimension, key)
) WITH (fillfactor = 50);

-- For exact distinct users; and where an erasure finds a person's rows: kept as long as those. event_type: 1 click, 2 page view, 3 search, 4 like, 5 unlike.
CREATE TABLE IF NOT EXISTS user_hour (
    hour       bigint NOT NULL,
    event_type smallint NOT NULL,
    user_id    text COLLATE "C" NOT NULL,
    PRIMARY KEY (hour, event_type, user_id)
);

-- Ordinals that stand for visitors in bitmaps; none is given twice. Keys are tagged: `u:` and a user id. `day`: the last UTC day
-- with an hour that has them in a bitmap; retention deletes those of earlier days.
CREATE TABLE IF NOT EXISTS visitor (
    key     text COLLATE "C" NOT NULL,
    ordinal int GENERATED ALWAYS AS IDENTITY,
    day     int NOT NULL,
    -- Those of an hour are looked up together: vacuumed often, so that the index is enough.
    PRIMARY KEY (key) INCLUDE (ordinal)
) WITH (fillfactor = 90, autovacuum_vacuum_scale_factor = 0.02);

-- Visitors of the `hours` (1, 24 or 768) from `at` on: a Roaring bitmap of their ordinals. Hours
-- have one per event type; type 0 is all types.
-- The row of 0 hours has the ordinals of erased users. See src/ledger/stats/bitmaps.rs.
CREATE TABLE IF NOT EXISTS visitor_bitmap (
    hours      smallint NOT NULL,
    event_type smallint NOT NULL,
    at         bigint NOT NULL,
    members    bytea NOT NULL,
    PRIMARY KEY (hours, event_type, at)
);
-- Compression takes an eighth off them (of hours and days of 4,000 users among 60,000).
ALTER TABLE visitor_bitmap ALTER COLUMN members SET STORAGE EXTERNAL;

-- Counts of batches that are not in the rollups yet, a row per batch and dimension: minute, count and name of each, as
-- src/ledger/delta.rs encodes them. Upkeep adds them within seconds to rollup_minute (of minutes after `oldest_minute`),
-- rollup_hour and rollup_total, and of closed hours to rollup_day and rollup_span.
CREATE TABLE IF NOT EXISTS rollup_delta (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    dimension     smallint NOT NULL,
    oldest_minute bigint NOT NULL,
    counts        bytea NOT NULL
) WITH (autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);
-- They live for seconds: compressing them costs more than it saves.
ALTER TABLE rollup_delta ALTER COLUMN counts SET STORAGE EXTERNAL;

-- Ids that clients chose, in two generations; `event_id_current` names the one that is written.
CREATE TABLE IF NOT EXISTS event_id_a (event_id uuid PRIMARY KEY);
CREATE TABLE IF NOT EXISTS event_id_b (event_id uuid PRIMARY KEY);
CREATE TABLE IF NOT EXISTS event_id_current (
    one      boolean PRIMARY KEY DEFAULT true CHECK (one),
    name     text NOT NULL CHECK (name IN ('a', 'b')),
    since_ms bigint NOT NULL
);
INSERT INTO event_id_current (name, since_ms) VALUES ('a', 0) ON CONFLICT DO NOTHING;

-- Up to when (milliseconds) a user's searches are forgotten: one folded keyword, or '' for all. Kept for an hour.
CREATE TABLE IF NOT EXISTS recent_forgotten (
    user_id text COLLATE "C" NOT NULL,
    keyword text COLLATE "C" NOT NULL,
    at      bigint NOT NULL,
    PRIMARY KEY (user_id, keyword)
);
