-- Note how far an active message is.
--
-- KEYS[1]  ready list
-- ARGV[1]  id   ARGV[2]  delivery   ARGV[3]  fraction, 0 to 1   ARGV[4]  text
--
-- Returns 1, or 0 when the receipt is stale and nothing was noted.
-- Twice: as once. Caller dies: it is noted.
local key = RECORD .. ARGV[1]
local r = redis.call('HMGET', key, 'state', 'deliveries')
if r[1] ~= 'active' or r[2] ~= ARGV[2] then return 0 end
redis.call('HSET', key, 'progress', NOW .. ' ' .. ARGV[3] .. ' ' .. ARGV[4])
return 1
