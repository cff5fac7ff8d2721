-- Applies a batch and moves the watermark with it. Arguments: stream, from, to; bound of an open bucket, members kept;
-- totals (field, delta); groups of counts of one dimension and minute, some of them negative; users of a minute; changes of
-- recent searches by user; tombstones: now, how long they are kept, how many, each a post and its version (negative: put).
local stream, from, to = take(), take(), take()
local found = redis.call('HGET', base .. 'wm', stream)
if found ~= from then return {'fenced', found} end
local above, kept = tonumber(take()), tonumber(take())

for _ = 1, tonumber(take()) do
  redis.call('HINCRBY', base .. 'totals', take(), take())
end

-- Adds a group to its minute, or, once that is folded, to each of its buckets that is still kept. What `write` adds begins
-- behind `cursor`, `width` arguments each.
local function add_group(dimension, width, write)
  local minute, unfolded_expires = take(), take()
  -- Expiry 0: no longer kept.
  local buckets = {}
  for at, kind in ipairs({'m:', 'h:', 'd:'}) do
    buckets[at] = {kind .. dimension .. ':' .. take(), take()}
  end
  local length = width * tonumber(take())
  local first, last = cursor + 1, cursor + length
  if tonumber(minute) >= folded_until then
    redis.call('ZADD', base .. 'open', minute, minute)
    buckets = {{buckets[1][1], unfolded_expires}}
  end
  for _, bucket in ipairs(buckets) do
    local name, expires = bucket[1], bucket[2]
    if expires ~= '0' then
      local created = redis.call('EXISTS', base .. name) == 0
      write(name, first, last, expires)
      if created then redis.call('EXPIREAT', base .. name, expires) end
    end
  end
  cursor = last
end

local function add_counts(name, first, last, expires)
  local key = base .. name
  for at = first, last, 2 do redis.call('ZINCRBY', key, ARGV[at + 1], ARGV[at]) end
  trim(name, above, kept, expires)
end

-- One PFADD for all of them; `unpack` takes no more than some thousands.
local function add_users(name, first, last)
  for at = first, last, 1000 do redis.call('PFADD', base .. name, unpack(ARGV, at, math.min(at + 999, last))) end
end

for _ = 1, tonumber(take()) do add_group(take(), 2, add_counts) end
for _ = 1, tonumber(take()) do add_group('users', 1, add_users) end

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
local forgotten_max = tonumber(take())

local function expire(key, newest)
  redis.call('PEXPIREAT', key, string.format('%.0f', newest + recent_ms))
end

-- What nearly every change is: one search, newer than all there is, for a keyword that is not there. False: it may be
-- another case (a keyword that begins like a known one is taken for it), and nothing was written.
local function push_newest(key, elements, value)
  local search = parse(value)
  local head = elements[1] and parse(elements[1])
  if head and (head.at > search.at or head.at <= recent_after) then return false end
  local name = ':' .. search.folded
  for _, element in ipairs(elements) do
    if string.find(element, name, 1, true) then return false end
  end
  redis.call('LPUSH', key, value)
  if #elements == recent_max then redis.call('LTRIM', key, 0, recent_max - 1) end
  expire(key, search.at)
  return true
end

-- Any changes: the list is worked out and written anew.
local function rewrite(key, elements, changes)
  local list = {}
  for at, element in ipairs(elements) do list[at] = parse(element) end
  -- The server's clock may not have expired it yet.
  if list[1] and list[1].at <= recent_after then list = {} end
  for _, change in ipairs(changes) do
    if change.kind == '+' then
      merge(list, parse(change.value), recent_max)
    else
      forget(list, change.value, change.up_to)
    end
  end
  if #elements > 0 then redis.call('DEL', key) end
  if #list == 0 then return end
  local all = {}
  for at, search in ipairs(list) do all[at] = search.element end
  redis.call('RPUSH', key, unpack(all))
  expire(key, list[1].at)
end

-- What was forgotten in the last hour, by user and folded keyword (empty: all): a search made before it may still come.
local forgotten = base .. 'forgotten'
local is_any_forgotten = redis.call('EXISTS', forgotten) == 1

local function remember_forgetting(user, folded, up_to)
  redis.call('ZADD', forgotten, 'GT', string.format('%.0f', up_to), user .. '\0' .. folded)
  redis.call('ZREMRANGEBYSCORE', forgotten, '-inf', recent_after)
  redis.call('ZREMRANGEBYRANK', forgotten, 0, -1 - forgotten_max)
  local newest = redis.call('ZRANGE', forgotten, -1, -1, 'WITHSCORES')[2]
  if newest then expire(forgotten, tonumber(newest)) end
  is_any_forgotten = true
end

local function is_forgotten(user, search)
  if not is_any_forgotten then return false end
  for _, folded in ipairs({'', search.folded}) do
    local up_to = redis.call('ZSCORE', forgotten, user .. '\0' .. folded)
    if up_to and search.at <= tonumber(up_to) then return true end
  end
  return false
end

for _ = 1, tonumber(take()) do
  local user = take()
  local key = base .. 'r:' .. user
  local changes = {}
  for _ = 1, tonumber(take()) do
    local kind, value = take(), take()
    if kind == '-' then
      changes[#changes + 1] = {kind = kind, value = value, up_to = tonumber(take())}
      remember_forgetting(user, value, changes[#changes].up_to)
    elseif not is_forgotten(user, parse(value)) then
      changes[#changes + 1] = {kind = kind, value = value}
    end
  end
  if #changes > 0 then
    local elements = redis.call('LRANGE', key, 0, recent_max - 1)
    local one = #changes == 1 and changes[1].kind == '+'
    if not (one and push_newest(key, elements, changes[1].value)) then
      rewrite(key, elements, changes)
    end
  end
end

-- The highest version of a post decides, whichever stream brings it first.
local now, tombstone_kept, tombstones_max = tonumber(take()), tonumber(take()), tonumber(take())
local tombstones, times = base .. 'tombstones', base .. 'tombstone_times'
local is_any_new = false
for _ = 1, tonumber(take()) do
  local post, version = take(), take()
  local known = tonumber(redis.call('HGET', tombstones, post) or 0)
  if math.abs(tonumber(version)) > math.abs(known) then
    redis.call('HSET', tombstones, post, version)
    redis.call('ZADD', times, now, post)
    is_any_new = true
  end
end
if is_any_new then
  if redis.call('ZCARD', times) > tombstones_max then
    local oldest = redis.call('ZRANGE', times, 0, math.min(999, tombstones_max / 10))
    redis.call('HDEL', tombstones, unpack(oldest))
    redis.call('ZREM', times, unpack(oldest))
  end
  for _, key in ipairs({tombstones, times}) do
    redis.call('PEXPIREAT', key, string.format('%.0f', now + tombstone_kept))
  end
end

redis.call('HSET', base .. 'wm', stream, to)
return {'ok'}
