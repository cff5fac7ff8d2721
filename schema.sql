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

-- Who was erased, and up to when (milliseconds): what happened before that is dropped, through whichever journal it comes.
-- `seq` grows with every change, so that a writer knows whether it knows all. Kept for ever.
CREATE TABLE IF NOT EXISTS erased (
    user_id text COLLATE "C" PRIMARY KEY,
    at      bigint NOT NULL,
    seq     bigint NOT NULL
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

-- Hours, folded: by UTC day, and by span of 32 UTC days. They hold exactly the hours before `rollup_folded.until_hour`, and
-- what is folded of that hour; a record of such an hour and name that comes later is added here with its hour, in the same
-- transaction. The key comes before the
-- bucket: a count of one name is a walk; the index by count: a ranking begins with the highest of each bucket.
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

-- Batches hold it FOR SHARE, folding takes it FOR UPDATE: a record is either folded with its hour or adds to the day itself.
CREATE TABLE IF NOT EXISTS rollup_folded (
    one        boolean PRIMARY KEY DEFAULT true CHECK (one),
    until_hour bigint NOT NULL,
    -- Days before this one are whole in their spans.
    until_day  bigint NOT NULL,
    -- Rows of days before this one are gone; what still comes for them is set aside.
    rows_since bigint NOT NULL DEFAULT 0,
    -- Minutes before this one may be missing from rollup_minute.
    minutes_since bigint NOT NULL DEFAULT 0,
    -- An hour is folded in steps, in the order of dimension and name: of `until_hour`, dimensions before this one are in
    -- their day, and of it the names up to the key (null: none). The same of `until_day` and its span.
    hour_dimension smallint NOT NULL DEFAULT 0,
    hour_key       text COLLATE "C",
    day_dimension  smallint NOT NULL DEFAULT 0,
    day_key        text COLLATE "C"
);
INSERT INTO rollup_folded (until_hour, until_day) VALUES (0, 0) ON CONFLICT DO NOTHING;

-- Points of series, counted once: events and distinct users of `minutes` minutes from `at` (minutes since the epoch) on, by
-- type (see user_hour; 0 is all together, and there for every point). Minutes and hours are of UTC, days those of TIME_ZONE.
-- An hour of type 0 whose users are null has to be counted again; till then nothing that it is part of is believed. Its
-- count grows by one with each batch that says so: whoever counts it without a lock sees whether something came meanwhile.
CREATE TABLE IF NOT EXISTS series (
    minutes    int NOT NULL,
    event_type smallint NOT NULL,
    at         bigint NOT NULL,
    count      bigint NOT NULL,
    users      bigint,
    PRIMARY KEY (minutes, event_type, at)
) WITH (fillfactor = 90);
CREATE INDEX IF NOT EXISTS series_stale ON series (at) WHERE users IS NULL;

-- All-time sums by dimension, and by type where dimension is 1 (else key is empty). A row a stream: instances do not
-- wait for each other.
CREATE TABLE IF NOT EXISTS rollup_total (
    stream    uuid NOT NULL,
    dimension smallint NOT NULL,
    key       text COLLATE "C" NOT NULL,
    count     bigint NOT NULL,
    PRIMARY KEY (stream, dimension, key)
) WITH (fillfactor = 50);

-- For exact distinct users; and where an erasure finds a person's rows: kept as long as those. event_type: 1 click, 2 page view, 3 search, 4 like, 5 unlike.
CREATE TABLE IF NOT EXISTS user_hour (
    hour       bigint NOT NULL,
    event_type smallint NOT NULL,
    user_id    text COLLATE "C" NOT NULL,
    PRIMARY KEY (hour, event_type, user_id)
);

-- Users of the day that is not over (of TIME_ZONE; `at` as in series), by type, 0 for any; how many they are is a row of
-- `series` whose minutes are the day's length below zero. Hours are counted once theirs are in here.
CREATE TABLE IF NOT EXISTS user_day (
    at         bigint NOT NULL,
    event_type smallint NOT NULL,
    user_id    text COLLATE "C" NOT NULL,
    PRIMARY KEY (at, event_type, user_id)
);

-- Numbers that stand for users in sets; none is given twice. The last day (UTC) with an hour that has a set or is in user_open:
-- whoever was not seen since rows went has none any more.
CREATE TABLE IF NOT EXISTS user_number (
    user_id text COLLATE "C" NOT NULL,
    number  int GENERATED ALWAYS AS IDENTITY,
    day     int NOT NULL,
    -- Those of an hour are looked up together: vacuumed often, so that the index is enough.
    PRIMARY KEY (user_id) INCLUDE (number)
) WITH (fillfactor = 90, autovacuum_vacuum_scale_factor = 0.02);

-- Users of hours that are not over, as far as housekeeping has seen them: with their numbers, and in user_day of each day that
-- keeps their hour. Rows may be missing, and go some time after the hour has a set.
CREATE TABLE IF NOT EXISTS user_open (
    user_id    text COLLATE "C" NOT NULL,
    hour       bigint NOT NULL,
    event_type smallint NOT NULL,
    number     int NOT NULL,
    PRIMARY KEY (user_id, hour, event_type) INCLUDE (number)
);

-- Users of so many hours (1, 24, 96, 384, 1536) from `at` on, as a Roaring bitmap of their numbers: the union of a few says how many
-- distinct ones a range has. The row of 0 hours has the numbers of those who were erased. See src/ledger_fold/user_sets.rs.
CREATE TABLE IF NOT EXISTS user_set (
    hours   bigint NOT NULL,
    at      bigint NOT NULL,
    members bytea NOT NULL,
    PRIMARY KEY (hours, at)
);
-- Compression takes an eighth off them (of hours and days of 4,000 users among 60,000).
ALTER TABLE user_set ALTER COLUMN members SET STORAGE EXTERNAL;

-- What batches have yet to add to rollup_minute, rollup_hour and rollup_total, a row a batch: small batches come often, and
-- write the same names again and again. `add_rollup_deltas` adds it, from time to time, before every exact read, and before
-- anything is folded: whoever sums rollups by SQL calls it first. Minutes say it all: those of a batch whose hours
-- are kept without minutes are not put off.
CREATE TABLE IF NOT EXISTS rollup_delta (
    stream     uuid NOT NULL,
    dimensions smallint[] NOT NULL,
    minutes    bigint[] NOT NULL,
    keys       text[] COLLATE "C" NOT NULL,
    counts     bigint[] NOT NULL
) WITH (autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);

-- Adds everything that was put off by whichever instance; no hour is folded meanwhile. Of two at once the second waits for the rows
-- that the first one takes, before it has any of rollups.
CREATE OR REPLACE FUNCTION add_rollup_deltas() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    names bigint;
BEGIN
    IF NOT EXISTS (SELECT FROM rollup_delta) THEN
        RETURN;
    END IF;
    -- Tables in the order in which batches write them.
    WITH f AS MATERIALIZED (SELECT FROM rollup_folded FOR SHARE),
        taken AS (DELETE FROM rollup_delta WHERE EXISTS (SELECT FROM f) RETURNING *),
        d AS MATERIALIZED (SELECT stream, dimension, minute, key COLLATE "C" AS key, sum(count)::bigint AS count
                             FROM taken CROSS JOIN unnest(dimensions, minutes, keys, counts) AS r(dimension, minute, key, count)
                            GROUP BY 1, 2, 3, 4),
        m AS (INSERT INTO rollup_minute (dimension, bucket, key, count)
              SELECT dimension, minute, key, sum(count) FROM d GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
              ON CONFLICT (dimension, bucket, key) DO UPDATE SET count = rollup_minute.count + excluded.count),
        h AS (INSERT INTO rollup_hour (dimension, bucket, key, count)
              SELECT dimension, minute / 60, key, sum(count) FROM d GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
              ON CONFLICT (dimension, bucket, key) DO UPDATE SET count = rollup_hour.count + excluded.count),
        t AS (INSERT INTO rollup_total (stream, dimension, key, count)
              SELECT stream, dimension, CASE dimension WHEN 1 THEN key ELSE '' END, sum(count)
                FROM d GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
              ON CONFLICT (stream, dimension, key) DO UPDATE SET count = rollup_total.count + excluded.count)
    SELECT count(*) INTO names FROM d;
END
$$;

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
