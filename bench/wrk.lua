-- For wrk: what each request is, and one line of JSON about all of them.
--
--   wrk ... -s wrk.lua URL -- [bytes of a body to POST, 0 for a GET]

function init(arguments)
  -- wrk makes the request of these once this has returned.
  local size = tonumber(arguments[1] or "0")
  if size > 0 then
    wrk.method = "POST"
    wrk.body = string.rep("x", size)
    wrk.headers["Content-Type"] = "application/octet-stream"
  end
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '\n{"requests": %d, "seconds": %.6f, "p50": %d, "p99": %d, "errors": %d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50), latency:percentile(99),
    errors.connect + errors.read + errors.write + errors.status + errors.timeout
  ))
end
