-- Gives the lock up; where its fill failed, marks the key. Keys: mark, lock. Arguments: token, error, how long (or 0),
-- channel, key.
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[2])
if ARGV[3] ~= '0' then redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end
redis.call('PUBLISH', ARGV[4], 's' .. ARGV[5])
return 1
