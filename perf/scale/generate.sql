-- Events straight into the ledger in PostgreSQL, with the rollups that batches would have made of them: psql variables
-- events, users, posts, keywords, days, until.
--
-- Names are drawn so that the n-th is as frequent as 1/n: users, posts that are viewed, clicked and liked, keywords. Of
-- twenty events eight are clicks, seven page views, four searches, one a like. Keywords are lower case and addresses have
-- the form that the program counts by, so that nothing has to be folded here.
--
-- Likes follow what is viewed, and each changes something: the n-th like of a post is the n-th of an order of users that is
-- the post's own. Whether a search finds nothing is a property of its keyword: each has a chance of its own, one in twenty
-- on average, most of them next to none. The 200 components are even: what no order tells apart is in there too.

CREATE FUNCTION pg_temp.rank_of(names bigint, chance float8) RETURNS bigint LANGUAGE sql VOLATILE
    AS $$ SELECT least(names, floor(exp(chance * ln(names + 1)))::bigint) $$;

-- Even in 0 to 1 over all keywords, the same in every run; to the 19th its mean is 1/20.
CREATE FUNCTION pg_temp.empty_chance(word bigint) RETURNS float8 LANGUAGE sql IMMUTABLE
    AS $$ SELECT power(word * 2654435761 % 4294967296 / 4294967296::float8, 19) $$;

CREATE PROCEDURE pg_temp.generate(total bigint, users bigint, posts bigint, keywords bigint, days int, until timestamptz)
LANGUAGE plpgsql AS $$
DECLARE
    stream constant uuid := '5ca1e000-0000-4000-8000-000000000001';
    begins constant timestamptz := until - make_interval(days => days);
    step constant float8 := days * 86400.0 / total;
    day date := (begins AT TIME ZONE 'UTC')::date;
    last date := (until AT TIME ZONE 'UTC')::date;
    lo bigint := 0;
    hi bigint;
    part text;
