-- Shared by the load scripts: requests made before the clock starts, and one line of figures at the end.
-- Arguments behind `--`: the number of prepared requests a thread (optional).

local threads = {}

-- Runs in the main state, once a thread: each gets its own seed, so that runs repeat and threads differ.
function setup(thread)
  thread:set("seed", 7919 * (#threads + 1))
  threads[#threads + 1] = thread
end

-- Fills `prepared`; `make` returns a whole request. The generator then costs a table look-up a request.
function prepare(count, make)
  math.randomseed(seed or 1)
  prepared, next_request, issued = {}, 0, 0
  for i = 1, count do
    prepared[i] = make()
  end
end

function request()
  next_request = next_request % #prepared + 1
  issued = issued + 1
  return prepared[next_request]
end

local keywords = {}
for _, what in ipairs({ "chair", "desk", "lamp", "mirror", "sofa", "shelf", "rug", "vase", "clock", "bed" }) do
  for _, kind in ipairs({ "salon", "oak", "garden", "vintage", "white", "folding", "round", "kids", "office", "velvet" }) do
    keywords[#keywords + 1] = kind .. " " .. what
  end
end

-- One of three kinds of event of one of 10,000 users. The square makes few things popular and most rare.
function event()
  local user = math.random(10000)
  local skewed = math.random() ^ 2
  local kind = math.random(3)
  local head = string.format('"userId":%d,"sessionId":"s-%d"', user, user % 2500)
  if kind == 1 then
    return string.format('{"eventType":"SEARCH",%s,"metadata":{"componentId":1001,"keyword":"%s","resultCount":%d}}',
      head, keywords[math.floor(skewed * #keywords) + 1], math.random(0, 9))
  elseif kind == 2 then
    return string.format('{"eventType":"CLICK",%s,"metadata":{"componentId":%d,"elementId":"card-%d","postId":%d}}',
      head, 1001 + math.random(0, 49), math.random(20), math.floor(skewed * 5000) + 1)
  end
  local post = math.floor(skewed * 5000) + 1
  return string.format('{"eventType":"PAGE_VIEW",%s,"metadata":{"url":"/posts/%d?from=feed","referrer":"/feed","postId":%d}}',
    head, post, post)
end

-- name=value words on a line of its own, read by perf/ingest. wrk asks once for a request before the run (it looks for
-- pipelining): that one was never sent. Answers from 400 up are `refused`.
function done(summary, latency, requests)
  local asked = 0
  for _, thread in ipairs(threads) do
    asked = asked + (thread:get("issued") or 0)
  end
  local errors = summary.errors
  io.write(string.format(
    "\nFIGURES seconds=%.3f answers=%d refused=%d connect=%d read=%d write=%d timeout=%d p50=%.2f p99=%.2f issued=%d\n",
    summary.duration / 1e6, summary.requests, errors.status, errors.connect, errors.read, errors.write, errors.timeout,
    latency:percentile(50) / 1000, latency:percentile(99) / 1000, math.max(asked - 1, 0)))
end
