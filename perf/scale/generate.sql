-- Events straight into the ledger in PostgreSQL, with the rollups that batches would have made of them: psql variables
-- events, users, posts (a divisor of users), keywords, days, until.
--
-- Names are drawn so that the n-th is as frequent as 1/n. Of twenty events eight are clicks, seven page views, four
-- searches, one a like. Keywords are lower case and addresses have the form that the program counts by, so that nothing
-- has to be folded here. Likes: each user likes another post in each round, so that every like changes something.

CREATE FUNCTION pg_temp.rank_of(names bigint, chance float8) RETURNS bigint LANGUAGE sql VOLATILE
    AS $$ SELECT least(names, floor(exp(chance * ln(names + 1)))::bigint) $$;

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
    of_day constant text := 'FROM %I GROUP BY 1, 2, 3 ORDER BY 1, 2, 3';
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
        EXECUTE format($sql$
            INSERT INTO %I
            SELECT gen_random_uuid(),
                   CASE WHEN kind < 8 THEN 'CLICK' WHEN kind < 15 THEN 'PAGE_VIEW' WHEN kind < 19 THEN 'SEARCH' ELSE 'LIKE' END,
                   CASE WHEN kind = 19 THEN 'u' || i / 20 %% $4 + 1 WHEN b >= 0.2 THEN 'u' || who END,
                   's' || who || '-' || hour,
                   CASE WHEN kind < 8 THEN 1 + floor(c * 200)::bigint END,
                   NULL,
                   CASE WHEN kind BETWEEN 15 AND 18 THEN 'keyword ' || pg_temp.rank_of($6, c) END,
                   CASE WHEN kind < 8 AND d < 0.5 OR kind BETWEEN 8 AND 14 THEN 'p' || what
                        WHEN kind = 19 THEN 'p' || (i / 20 / $4 * 17 + i / 20 %% $4) %% $5 + 1 END,
                   CASE WHEN kind BETWEEN 8 AND 14 THEN 'https://example.org/posts/' || what || '?from=feed' END,
                   CASE WHEN kind BETWEEN 8 AND 14 AND d < 0.5 THEN 'https://example.org/' END,
                   CASE WHEN kind BETWEEN 15 AND 18 THEN CASE WHEN c > 0.95 THEN 0 ELSE 1 + floor(d * 200)::bigint END END,
                   NULL, at, at
            FROM (SELECT i, i %% 20 AS kind, b, c, d, pg_temp.rank_of($4, a) AS who, pg_temp.rank_of($5, e) AS what, at,
                         floor(extract(epoch FROM at) / 3600)::bigint AS hour
                  FROM (SELECT i, random() AS a, random() AS b, random() AS c, random() AS d, random() AS e,
                               date_trunc('milliseconds', $7 + i * $3 * interval '1 second') AS at
                        FROM generate_series($1::bigint, $2::bigint - 1) AS i OFFSET 0) AS drawn OFFSET 0) AS made
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
        EXECUTE format($sql$
            WITH liked AS (SELECT (row_number() OVER () + $1 / 20)::bigint - 1 AS j, user_id, post_id, event_time FROM %I WHERE event_type = 'LIKE'),
                 state AS (INSERT INTO post_like SELECT user_id, post_id, event_time FROM liked)
            INSERT INTO post_like_log (stream, position, post_id, user_id, action, like_count, version, changed_at)
            SELECT $4, j * 20 + 20, post_id, user_id, 'LIKE', n, n, event_time
            FROM (SELECT *, j / $2 * ($2 / $3) + j %% $2 / $3 + 1 AS n FROM liked) AS numbered $sql$, part) USING lo, users, posts, stream;
        COMMIT;
        RAISE NOTICE '% % events', day, hi;
        lo := hi;
        day := day + 1;
    END LOOP;
    INSERT INTO post_stat SELECT post_id, count(*), count(*) FROM post_like GROUP BY post_id ORDER BY post_id;
    INSERT INTO rollup_total SELECT stream, dimension, CASE WHEN dimension = 1 THEN key ELSE '' END, sum(count)
        FROM rollup_hour GROUP BY 1, 2, 3;
    INSERT INTO watermark (stream, position, crc, pruned) VALUES (stream, total, 0, total);
    COMMIT;
END $$;

\set QUIET off
CALL pg_temp.generate(:events, :users, :posts, :keywords, :days, :'until');
