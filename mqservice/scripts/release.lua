-- Give leased messages back: active -> ready, at the head of the line, with no attempt and no crash used.
--
-- KEYS[1]  ready list
-- ARGV[1..]  two values a receipt: id, token of its claim; in the order in which they were claimed
--
-- Returns one number a receipt: 1 released, 0 the receipt is stale and nothing changed.
-- Twice: 1 again as long as nobody has claimed it since, and no second effect at any time. Caller dies: it is released.
check_types()
local answers, ids, released, marks = {}, {}, {}, {}
for i = 1, #ARGV, 2 do ids[#ids + 1] = ARGV[i] end
for n, lease in ipairs(leases_of(ids)) do
  local id, token = ids[n], ARGV[2 * n]
  local key, mark = RECORD .. id, 'release ' .. token
  if holds(lease, token) and redis.call('HGET', key, 'settled') ~= mark then
    redis.call('HSET', key, 'state', 'ready', 'settled', mark, 'lease', lease)
    released[#released + 1] = id
    tell(id, 'ready')
    table.insert(marks, 1, MARK .. id) -- LPUSH turns the order round once more
    answers[n] = 1
  else
    answers[n] = redis.call('HGET', key, 'settled') == mark and 1 or 0
  end
end
each_chunk('ZREM', ACTIVE, released)
each_chunk('HDEL', LEASES, released)
each_chunk('LPUSH', K, marks)
if #marks > 0 then ring() end
return answers
