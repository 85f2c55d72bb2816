-- Load of the gateway benchmarks: HTX_BENCH_POST posts that many bytes, else GET. One line of JSON at the end.
local size = tonumber(os.getenv("HTX_BENCH_POST") or "0")
if size > 0 then
  wrk.method = "POST"
  wrk.body = string.rep("x", size)
  wrk.headers["Content-Type"] = "application/octet-stream"
end

function done(summary, latency)
  local e = summary.errors
  print(string.format(
    'JSON {"requests":%d,"us":%d,"p50us":%d,"p90us":%d,"p99us":%d,"errors":%d}',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(90), latency:percentile(99),
    e.status + e.connect + e.read + e.write + e.timeout
  ))
end
