-- What the program closes hour by hour, at once, for events that were generated: days and spans.
-- By dimension and by day, so that no sort is larger than one of them. psql variable dimensions: {1,2,3,4,5,6,7,8,9}.
DROP INDEX rollup_day_count, rollup_span_count;
CREATE PROCEDURE pg_temp.fold(until bigint, dimensions int[]) LANGUAGE plpgsql AS $$
DECLARE dim int;
BEGIN
    FOREACH dim IN ARRAY dimensions LOOP
        INSERT INTO rollup_day SELECT dimension, bucket / 24, key, sum(count) FROM rollup_hour
            WHERE dimension = dim AND bucket < until GROUP BY 1, 2, 3 ORDER BY 1, 3, 2;
        INSERT INTO rollup_span SELECT dimension, bucket / 32, key, sum(count) FROM rollup_day
            WHERE dimension = dim AND bucket < until / 24 GROUP BY 1, 2, 3 ORDER BY 1, 3, 2;
        COMMIT;
    END LOOP;
    UPDATE rollup_state SET until_hour = until, until_day = until / 24;
    -- Points and bitmaps are counted by the program.
    INSERT INTO series (minutes, event_type, at, count)
        SELECT DISTINCT 60, 0, bucket * 60, 0 FROM rollup_hour WHERE dimension = 1 AND bucket < until;
    COMMIT;
END $$;
SELECT max(bucket) AS until FROM rollup_hour WHERE dimension = 1 \gset
CALL pg_temp.fold(:until, :'dimensions');
CREATE INDEX rollup_day_count ON rollup_day (dimension, bucket, count DESC, key) WHERE dimension BETWEEN 2 AND 8;
CREATE INDEX rollup_span_count ON rollup_span (dimension, bucket, count DESC, key) WHERE dimension BETWEEN 2 AND 8;
VACUUM (ANALYZE, PARALLEL 0);
