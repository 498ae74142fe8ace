-- Replay dead messages: dead -> ready or scheduled, with new budgets, their id and their history.
--
-- KEYS[1]  ready list
-- ARGV[1]  token of this replay
-- ARGV[2..]  two values a message: id, delay in ms (0: ready at once)
--
-- Returns one state a message: 'ready' or 'scheduled' when it is replayed, '=' and its state when it was not dead,
-- '' when there is no such id.
-- Twice with one token: the same answers as long as nobody has claimed it since; no second effect at any time.
-- Caller dies: it is replayed.
check_types()
local mark = 'replay ' .. ARGV[1]
local answers, marks, replayed = {}, {}, 0
local must_ring = false

local function replay(id, delay_ms)
  local key = RECORD .. id
  if redis.call('EXISTS', key) == 0 then return '' end
  local state = state_of(id)
  if state ~= 'dead' then return redis.call('HGET', key, 'settled') == mark and state or '=' .. state end
  redis.call('ZREM', DEAD, id)
  redis.call('HDEL', key, 'reason', 'error', 'finished', 'attempts', 'crashes', 'expires', 'cancel', 'unique')
  redis.call('PERSIST', key)
  replayed = replayed + 1
  tell(id, delay_ms > 0 and 'scheduled' or 'ready')
  if delay_ms > 0 then
    local due = NOW + delay_ms
    redis.call('HSET', key, 'state', 'scheduled', 'due', due, 'settled', mark)
    redis.call('ZADD', SCHEDULED, due, id)
    must_ring = true
    return 'scheduled'
  end
  redis.call('HSET', key, 'state', 'ready', 'settled', mark)
  marks[#marks + 1] = MARK .. id
  return 'ready'
end

for i = 2, #ARGV, 2 do answers[#answers + 1] = replay(ARGV[i], math.floor(tonumber(ARGV[i + 1]))) end
each_chunk('RPUSH', K, marks)
count('replayed', replayed)
if #marks > 0 or must_ring then ring() end
return answers
