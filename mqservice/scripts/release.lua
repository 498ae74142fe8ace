-- Give leased messages back: active -> ready, at the head of the line, with no attempt and no crash used.
--
-- KEYS[1]  ready list
-- ARGV[1..]  two values a receipt: id, delivery; in the order in which they were claimed
--
-- Returns one number a receipt: 1 released, 0 the receipt is stale and nothing changed.
-- Twice: 1 again as long as nobody has claimed it since, and no second effect at any time. Caller dies: it is released.
local answers, released, marks = {}, {}, {}
for i = 1, #ARGV, 2 do
  local id, delivery = ARGV[i], ARGV[i + 1]
  local key = RECORD .. id
  local r = redis.call('HMGET', key, 'state', 'deliveries', 'settled')
  if r[1] == 'active' and r[2] == delivery then
    redis.call('HSET', key, 'state', 'ready', 'settled', 'release ' .. delivery)
    released[#released + 1] = id
    table.insert(marks, 1, MARK .. id) -- LPUSH turns the order round once more
    answers[#answers + 1] = 1
  else
    answers[#answers + 1] = r[3] == 'release ' .. delivery and 1 or 0
  end
end
each_chunk('ZREM', ACTIVE, released)
each_chunk('LPUSH', K, marks)
if #marks > 0 then ring() end
return answers
