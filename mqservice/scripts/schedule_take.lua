-- Take the turn to fire what is due of one schedule, for a short time. It spares the others the work, and keeps due
-- times apart where no record of a message does; that nothing is fired twice rests on message ids, not on turns.
--
-- KEYS[1]  {mq}:schedules; keys derived from it as in schedule_put.lua
-- ARGV[1]  name
-- ARGV[2]  taker, unique to one scheduler
-- ARGV[3]  length of a turn, ms
--
-- Returns nil when there is no such schedule; else {now in ms, ms until the turn of another ends or 0 when the turn is
-- the taker's, spec, source, owner, rev, created, last, fired, skipped}, the last eight as they are stored.
-- Twice: the turn is prolonged. Caller dies: its turn ends by itself.
local key, taker = K .. ':s:' .. ARGV[1], ARGV[2]
local r = redis.call('HMGET', key, 'spec', 'source', 'owner', 'rev', 'created', 'last', 'fired', 'skipped')
if not r[1] then return false end
local turn = redis.call('HMGET', key, 'turn_by', 'turn_until')
local wait = 0
if turn[1] and turn[1] ~= taker then wait = math.max(0, tonumber(turn[2]) - NOW) end
if wait == 0 then redis.call('HSET', key, 'turn_by', taker, 'turn_until', NOW + tonumber(ARGV[3])) end
return { NOW, wait, unpack(r, 1, 8) }