BEGIN
    PERFORM setseed(0.42);
    WHILE day <= last LOOP
        hi := least(total, ceil(extract(epoch FROM ((day + 1)::timestamp AT TIME ZONE 'UTC') - begins) / step)::bigint);
        part := 'events_' || to_char(day, 'YYYYMMDD');
        -- Each day is a transaction: a run that was broken off goes on where it stood.
        IF to_regclass(part) IS NOT NULL THEN
            lo := hi;
            day := day + 1;
            CONTINUE;
        END IF;
        EXECUTE format('CREATE TABLE %I (LIKE events INCLUDING DEFAULTS, CONSTRAINT %I CHECK (event_time >= %L AND event_time < %L))',
            part, part || '_day', day || ' 00:00:00+00', day + 1 || ' 00:00:00+00');
        CREATE TEMP TABLE liked ON COMMIT DROP AS
            SELECT i, 'u' || (n * 7919 + what * 31) % users + 1 AS user_id, 'p' || what AS post_id, n, at
            FROM (SELECT i, what, at, coalesce(like_count, 0) + row_number() OVER (PARTITION BY what ORDER BY i) AS n
                  FROM (SELECT i, pg_temp.rank_of(posts, random()) AS what,
                               date_trunc('milliseconds', begins + i * step * interval '1 second') AS at
                        FROM generate_series(lo, hi - 1) AS i WHERE i % 20 = 19 OFFSET 0) AS drawn
                  LEFT JOIN post_stat ON post_stat.post_id = 'p' || what) AS counted;
        ANALYZE liked;
        EXECUTE format($sql$
            INSERT INTO %I
            SELECT gen_random_uuid(),
                   CASE WHEN kind < 8 THEN 'CLICK' WHEN kind < 15 THEN 'PAGE_VIEW' WHEN kind < 19 THEN 'SEARCH' ELSE 'LIKE' END,
                   CASE WHEN kind = 19 THEN liked.user_id WHEN b >= 0.2 THEN 'u' || who END,
                   's' || who || '-' || hour,
                   CASE WHEN kind < 8 THEN 1 + floor(c * 200)::bigint END,
                   NULL,
                   'keyword ' || word,
                   CASE WHEN kind < 8 AND d < 0.5 OR kind BETWEEN 8 AND 14 THEN 'p' || what
                        WHEN kind = 19 THEN liked.post_id END,
                   CASE WHEN kind BETWEEN 8 AND 14 THEN 'https://example.org/posts/' || what || '?from=feed' END,
                   CASE WHEN kind BETWEEN 8 AND 14 AND d < 0.5 THEN 'https://example.org/' END,
                   CASE WHEN d < pg_temp.empty_chance(word) THEN 0 WHEN word IS NOT NULL THEN 1 + floor(d * 200)::bigint END,
                   NULL, made.at, made.at,
                   CASE WHEN kind BETWEEN 8 AND 14 THEN '/posts/' || what END, 'keyword ' || word,
                   NULL, NULL, NULL, NULL, NULL, 1, i + 1
            FROM (SELECT i, i %% 20 AS kind, b, c, d, pg_temp.rank_of($4, a) AS who, pg_temp.rank_of($5, e) AS what, at,
                         CASE WHEN i %% 20 BETWEEN 15 AND 18 THEN pg_temp.rank_of($6, c) END AS word,
                         floor(extract(epoch FROM at) / 3600)::bigint AS hour
                  FROM (SELECT i, random() AS a, random() AS b, random() AS c, random() AS d, random() AS e,
                               date_trunc('milliseconds', $7 + i * $3 * interval '1 second') AS at
                        FROM generate_series($1::bigint, $2::bigint - 1) AS i OFFSET 0) AS drawn OFFSET 0) AS made
            LEFT JOIN liked USING (i)
            $sql$, part) USING lo, hi, step, users, posts, keywords, begins;
        EXECUTE format('ALTER TABLE events ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', part,
            day || ' 00:00:00+00', day + 1 || ' 00:00:00+00');
        EXECUTE format('CREATE TEMP TABLE hours ON COMMIT DROP AS SELECT floor(extract(epoch FROM event_time) / 3600)::bigint AS hour, event_type, user_id, component_id, keyword, post_id, url, result_count FROM %I', part);
        ANALYZE hours;
        INSERT INTO rollup_hour SELECT dimension, hour, key, count(*) FROM (
            SELECT 1::smallint AS dimension, hour, event_type AS key FROM hours
            UNION ALL SELECT 2, hour, keyword FROM hours WHERE event_type = 'SEARCH'
            UNION ALL SELECT 3, hour, keyword FROM hours WHERE event_type = 'SEARCH' AND result_count = 0
            UNION ALL SELECT 4, hour, post_id FROM hours WHERE event_type = 'PAGE_VIEW'
            UNION ALL SELECT 5, hour, post_id FROM hours WHERE event_type = 'CLICK' AND post_id IS NOT NULL
            UNION ALL SELECT 6, hour, post_id FROM hours WHERE event_type = 'LIKE'
            UNION ALL SELECT 7, hour, '/posts/' || substr(post_id, 2) FROM hours WHERE event_type = 'PAGE_VIEW'
            UNION ALL SELECT 8, hour, component_id::text FROM hours WHERE event_type = 'CLICK'
            UNION ALL SELECT 9, hour, E'LIKE\t' || post_id FROM hours WHERE event_type = 'LIKE') AS counted
            GROUP BY dimension, hour, key ORDER BY dimension, hour, key COLLATE "C";
        INSERT INTO user_hour SELECT DISTINCT hour, array_position('{CLICK,PAGE_VIEW,SEARCH,LIKE}', event_type)::smallint,
                   user_id COLLATE "C" FROM hours WHERE user_id IS NOT NULL ORDER BY 1, 2, 3;
        INSERT INTO post_like SELECT user_id, post_id, at FROM liked;
        INSERT INTO post_like_log (stream, position, post_id, user_id, action, like_count, version, changed_at)
            SELECT stream, i + 1, post_id, user_id, 'LIKE', n, n, at FROM liked ORDER BY i;
        INSERT INTO post_stat SELECT post_id, max(n), max(n) FROM liked GROUP BY post_id ORDER BY post_id
            ON CONFLICT (post_id) DO UPDATE SET like_count = excluded.like_count, version = excluded.version;
        COMMIT;
        RAISE NOTICE '% % events', day, hi;
        lo := hi;
        day := day + 1;
    END LOOP;
    INSERT INTO rollup_minute SELECT dimension, minute, key, count(*) FROM (
        WITH minutes AS MATERIALIZED (SELECT floor(extract(epoch FROM event_time) / 60)::bigint AS minute, * FROM events
                                      WHERE event_time >= until - interval '3 hours')
        SELECT 1::smallint AS dimension, minute, event_type AS key FROM minutes
        UNION ALL SELECT 2, minute, keyword FROM minutes WHERE event_type = 'SEARCH'
        UNION ALL SELECT 3, minute, keyword FROM minutes WHERE event_type = 'SEARCH' AND result_count = 0
        UNION ALL SELECT 4, minute, post_id FROM minutes WHERE event_type = 'PAGE_VIEW'
        UNION ALL SELECT 5, minute, post_id FROM minutes WHERE event_type = 'CLICK' AND post_id IS NOT NULL
        UNION ALL SELECT 6, minute, post_id FROM minutes WHERE event_type = 'LIKE'
        UNION ALL SELECT 7, minute, '/posts/' || substr(post_id, 2) FROM minutes WHERE event_type = 'PAGE_VIEW'
        UNION ALL SELECT 8, minute, component_id::text FROM minutes WHERE event_type = 'CLICK'
        UNION ALL SELECT 9, minute, E'LIKE\t' || post_id FROM minutes WHERE event_type = 'LIKE') AS counted
        GROUP BY dimension, minute, key ORDER BY dimension, minute, key COLLATE "C";
    INSERT INTO rollup_total SELECT dimension, CASE WHEN dimension = 1 THEN key ELSE '' END, sum(count)
        FROM rollup_hour GROUP BY 1, 2;
    INSERT INTO watermark (stream, position, crc, newest_ms, pruned)
        VALUES (stream, total, 0, extract(epoch FROM until) * 1000, total);
    COMMIT;
END $$;

\set QUIET off
CALL pg_temp.generate(:events, :users, :posts, :keywords, :days, :'until');
