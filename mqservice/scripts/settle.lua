-- Settle outcomes: active -> done, scheduled (to be tried again) or dead.
--
-- KEYS[1]  ready list
-- ARGV[1]  ms that a result is kept; 0: the message is forgotten at once
-- ARGV[2]  ms that a dead message is kept
-- ARGV[3..]  five values an outcome: kind, id, token of its claim, value, extra
--            'done'   value: the result, JSON             extra: ''
--            'retry'  value: the attempt, one JSON line   extra: delay, ms
--            'dead'   value: the attempt, one JSON line   extra: reason
--            'cancelled'  value and extra: ''
--
-- Returns one number an outcome: 1 settled, 0 the receipt is stale and nothing changed.
-- Twice: 1 again as long as nobody has claimed the message since, and no second effect at any time. Caller dies: it
-- is settled.
check_types()
local result_ttl_ms, dead_ttl_ms = tonumber(ARGV[1]), tonumber(ARGV[2])
local answers, ended, done = {}, {}, {}
local finished, must_ring = 0, false

-- Keep the last ten attempts, a JSON line each.
local function remember(key, line)
  local lines = {}
  for old in string.gmatch(redis.call('HGET', key, 'history') or '', '[^\n]+') do lines[#lines + 1] = old end
  lines[#lines + 1] = line
  local attempts = (tonumber(redis.call('HGET', key, 'attempts')) or 0) + 1 -- HINCRBY raises at what is no number
  redis.call('HSET', key, 'history', table.concat(lines, '\n', math.max(1, #lines - 9)), 'error', line,
    'attempts', attempts)
end

local settle = {}

function settle.done(id, key, lease, result, _, watch, unique)
  if result_ttl_ms == 0 then
    redis.call('UNLINK', key)
  else
    redis.call('HSET', key, 'state', 'done', 'result', result, 'finished', NOW, 'lease', lease)
    redis.call('PEXPIRE', key, result_ttl_ms)
    done[#done + 1] = id
  end
  finished = finished + 1
  tell(id, 'done')
  free_unique(unique, id)
  notify(watch, id)
end

function settle.retry(id, key, _, attempt, delay_ms)
  local due = NOW + math.floor(tonumber(delay_ms))
  remember(key, attempt)
  count('failed', 1)
  tell(id, 'scheduled')
  redis.call('HSET', key, 'state', 'scheduled', 'due', due)
  redis.call('ZADD', SCHEDULED, due, id)
  if redis.call('ZRANGE', SCHEDULED, 0, 0)[1] == id then must_ring = true end
end

function settle.dead(id, key, _, attempt, reason)
  remember(key, attempt)
  count('failed', 1)
  bury(id, reason, attempt, dead_ttl_ms)
end

function settle.cancelled(id)
  mark_cancelled(id, dead_ttl_ms)
end

-- Asked again about a lease that has ended: whether it ended in this way.
local function already(id, kind, token)
  local r = redis.pcall('HMGET', RECORD .. id, 'state', 'settled', 'lease')
  if r.err then return false end
  if kind == 'done' then return (r[1] == 'done' and holds(r[3], token)) or (result_ttl_ms == 0 and not r[1]) end
  return r[2] == kind .. ' ' .. token or (kind == 'retry' and r[2] == 'cancelled ' .. token)
end

local function settle_one(id, lease, kind, token, value, extra)
  local key, watch, unique, cancel = RECORD .. id, nil, nil, nil
  if string.sub(lease, 17, 17) ~= '-' then
    watch, unique, cancel = unpack(redis.call('HMGET', key, 'watch', 'unique', 'cancel'))
  end
  -- Nobody wants another attempt at what was to be cancelled.
  if kind == 'retry' and cancel then kind = 'cancelled' end
  if kind ~= 'done' then redis.call('HSET', key, 'settled', kind .. ' ' .. token, 'lease', lease, 'more', 1) end
  settle[kind](id, key, lease, value, extra, watch, unique)
end

local ids, settled = {}, {}
for i = 4, #ARGV, 5 do ids[#ids + 1] = ARGV[i] end
for n, lease in ipairs(leases_of(ids)) do
  local id, i = ids[n], 5 * n - 2
  local kind, token = ARGV[i], ARGV[i + 2]
  if holds(lease, token) and not settled[id] then
    local written, failure = pcall(settle_one, id, lease, kind, token, ARGV[i + 3], ARGV[i + 4])
    if not written then
      if not (failure.err and string.find(failure.err, 'WRONGTYPE')) then error(failure) end
      count('forgotten', 1) -- the record is somebody else's by now: nothing of ours is left to write to
    end
    settled[id] = true
    ended[#ended + 1] = id
    answers[n] = written and 1 or 0
  else
    answers[n] = already(id, kind, token) and 1 or 0
  end
end
each_chunk('ZREM', ACTIVE, ended)
each_chunk('HDEL', LEASES, ended)
list_ended(DONE, done)
count('done', finished)
if must_ring then ring() end
return answers
