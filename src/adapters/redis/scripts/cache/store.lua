-- Stores what the lock's owner has filled, and gives the lock up. Keys: entry, mark, lock, fence. Arguments: token, value,
-- fill, as of, fence, time to live, cap, channel, key.
if redis.call('GET', KEYS[3]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[3])
local known = redis.call('HGET', KEYS[1], 'fence')
local is_newer = not known or tonumber(known) <= tonumber(ARGV[5])
if is_newer and ARGV[6] ~= '0' then
  -- The first reading of a key may be the only one: without a second one it is kept for one more time to live.
  local is_again = string.find(redis.call('GET', KEYS[4]) or '', 'again', 1, true)
  local cap = is_again and tonumber(ARGV[7]) or math.min(tonumber(ARGV[6]), tonumber(ARGV[7]))
  redis.call('HSET', KEYS[1], 'value', ARGV[2], 'fill', ARGV[3], 'as_of', ARGV[4], 'fence', ARGV[5], 'ttl', ARGV[6],
    'cap', cap, 'full', ARGV[7])
  redis.call('PEXPIRE', KEYS[1], ARGV[6] + cap)
  redis.call('DEL', KEYS[2])
end
redis.call('PUBLISH', ARGV[8], 's' .. ARGV[9])
return is_newer and 1 or 0
