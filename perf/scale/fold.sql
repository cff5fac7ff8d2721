-- What the program folds hour by hour, at once, for events that were generated: days, spans, points of series (days of UTC).
-- By dimension and by day, so that no sort is larger than one of them. psql variable dimensions: {1,2,3,4,5,6,7,8,9}.
DROP INDEX rollup_day_count, rollup_span_count;
CREATE PROCEDURE pg_temp.fold(until bigint, dimensions int[]) LANGUAGE plpgsql AS $$
DECLARE part record; dim int;
BEGIN
    FOREACH dim IN ARRAY dimensions LOOP
        INSERT INTO rollup_day SELECT dimension, bucket / 24, key, sum(count) FROM rollup_hour
            WHERE dimension = dim AND bucket < until GROUP BY 1, 2, 3 ORDER BY 1, 3, 2;
        INSERT INTO rollup_span SELECT dimension, bucket / 32, key, sum(count) FROM rollup_day
            WHERE dimension = dim AND bucket < until / 24 GROUP BY 1, 2, 3 ORDER BY 1, 3, 2;
        COMMIT;
    END LOOP;
    UPDATE rollup_folded SET until_hour = until, until_day = until / 24;
    FOR part IN SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
                WHERE inhparent = 'events'::regclass ORDER BY relname LOOP
        EXECUTE format($sql$
            INSERT INTO series (minutes, event_type, at, count, users)
            SELECT CASE WHEN grouping(minute) = 0 THEN 1 WHEN grouping(hour) = 0 THEN 60 ELSE 1440 END, coalesce(code, 0),
                   coalesce(minute, hour * 60, min(day) * 1440), count(*), count(DISTINCT user_id)
            FROM (SELECT *, minute / 60 AS hour, minute / 1440 AS day
                  FROM (SELECT floor(extract(epoch FROM event_time) / 60)::bigint AS minute, user_id COLLATE "C" AS user_id,
                               array_position('{CLICK,PAGE_VIEW,SEARCH,LIKE}', event_type) AS code FROM %I) AS e) AS events
            WHERE hour < $1
            GROUP BY GROUPING SETS ((minute, code), (minute), (hour, code), (hour), (code), ())
            HAVING count(*) > 0 $sql$, part.relname) USING until;
        COMMIT;
        RAISE NOTICE '%', part.relname;
    END LOOP;
    -- The last day is not over.
    DELETE FROM series WHERE minutes = 1440 AND at + 1440 > until * 60;
    -- Its users, as far as its hours are counted.
    INSERT INTO user_day SELECT DISTINCT until / 24 * 1440, kind, user_id
        FROM user_hour CROSS JOIN LATERAL (VALUES (0::smallint), (event_type)) AS kinds (kind)
        WHERE hour >= until / 24 * 24 AND hour < until ORDER BY 1, 2, 3;
    INSERT INTO series SELECT -1440, event_type, at, 0, count(*) FROM user_day GROUP BY event_type, at;
END $$;
SELECT max(bucket) AS until FROM rollup_hour WHERE dimension = 1 \gset
CALL pg_temp.fold(:until, :'dimensions');
CREATE INDEX rollup_day_count ON rollup_day (dimension, bucket, count DESC, key) WHERE dimension BETWEEN 2 AND 8;
CREATE INDEX rollup_span_count ON rollup_span (dimension, bucket, count DESC, key) WHERE dimension BETWEEN 2 AND 8;
VACUUM (ANALYZE, PARALLEL 0);
