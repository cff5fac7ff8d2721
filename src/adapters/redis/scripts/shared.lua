-- What the scripts share. KEYS[1] names the generation; every other key is its neighbour in the same hash slot.
-- A missing generation ends the script before anything is written, and so does one whose bookkeeping was evicted: the
-- caller rebuilds.
local generation = redis.call('GET', KEYS[1])
if not generation then return {'lost'} end
local base = string.sub(KEYS[1], 1, -4) .. generation .. ':'
local folded_until = tonumber(redis.call('GET', base .. 'folded') or nil)
if not folded_until or redis.call('EXISTS', base .. 'wm') == 0 then return {'lost'} end

local cursor = 0
local function take()
  cursor = cursor + 1
  return ARGV[cursor]
end

-- A trimmed bucket is remembered until it expires, so that answers can say that they are lower bounds.
local function trim(bucket, above, kept, expires)
  local key = base .. bucket
  if redis.call('ZCARD', key) > above then
    redis.call('ZREMRANGEBYRANK', key, 0, -kept - 1)
    redis.call('ZADD', base .. 'trimmed', expires, bucket)
  end
end
