-- An entry that is read a second time is kept for the whole cap. Keys: entry.
local caps = redis.call('HMGET', KEYS[1], 'cap', 'full')
local more = (tonumber(caps[2]) or 0) - (tonumber(caps[1]) or 0)
if more > 0 then
  redis.call('HSET', KEYS[1], 'cap', caps[2])
  redis.call('PEXPIRE', KEYS[1], redis.call('PTTL', KEYS[1]) + more)
end
return more
