-- Orders for wrk: wrk ... -- TOKEN RUN BOXES. Each has a transaction_id of its own.
local wanted, threads = 0, {}

function setup(thread)
   table.insert(threads, thread)
end

function init(args)
   token, run, boxes = args[1], args[2], tonumber(args[3])
   math.randomseed(tonumber(run:sub(1, 8), 16))
   head = {["Authorization"] = "Bearer " .. token, ["Content-Type"] = "application/json"}
   count, accepted = 0, 0
end

function request()
   count = count + 1
   local body = string.format(
      '{"transaction_id":"%s-%d","device_id":"%d","product_id":%d}',
      run, count, math.random(1, boxes), math.random(1, 10))
   return wrk.format("POST", "/addentitlement", head, body)
end

function response(status)
   if status == 202 then accepted = accepted + 1 end
end

function done(summary, latency)
   local accepted = 0
   for _, thread in ipairs(threads) do accepted = accepted + thread:get("accepted") end
   io.write(string.format("accepted %d\nseconds %.6f\nms_p50 %.3f\nms_p99 %.3f\nother %d\n",
      accepted, summary.duration / 1e6, latency:percentile(50) / 1e3,
      latency:percentile(99) / 1e3, summary.requests - accepted))
end
