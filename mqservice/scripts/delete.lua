-- Delete a queue that holds no message any more: its counters, listings and bell.
--
-- KEYS[1]  ready list
-- ARGV[1]  ms after which a consumer that was not heard of does not count
-- ARGV[2]  1: delete it when nothing is in the way; 0: only tell
--
-- Returns {consumers, active messages, ready and scheduled messages}. It was deleted when it was asked for and all are 0.
-- Twice: as once. Caller dies: it is deleted.
check_types()
local consumers = redis.call('ZCOUNT', CONSUMERS, NOW - tonumber(ARGV[1]), '+inf')
local active = redis.call('ZCARD', ACTIVE)
local waiting = redis.call('LLEN', K) + redis.call('ZCARD', SCHEDULED)
if ARGV[2] == '1' and consumers + active + waiting == 0 then
  redis.call('UNLINK', BELL, DEAD, DONE, CANCELLED, INFO, CONSUMERS, LEASES)
end
return { consumers, active, waiting }
