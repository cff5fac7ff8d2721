-- An entry as it is answered. That it is found means a second reading: from now on it is kept for the whole cap.
local function found(entry)
  local cap = tonumber(entry[6])
  local full = tonumber(entry[7]) or cap
  local left = redis.call('PTTL', KEYS[1])
  if cap < full then
    left = left + full - cap
    redis.call('HSET', KEYS[1], 'cap', full)
    redis.call('PEXPIRE', KEYS[1], left)
  end
  return {'entry', entry[1], entry[2], entry[3], entry[4], entry[5], full, left}
end
