-- GET of one path, DEPTH requests a write: `-- DEPTH [HEADS]`. What is counted are answers, as without pipelining. HEADS
-- writes in turn, whose requests all have a number of their own; without it all are the same.

function init(arguments)
  local depth, heads = tonumber(arguments[1]) or 16, tonumber(arguments[2])
  writes, at = {}, 0
  for i = 1, heads or 1 do
    local requests = {}
    for j = 1, depth do
      if heads then
        wrk.headers["X-Number"] = i * depth + j
      end
      requests[j] = wrk.format("GET", wrk.path)
    end
    writes[i] = table.concat(requests)
  end
end

function request()
  at = at % #writes + 1
  return writes[at]
end
