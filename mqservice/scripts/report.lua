-- Note how a process is; forget those that have been silent for 10 s.
--
-- KEYS[1]  {mq}:processes, zset: name -> when it was last heard of, ms. Derived, in the same slot:
--   K:<name>   string  its report, for 10 s
--   K:sampled  string  the latest period of 10 s for which a process was told to sample the queues
-- ARGV[1]  name
-- ARGV[2]  report, JSON; '': it has stopped
--
-- Returns 1 when this process is to sample the queues now, else 0: one process is, once in 10 s.
-- Twice: 0 the second time, so one sample may be missing. Caller dies: it is forgotten in 10 s.
local name, report = ARGV[1], ARGV[2]
redis.call('ZREMRANGEBYSCORE', K, '-inf', NOW - 10000)
if report == '' then
  redis.call('ZREM', K, name)
  redis.call('DEL', K .. ':' .. name)
  return 0
end
redis.call('ZADD', K, NOW, name)
redis.call('SET', K .. ':' .. name, report, 'PX', 10000)
local period = math.floor(NOW / 10000)
if redis.call('SET', K .. ':sampled', period, 'GET', 'EX', 60) == tostring(period) then return 0 end
return 1
