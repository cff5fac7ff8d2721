#!lua
-- Takes the lock, unless there is something else to know. Keys: entry, mark, lock, fence. Arguments: token, lease, the
-- fence of the entry that is known (or nothing), how long the fence is kept.
local entry = redis.call('HMGET', KEYS[1], 'value', 'fill', 'as_of', 'fence', 'ttl', 'cap')
if entry[1] and entry[4] ~= ARGV[3] then
  return {'entry', entry[1], entry[2], entry[3], entry[4], entry[5], entry[6], redis.call('PTTL', KEYS[1])}
end
local mark = redis.call('GET', KEYS[2])
if mark then return {'mark', mark, redis.call('PTTL', KEYS[2])} end
local owner = redis.call('GET', KEYS[3])
if owner and owner ~= ARGV[1] then return {'busy'} end
redis.call('SET', KEYS[3], ARGV[1], 'PX', ARGV[2])
if owner then
  local fence = redis.call('GET', KEYS[4])
  if fence then return {'owned', fence} end
end
-- At least the time: so it grows even where everything was lost. Microseconds fit into a double until the year 2255.
local time = redis.call('TIME')
local fence = math.max((tonumber(redis.call('GET', KEYS[4])) or 0) + 1, time[1] * 1000000 + time[2])
fence = string.format('%.0f', fence)
redis.call('SET', KEYS[4], fence, 'PX', ARGV[4])
return {'owned', fence}
