#!lua flags=no-writes
-- What there is of a key. Keys: entry, mark.
local entry = redis.call('HMGET', KEYS[1], 'value', 'fill', 'as_of', 'fence', 'ttl', 'cap')
if entry[1] then return {'entry', entry[1], entry[2], entry[3], entry[4], entry[5], entry[6], redis.call('PTTL', KEYS[1])} end
local mark = redis.call('GET', KEYS[2])
if mark then return {'mark', mark, redis.call('PTTL', KEYS[2])} end
return {'missing'}
