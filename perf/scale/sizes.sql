-- Bytes by part.
SELECT CASE WHEN relname ~ '^events_2\d+$' THEN 'events, rows' WHEN relname ~ '^events_2.*_idx$' THEN 'events, BRIN' ELSE relname END AS part,
       sum(pg_relation_size(oid) + CASE WHEN relkind = 'r' THEN pg_table_size(oid) - pg_relation_size(oid) ELSE 0 END) AS bytes
FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'i') GROUP BY 1 HAVING sum(pg_table_size(oid)) > 1000000 ORDER BY 2 DESC;
