-- GETs whose heads differ, DEPTH requests a write: `-- DEPTH`. Of heads that a client sends again the tracker parses one: this is
-- how it is without that.
local kinds = 4096

function init(arguments)
  local depth = tonumber(arguments[1]) or 1
  writes, at = {}, 0
  for i = 1, kinds do
    local requests = {}
    for j = 1, depth do
      requests[j] = wrk.format("GET", wrk.path, { ["Host"] = wrk.headers["Host"], ["X-Request"] = (i * depth + j) % 100000 })
    end
    writes[i] = table.concat(requests)
  end
end

function request()
  at = at % kinds + 1
  return writes[at]
end
