-- The first of a ranking whose union is computed once for all who ask in the same second. Arguments: name of the union,
-- milliseconds that it is kept, limit, 1 if the names are posts; as of, half-life (0: none); unfolded minutes from, to (exclusive); parts
-- (dimension, weight); buckets (`m:` or `h:` or `d:`, number, weight).
local name, union_kept, limit, of_posts = take(), take(), tonumber(take()), take() == '1'
local as_of, half_life = tonumber(take()), tonumber(take())
local unfolded_from, unfolded_to = tonumber(take()), tonumber(take())
local parts, buckets = {}, {}
for at = 1, tonumber(take()) do parts[at] = {take(), tonumber(take())} end
for at = 1, tonumber(take()) do buckets[at] = {take(), take(), tonumber(take())} end

if unfolded_to > unfolded_from then
  local from = math.max(folded_until, unfolded_from)
  for _, minute in ipairs(redis.call('ZRANGE', base .. 'open', from, '(' .. unfolded_to, 'BYSCORE')) do
    local weight = 1
    if half_life > 0 then weight = 0.5 ^ (math.max(0, as_of - (tonumber(minute) + 1) * 60000) / half_life) end
    buckets[#buckets + 1] = {'m:', minute, weight}
  end
end

-- Scores are negative: ascending order is then score descending and, among equals, name ascending.
local union = base .. 'u:' .. name
if redis.call('EXISTS', union) == 0 then
  local keys, weights = {}, {}
  local function store()
    local arguments = {'ZUNIONSTORE', union, #keys}
    for _, key in ipairs(keys) do arguments[#arguments + 1] = key end
    arguments[#arguments + 1] = 'WEIGHTS'
    for _, weight in ipairs(weights) do arguments[#arguments + 1] = string.format('%.17g', weight) end
    redis.call(unpack(arguments))
    keys, weights = {union}, {1}
  end
  for _, bucket in ipairs(buckets) do
    for _, part in ipairs(parts) do
      keys[#keys + 1] = base .. bucket[1] .. part[1] .. ':' .. bucket[2]
      weights[#weights + 1] = -bucket[3] * part[2]
      -- `unpack` takes no more than some thousands.
      if #keys >= 1000 then store() end
    end
  end
  if #keys > 0 then store() end
  redis.call('PEXPIRE', union, union_kept)
end

local approximate = 0
if redis.call('EXISTS', base .. 'trimmed') == 1 then
  for _, bucket in ipairs(buckets) do
    for _, part in ipairs(parts) do
      if redis.call('ZSCORE', base .. 'trimmed', bucket[1] .. part[1] .. ':' .. bucket[2]) then approximate = 1 end
    end
  end
end

local function ranked(from, count)
  return redis.call('ZRANGE', union, '-inf', '(0', 'BYSCORE', 'LIMIT', from, count, 'WITHSCORES')
end

-- Deleted posts are skipped until the list is full or the ranking ends.
local tombstones = base .. 'tombstones'
if not of_posts or redis.call('EXISTS', tombstones) == 0 then return {'ok', approximate, ranked(0, limit)} end
local rows, from, count = {}, 0, math.max(100, math.min(limit, 1000))
while #rows < 2 * limit do
  local found = ranked(from, count)
  if #found == 0 then break end
  local names = {}
  for at = 1, #found, 2 do names[#names + 1] = found[at] end
  local versions = redis.call('HMGET', tombstones, unpack(names))
  for at, post in ipairs(names) do
    local is_hidden = tonumber(versions[at] or 0) > 0
    if not is_hidden and #rows < 2 * limit then
      rows[#rows + 1] = post
      rows[#rows + 1] = found[2 * at]
    end
  end
  from = from + count
end
return {'ok', approximate, rows}
