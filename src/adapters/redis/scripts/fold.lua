-- Adds some closed minutes to their hours and days and moves `folded` with them. Answers whether more is left, and one
-- generation that no program uses, if there is one. Arguments: key of the times of use, seconds that an unused generation is
-- kept; until when tombstones are too old; first minute that stays open, minutes at most, bounds, seconds that a minute and an hour are kept, now; dimensions;
-- days (number, first minute, expiry) in order, the last one only as the end of the one before.
local generations, unused_kept, tombstones_until = take(), tonumber(take()), take()
local until_minute, minutes_max = tonumber(take()), tonumber(take())
local above, kept = tonumber(take()), tonumber(take())
local minute_kept, hour_kept, now = tonumber(take()), tonumber(take()), tonumber(take())
local dimensions, days = {}, {}
for at = 1, tonumber(take()) do dimensions[at] = take() end
for at = 1, tonumber(take()) do
  days[at] = {number = take(), first = tonumber(take()), expires = tonumber(take())}
end

-- By Redis' own clock, on which all programs agree.
local time = tonumber(redis.call('TIME')[1])
redis.call('ZADD', generations, time, KEYS[1])
local unused = redis.call('ZRANGE', generations, '-inf', time - unused_kept, 'BYSCORE', 'LIMIT', 0, 1)[1] or false

local old = redis.call('ZRANGE', base .. 'tombstone_times', '-inf', tombstones_until, 'BYSCORE', 'LIMIT', 0, 1000)
if #old > 0 then
  redis.call('HDEL', base .. 'tombstones', unpack(old))
  redis.call('ZREM', base .. 'tombstone_times', unpack(old))
end

if folded_until >= until_minute then return {'ok', 0, unused} end
local minutes = redis.call('ZRANGE', base .. 'open', folded_until, until_minute - 1, 'BYSCORE', 'LIMIT', 0, minutes_max)
local next_minute = until_minute
if #minutes == minutes_max then next_minute = tonumber(minutes[#minutes]) + 1 end

-- The hour and the day of a minute: number, end as a minute, expiry in seconds.
local function targets(minute)
  local found = {}
  local hour = math.floor(minute / 60)
  local expires = (hour + 1) * 3600 + hour_kept
  if expires > now then
    found[1] = {kind = 'h:', number = string.format('%.0f', hour), last = (hour + 1) * 60, expires = expires}
  end
  for at = 1, #days - 1 do
    if days[at].first <= minute and minute < days[at + 1].first then
      found[#found + 1] = {kind = 'd:', number = days[at].number, last = days[at + 1].first, expires = days[at].expires}
    end
  end
  return found
end

-- A small minute is added member by member, a large one as a whole: a union rewrites all of its target.
local function pour(source, target, expires)
  local from, into = base .. source, base .. target
  if redis.call('ZCARD', into) < 4 * redis.call('ZCARD', from) then
    redis.call('ZUNIONSTORE', into, 2, into, from)
  else
    local counts = redis.call('ZRANGE', from, 0, -1, 'WITHSCORES')
    for at = 1, #counts, 2 do redis.call('ZINCRBY', into, counts[at + 1], counts[at]) end
  end
  redis.call('EXPIREAT', into, expires)
  if redis.call('ZSCORE', base .. 'trimmed', source) then redis.call('ZADD', base .. 'trimmed', expires, target) end
end

local touched = {}
local function touch(minute)
  for _, target in ipairs(targets(minute)) do touched[target.kind .. target.number] = target end
end

-- What the last fold left open may close with this one, whether or not it gets anything more.
touch(folded_until - 1)
for _, minute in ipairs(minutes) do
  touch(tonumber(minute))
  local users = base .. 'm:users:' .. minute
  if redis.call('EXISTS', users) == 1 then
    for _, target in ipairs(targets(tonumber(minute))) do
      local into = base .. target.kind .. 'users:' .. target.number
      redis.call('PFMERGE', into, users)
      redis.call('EXPIREAT', into, target.expires)
    end
    redis.call('EXPIREAT', users, (tonumber(minute) + 1) * 60 + minute_kept)
  end
  for _, dimension in ipairs(dimensions) do
    local source = 'm:' .. dimension .. ':' .. minute
    if redis.call('EXISTS', base .. source) == 1 then
      for _, target in ipairs(targets(tonumber(minute))) do
        pour(source, target.kind .. dimension .. ':' .. target.number, target.expires)
      end
      local expires = (tonumber(minute) + 1) * 60 + minute_kept
      trim(source, kept, kept, expires)
      redis.call('EXPIREAT', base .. source, expires)
    end
  end
end
for _, target in pairs(touched) do
  for _, dimension in ipairs(dimensions) do
    local bound = target.last <= next_minute and kept or above
    trim(target.kind .. dimension .. ':' .. target.number, bound, kept, target.expires)
  end
end

redis.call('ZREMRANGEBYSCORE', base .. 'open', '-inf', next_minute - 1)
redis.call('ZREMRANGEBYSCORE', base .. 'trimmed', '-inf', now)
redis.call('SET', base .. 'folded', string.format('%.0f', next_minute))
return {'ok', next_minute < until_minute and 1 or 0, unused}
