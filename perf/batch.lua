-- A hundred events a request.
dofile("perf/common.lua")

function init(arguments)
  local headers = { ["Content-Type"] = "application/json" }
  prepare(tonumber(arguments[1]) or 300, function()
    local events = {}
    for i = 1, 100 do
      events[i] = event()
    end
    return wrk.format("POST", "/api/events", headers, "[" .. table.concat(events, ",") .. "]")
  end)
end
