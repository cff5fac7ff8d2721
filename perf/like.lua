-- A toggle of a like, answered with the state after its commit: `-- POSTS` (1,000; 1: everybody likes the same post).
dofile("perf/common.lua")

function init(arguments)
  local posts = tonumber(arguments[1]) or 1000
  local headers = { ["Content-Type"] = "application/json" }
  prepare(20000, function()
    local body = string.format('{"userId":%d,"postId":%d}', math.random(10000), math.random(posts))
    return wrk.format("POST", "/api/posts/like", headers, body)
  end)
end
