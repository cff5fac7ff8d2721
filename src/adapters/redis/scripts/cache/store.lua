#!lua
-- Stores what the lock's owner has filled, and gives the lock up. Keys: entry, mark, lock. Arguments: token, value, fill,
-- as of, fence, time to live, cap, channel, key.
if redis.call('GET', KEYS[3]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[3])
local known = redis.call('HGET', KEYS[1], 'fence')
local is_newer = not known or tonumber(known) <= tonumber(ARGV[5])
if is_newer and ARGV[6] ~= '0' then
  redis.call('HSET', KEYS[1], 'value', ARGV[2], 'fill', ARGV[3], 'as_of', ARGV[4], 'fence', ARGV[5], 'ttl', ARGV[6], 'cap', ARGV[7])
  redis.call('PEXPIRE', KEYS[1], ARGV[6] + ARGV[7])
  redis.call('DEL', KEYS[2])
end
redis.call('PUBLISH', ARGV[8], 's' .. ARGV[9])
return is_newer and 1 or 0
