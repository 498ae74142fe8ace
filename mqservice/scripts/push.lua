-- Push raw bodies, as any Redis client would, and ring.
--
-- KEYS[1]  ready list
-- ARGV[1]  token of this push
-- ARGV[2..]  bodies
--
-- Returns the length of the list after it.
-- Twice: the token is known for a minute; nothing happens, the same answer. Caller dies: the bodies are there.
local seen = BASE .. 'push:' .. ARGV[1]
local before = redis.call('GET', seen)
if before then return tonumber(before) end
for i = 2, #ARGV, CHUNK do
  redis.call('RPUSH', K, unpack(ARGV, i, math.min(i + CHUNK - 1, #ARGV)))
end
ring()
local length = redis.call('LLEN', K)
redis.call('SET', seen, length, 'PX', 60000)
return length
