-- Move the deadline of leases that are still held.
--
-- KEYS[1]  ready list
-- ARGV[1]  lease, ms
-- ARGV[2]  consumer, which is thereby heard of
-- ARGV[3..]  two values a receipt: id, token of its claim
--
-- Returns one number a receipt: 1 renewed, 0 stale (somebody else has it, or it has ended), 2 renewed, and its
-- cancellation was asked for.
-- Twice: as once. Caller dies: the leases expire one lease later.
local answers, ids, renewed = {}, {}, {}
local deadline = NOW + tonumber(ARGV[1])
for i = 3, #ARGV, 2 do ids[#ids + 1] = ARGV[i] end
for n, lease in ipairs(leases_of(ids)) do
  if holds(lease, ARGV[2 * n + 2]) then
    renewed[#renewed + 1] = deadline
    renewed[#renewed + 1] = ids[n]
    answers[n] = string.sub(lease, 17, 17) == 'c' and 2 or 1
  else
    answers[n] = 0
  end
end
each_chunk('ZADD', ACTIVE, renewed)
redis.call('ZADD', CONSUMERS, NOW, ARGV[2])
return answers
