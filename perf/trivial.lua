-- A GET that does nothing: what HTTP, the kernel and wrk cost here without any of our work.
dofile("perf/common.lua")

function init()
  prepare(1, function()
    return wrk.format("GET", "/healthz/live")
  end)
end
