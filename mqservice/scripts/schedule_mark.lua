-- Mark a due time as dealt with: fired or skipped. The mark only moves forward.
--
-- KEYS[1]  {mq}:schedules; keys derived from it as in schedule_put.lua
-- ARGV[1]  name
-- ARGV[2]  rev of the schedule that was acted on
-- ARGV[3]  due time, epoch ms
-- ARGV[4]  fired or skipped
--
-- Returns 1 marked; 0 that due time or a later one was marked before; -1 the schedule was changed or deleted since, and
-- nothing was marked.
-- Twice: 0 for 1, no second effect. Caller dies: it is marked.
local key, due, kind = K .. ':s:' .. ARGV[1], ARGV[3], ARGV[4]
local r = redis.call('HMGET', key, 'rev', 'last', 'fired')
if r[1] ~= ARGV[2] then return -1 end
if kind == 'fired' and tonumber(due) > (tonumber(r[3]) or 0) then redis.call('HSET', key, 'fired', due) end
if tonumber(due) <= (tonumber(r[2]) or 0) then return 0 end
redis.call('HSET', key, 'last', due)
if kind == 'skipped' then redis.call('HINCRBY', key, 'skipped', 1) end
return 1
