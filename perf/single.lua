-- One event a request, answered once it is durable.
dofile("perf/common.lua")

function init(arguments)
  local headers = { ["Content-Type"] = "application/json" }
  prepare(tonumber(arguments[1]) or 20000, function()
    return wrk.format("POST", "/api/events", headers, event())
  end)
end
