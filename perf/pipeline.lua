-- GET of one path, DEPTH requests a write: `-- DEPTH`. What is counted are answers, as without pipelining.

function init(arguments)
  local depth = tonumber(arguments[1]) or 16
  local requests = {}
  for i = 1, depth do
    requests[i] = wrk.format("GET", wrk.path)
  end
  all = table.concat(requests)
end

function request()
  return all
end
