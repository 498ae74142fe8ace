-- Ask for the events of a queue: for so long its scripts publish on `mq:queue:<K>` what becomes of messages.
--
-- KEYS[1]  ready list
-- ARGV[1]  ms
--
-- Returns until when, ms. Twice: as once. Caller dies: nothing is published when the time is over.
local wanted = NOW + tonumber(ARGV[1])
redis.call('HSET', INFO, 'watched', wanted)
return wanted
