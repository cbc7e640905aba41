-- wrk's side of bench/sweep.py: POST /tts with the text and the length that the environment says.
-- Counts answers by status, and prints one line of JSON at the end.
wrk.method = "POST"
wrk.path = "/tts"
wrk.headers["Content-Type"] = "application/json"
wrk.body = os.getenv("SWEEP_BODY")

local threads = {}

function setup(thread)
  table.insert(threads, thread)
end

function init(args)
  ok, refused, other = 0, 0, 0
end

function response(status, headers, body)
  if status == 200 then
    ok = ok + 1
  elseif status == 429 then
    refused = refused + 1
  else
    other = other + 1
  end
end

function done(summary, latency, requests)
  local oks, refusals, others = 0, 0, 0
  for _, thread in ipairs(threads) do
    oks = oks + thread:get("ok")
    refusals = refusals + thread:get("refused")
    others = others + thread:get("other")
  end
  local errors = summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout
  io.write(string.format(
    'SWEEP {"ok": %d, "refused": %d, "other": %d, "errors": %d, "seconds": %.6f, "p50_s": %.6f, "p99_s": %.6f}\n',
    oks, refusals, others, errors, summary.duration / 1e6, latency:percentile(50) / 1e6, latency:percentile(99) / 1e6))
end
