-- Settle outcomes: active -> done, scheduled (to be tried again) or dead.
--
-- KEYS[1]  ready list
-- ARGV[1]  ms that a result is kept; 0: the message is forgotten at once
-- ARGV[2]  ms that a dead message is kept
-- ARGV[3..]  five values an outcome: kind, id, delivery, value, extra
--            'done'   value: the result, JSON             extra: ''
--            'retry'  value: the attempt, one JSON line   extra: delay, ms
--            'dead'   value: the attempt, one JSON line   extra: reason
--            'cancelled'  value and extra: ''
--
-- Returns one number an outcome: 1 settled, 0 the receipt is stale and nothing changed.
-- Twice: 1 again as long as nobody has claimed the message since, and no second effect at any time. Caller dies: it
-- is settled.
local result_ttl_ms, dead_ttl_ms = tonumber(ARGV[1]), tonumber(ARGV[2])
local answers, ended, done = {}, {}, {}
local finished, must_ring = 0, false

-- Keep the last ten attempts, a JSON line each.
local function remember(key, line)
  local lines = {}
  for old in string.gmatch(redis.call('HGET', key, 'history') or '', '[^\n]+') do lines[#lines + 1] = old end
  lines[#lines + 1] = line
  redis.call('HSET', key, 'history', table.concat(lines, '\n', math.max(1, #lines - 9)), 'error', line)
  redis.call('HINCRBY', key, 'attempts', 1)
end

local settle = {}

function settle.done(id, key, result, _, watch, unique)
  if result_ttl_ms == 0 then
    redis.call('UNLINK', key)
  else
    redis.call('HSET', key, 'state', 'done', 'result', result, 'finished', NOW)
    redis.call('PEXPIRE', key, result_ttl_ms)
    done[#done + 1] = id
  end
  finished = finished + 1
  free_unique(unique, id)
  notify(watch, id)
end

function settle.retry(id, key, attempt, delay_ms)
  local due = NOW + math.floor(tonumber(delay_ms))
  remember(key, attempt)
  count('failed', 1)
  redis.call('HSET', key, 'state', 'scheduled', 'due', due)
  redis.call('ZADD', SCHEDULED, due, id)
  if redis.call('ZRANGE', SCHEDULED, 0, 0)[1] == id then must_ring = true end
end

function settle.dead(id, key, attempt, reason)
  remember(key, attempt)
  count('failed', 1)
  bury(id, reason, attempt, dead_ttl_ms)
end

function settle.cancelled(id)
  mark_cancelled(id, dead_ttl_ms)
end

for i = 3, #ARGV, 5 do
  local kind, id, delivery, value, extra = unpack(ARGV, i, i + 4)
  local key = RECORD .. id
  local r = redis.call('HMGET', key, 'state', 'deliveries', 'settled', 'watch', 'unique', 'cancel')
  if r[1] == 'active' and r[2] == delivery then
    ended[#ended + 1] = id
    -- Nobody wants another attempt at what was to be cancelled.
    if kind == 'retry' and r[6] then kind = 'cancelled' end
    if kind ~= 'done' then redis.call('HSET', key, 'settled', kind .. ' ' .. delivery) end
    settle[kind](id, key, value, extra, r[4], r[5])
    answers[#answers + 1] = 1
  else
    local forgotten = kind == 'done' and result_ttl_ms == 0 and not r[1]
    local already = (kind == 'done' and r[1] == 'done' and r[2] == delivery) or
      r[3] == kind .. ' ' .. delivery or (kind == 'retry' and r[3] == 'cancelled ' .. delivery) or forgotten
    answers[#answers + 1] = already and 1 or 0
  end
end
each_chunk('ZREM', ACTIVE, ended)
list_ended(DONE, done)
count('done', finished)
if must_ring then ring() end
return answers
