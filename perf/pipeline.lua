-- GET of one path, DEPTH requests per write: `-- DEPTH`. Answers are counted, as without pipelining.

function init(arguments)
  local requests = {}
  for i = 1, tonumber(arguments[1]) or 16 do
    requests[i] = wrk.format("GET", wrk.path)
  end
  write = table.concat(requests)
end

function request()
  return write
end
