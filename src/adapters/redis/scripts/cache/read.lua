-- What there is of a key. Keys: entry, mark.
local entry = redis.call('HMGET', KEYS[1], 'value', 'fill', 'as_of', 'fence', 'ttl', 'cap', 'full')
if entry[1] then return found(entry) end
local mark = redis.call('GET', KEYS[2])
if mark then return {'mark', mark, redis.call('PTTL', KEYS[2])} end
return {'missing'}
