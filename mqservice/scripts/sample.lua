-- Note how deep a queue is in the present 10 s, and what happened in the last whole minute.
--
-- KEYS[1]  ready list
--
-- {K}:history:<h> is a hash of one hour since the epoch, kept for 25 hours after its last minute: minute of the hour ->
-- JSON of the sums of that minute's six {K}:rate:<n>, with the last depths. Nothing is noted where all is 0.
--
-- Returns 1 when it noted the minute, else 0.
-- Twice: as once. Caller dies: a later sample within the next minute notes it as well.
local period = math.floor(NOW / 10000)
local depths = {
  ready = math.max(0, redis.call('LLEN', K) - (tonumber(redis.call('HGET', INFO, 'tombstones')) or 0)),
  active = redis.call('ZCARD', ACTIVE),
  scheduled = redis.call('ZCARD', SCHEDULED),
  dead = redis.call('ZCARD', DEAD),
}
for state, depth in pairs(depths) do
  if depth > 0 then
    redis.call('HSET', BASE .. 'rate:' .. period, state, depth)
    redis.call('EXPIRE', BASE .. 'rate:' .. period, 120)
  end
end

local minute = math.floor(NOW / 60000) - 1
local hour, field = BASE .. 'history:' .. math.floor(minute / 60), minute % 60
if redis.call('HEXISTS', hour, field) == 1 then return 0 end
local sums = {}
for n = minute * 6, minute * 6 + 5 do
  local values = redis.call('HGETALL', BASE .. 'rate:' .. n)
  for i = 1, #values, 2 do
    local name = values[i]
    sums[name] = (depths[name] and 0 or sums[name] or 0) + (tonumber(string.match(values[i + 1], '^%d+$')) or 0)
  end
end
if not next(sums) then return 0 end
redis.call('HSET', hour, field, cjson.encode(sums))
redis.call('EXPIRE', hour, 90000)
return 1
