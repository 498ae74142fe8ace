-- Note how far an active message is.
--
-- KEYS[1]  ready list
-- ARGV[1]  id   ARGV[2]  token of its claim   ARGV[3]  fraction, 0 to 1   ARGV[4]  text
--
-- Returns 1, or 0 when the receipt is stale and nothing was noted.
-- Twice: as once. Caller dies: it is noted.
if not holds(redis.call('HGET', LEASES, ARGV[1]), ARGV[2]) then return 0 end
redis.call('HSET', RECORD .. ARGV[1], 'progress', NOW .. ' ' .. ARGV[3] .. ' ' .. ARGV[4])
return 1
