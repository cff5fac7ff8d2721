-- Applies a batch and moves the watermark with it. Arguments: stream, from, to; bound of an open bucket, members kept;
-- totals (field, delta); groups of counts of one dimension and minute; changes of recent searches by user.
local stream, from, to = take(), take(), take()
local found = redis.call('HGET', base .. 'wm', stream)
if found ~= from then return {'fenced', found} end
local above, kept = tonumber(take()), tonumber(take())
local folded_until = tonumber(redis.call('GET', base .. 'folded'))

for _ = 1, tonumber(take()) do
  redis.call('HINCRBY', base .. 'totals', take(), take())
end

-- Adds the group's counts, which begin behind `cursor`, to one bucket.
local function add(bucket, expires, first, last)
  local key = base .. bucket
  local created = redis.call('EXISTS', key) == 0
  for at = first, last, 2 do
    redis.call('ZINCRBY', key, ARGV[at + 1], ARGV[at])
  end
  if created then redis.call('EXPIREAT', key, expires) end
  trim(bucket, above, kept, expires)
end

for _ = 1, tonumber(take()) do
  local dimension, minute = take(), take()
  local unfolded_expires = take()
  -- Expiry 0: no longer kept.
  local buckets = {}
  for at, kind in ipairs({'m:', 'h:', 'd:'}) do
    buckets[at] = {kind .. dimension .. ':' .. take(), take()}
  end
  local count = tonumber(take())
  local first, last = cursor + 1, cursor + 2 * count
  if tonumber(minute) >= folded_until then
    redis.call('ZADD', base .. 'open', minute, minute)
    add(buckets[1][1], unfolded_expires, first, last)
  else
    for _, bucket in ipairs(buckets) do
      if bucket[2] ~= '0' then add(bucket[1], bucket[2], first, last) end
    end
  end
  cursor = last
end

-- Recent searches. An element is `ms:folded`, or `ms:folded\0typed` where the two differ: Lua cannot fold.
local function parse(element)
  local at, folded = string.match(element, '^(-?%d+):([^%z]*)')
  return {at = tonumber(at), folded = folded, element = element}
end

-- As `live::merge_search`.
local function merge(list, search, bound)
  for at, known in ipairs(list) do
    if known.folded == search.folded then
      if known.at > search.at then return end
      table.remove(list, at)
      break
    end
  end
  local place = #list + 1
  for at, known in ipairs(list) do
    if known.at <= search.at then place = at break end
  end
  table.insert(list, place, search)
  list[bound + 1] = nil
end

-- As `live::forget_searches`; an empty keyword means all.
local function forget(list, folded, up_to)
  for at = #list, 1, -1 do
    if list[at].at <= up_to and (folded == '' or folded == list[at].folded) then table.remove(list, at) end
  end
end

local recent_max, recent_ms, recent_after = tonumber(take()), tonumber(take()), tonumber(take())
for _ = 1, tonumber(take()) do
  local key = base .. 'r:' .. take()
  local list = {}
  local elements = redis.call('LRANGE', key, 0, recent_max - 1)
  for at, element in ipairs(elements) do list[at] = parse(element) end
  -- The server's clock may not have expired it yet.
  if list[1] and list[1].at <= recent_after then list = {} end
  for _ = 1, tonumber(take()) do
    local kind, value = take(), take()
    if kind == '+' then
      merge(list, parse(value), recent_max)
    else
      forget(list, value, tonumber(take()))
    end
  end
  -- Mostly searches are new and newest: then only they are written.
  local added = 0
  while list[added + 1] and list[added + 1].element ~= elements[1] do added = added + 1 end
  local pushed = #list == math.min(recent_max, added + #elements)
  for at = added + 1, #list do pushed = pushed and list[at].element == elements[at - added] end
  local first = {}
  for at = 1, pushed and added or #list do first[at] = list[at].element end
  if not pushed and #elements > 0 then redis.call('DEL', key) end
  if #list > 0 then
    if pushed then
      local reversed = {}
      for at = 1, added do reversed[at] = first[added + 1 - at] end
      if added > 0 then redis.call('LPUSH', key, unpack(reversed)) end
      if added + #elements > recent_max then redis.call('LTRIM', key, 0, recent_max - 1) end
    else
      redis.call('RPUSH', key, unpack(first))
    end
    redis.call('PEXPIREAT', key, string.format('%.0f', list[1].at + recent_ms))
  end
end

redis.call('HSET', base .. 'wm', stream, to)
return {'ok'}
