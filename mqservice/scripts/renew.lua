-- Move the deadline of leases that are still held.
--
-- KEYS[1]  ready list
-- ARGV[1]  lease, ms
-- ARGV[2]  consumer, which is thereby heard of
-- ARGV[3..]  two values a receipt: id, delivery
--
-- Returns one number a receipt: 1 renewed, 0 stale (somebody else has it, or it has ended), 2 renewed, and its
-- cancellation was asked for.
-- Twice: as once. Caller dies: the leases expire one lease later.
local answers, leases = {}, {}
local deadline = NOW + tonumber(ARGV[1])
for i = 3, #ARGV, 2 do
  local r = redis.call('HMGET', RECORD .. ARGV[i], 'state', 'deliveries', 'cancel')
  if r[1] == 'active' and r[2] == ARGV[i + 1] then
    leases[#leases + 1] = deadline
    leases[#leases + 1] = ARGV[i]
    answers[#answers + 1] = r[3] and 2 or 1
  else
    answers[#answers + 1] = 0
  end
end
each_chunk('ZADD', ACTIVE, leases)
redis.call('ZADD', CONSUMERS, NOW, ARGV[2])
return answers
