-- Note how a process is; forget those that have been silent for 10 s.
--
-- KEYS[1]  {mq}:processes, zset: name -> when it was last heard of, ms. Derived, in the same slot:
--   K:<name>   string  its report, for 10 s
--   K:sampled  string  the latest period of 10 s for which a process was told to sample the queues
--   K:totals   hash    field -> what all processes have counted; of a queue: `field@name`. Kept for 30 days
--   K:names    set     the queues that are told apart in it, at most 200; the others are counted as `(other)`
--   K:told:<name>  string  number of the last telling that was added, for an hour
-- ARGV[1]  name
-- ARGV[2]  report, JSON; '': it has stopped
-- ARGV[3]  number of this telling, if any: one that comes a second time adds nothing
-- ARGV[4..]  three values a count: field, queue or '', how many more
--
-- Returns 1 when this process is to sample the queues now, else 0: one process is, once in 10 s.
-- Twice: nothing is counted twice; 0 the second time, so one sample may be missing. Caller dies: it is forgotten in 10 s.
local name, report = ARGV[1], ARGV[2]
local NAMES = K .. ':names'

local function named(queue)
  if redis.call('SISMEMBER', NAMES, queue) == 1 then return queue end
  if redis.call('SCARD', NAMES) >= 200 then return '(other)' end
  redis.call('SADD', NAMES, queue)
  return queue
end

if ARGV[3] and redis.call('SET', K .. ':told:' .. name, ARGV[3], 'GET', 'EX', 3600) ~= ARGV[3] then
  for i = 4, #ARGV, 3 do
    local field, queue = ARGV[i], ARGV[i + 1]
    if queue ~= '' then field = field .. '@' .. named(queue) end
    redis.pcall('HINCRBY', K .. ':totals', field, ARGV[i + 2]) -- whatever a stranger has put there
  end
  redis.call('EXPIRE', K .. ':totals', 2592000)
  if redis.call('EXISTS', NAMES) == 1 then redis.call('EXPIRE', NAMES, 2592000) end
end

redis.call('ZREMRANGEBYSCORE', K, '-inf', NOW - 10000)
if report == '' then
  redis.call('ZREM', K, name)
  redis.call('DEL', K .. ':' .. name, K .. ':told:' .. name)
  return 0
end
redis.call('ZADD', K, NOW, name)
redis.call('SET', K .. ':' .. name, report, 'PX', 10000)
local period = math.floor(NOW / 10000)
if redis.call('SET', K .. ':sampled', period, 'GET', 'EX', 60) == tostring(period) then return 0 end
return 1
