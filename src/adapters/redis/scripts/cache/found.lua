-- An entry as it is answered.
local function found(entry)
  local left = redis.call('PTTL', KEYS[1])
  return {'entry', entry[1], entry[2], entry[3], entry[4], entry[5], entry[6], left, entry[7] or entry[6]}
end
