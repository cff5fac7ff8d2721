-- Takes the lock, unless there is something else to know. Keys: entry, mark, lock, fence. Arguments: token, lease, the
-- fence of the entry that is known (or nothing), how long the fence is kept.
local entry = redis.call('HMGET', KEYS[1], 'value', 'fill', 'as_of', 'fence', 'ttl', 'cap', 'full')
if entry[1] and entry[4] ~= ARGV[3] then return found(entry) end
local mark = redis.call('GET', KEYS[2])
if mark then return {'mark', mark, redis.call('PTTL', KEYS[2])} end
local owner = redis.call('GET', KEYS[3])
if owner and owner ~= ARGV[1] then return {'busy'} end
redis.call('SET', KEYS[3], ARGV[1], 'PX', ARGV[2])
-- `fence:again`: a key whose fence is still there is read more than once.
local known = redis.call('GET', KEYS[4])
local last = known and string.match(known, '^%d+')
if owner and last then return {'owned', last} end
-- At least the time, so that it grows even if everything was lost. Microseconds fit into a double until the year 2255.
local time = redis.call('TIME')
local fence = math.max((tonumber(last) or 0) + 1, (tonumber(entry[4]) or 0) + 1, time[1] * 1000000 + time[2])
fence = string.format('%.0f', fence)
redis.call('SET', KEYS[4], fence .. (known and ':again' or ''), 'PX', ARGV[4])
return {'owned', fence}
