#!lua flags=allow-oom
-- Deletes what is kept of a key. Keys: entry, mark, lock. Arguments: channel, key.
redis.call('UNLINK', KEYS[1], KEYS[2], KEYS[3])
redis.call('PUBLISH', ARGV[1], 'r' .. ARGV[2])
return 1
