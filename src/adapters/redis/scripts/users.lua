-- About how many users a window has: its union is made once for all who ask in the same second. Arguments: name of the
-- union, milliseconds that it is kept; unfolded minutes from, to (exclusive); buckets (`m:` or `h:` or `d:`, number).
local name, union_kept = take(), take()
local unfolded_from, unfolded_to = tonumber(take()), tonumber(take())

local union = base .. 'u:' .. name
if redis.call('EXISTS', union) == 0 then
  local keys = {}
  local function merge()
    redis.call('PFMERGE', union, unpack(keys))
    keys = {}
  end
  local function add(kind, number)
    keys[#keys + 1] = base .. kind .. 'users:' .. number
    -- `unpack` takes no more than some thousands.
    if #keys >= 1000 then merge() end
  end
  for _ = 1, tonumber(take()) do add(take(), take()) end
  if unfolded_to > unfolded_from then
    local from = math.max(folded_until, unfolded_from)
    for _, minute in ipairs(redis.call('ZRANGE', base .. 'open', from, '(' .. unfolded_to, 'BYSCORE')) do
      add('m:', minute)
    end
  end
  merge()
  redis.call('PEXPIRE', union, union_kept)
end
return {'ok', redis.call('PFCOUNT', union)}
