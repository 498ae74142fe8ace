-- Settle outcomes: active -> done, scheduled (to be tried again) or dead.
--
-- KEYS[1]  ready list
-- ARGV[1]  ms that a result is kept; 0: the message is forgotten at once
-- ARGV[2]  ms that a dead message is kept
-- ARGV[3]  how many of the outcomes are results of messages that are done
-- ARGV[4..]  three values each of these: id, token of its claim, the result, JSON; then five each of the others: kind, id,
--          token, value, extra. No id comes twice.
--            'done'   value: the result, JSON             extra: ''
--            'retry'  value: the attempt, one JSON line   extra: delay, ms
--            'dead'   value: the attempt, one JSON line   extra: reason
--            'cancelled'  value and extra: ''
--
-- Returns the number of outcomes when all were settled; else one number an outcome, in their order: 1 settled, 0 the
-- receipt is stale and nothing changed.
-- Twice: 1 again as long as nobody has claimed the message since, and no second effect at any time. Caller dies: it
-- is settled.
check_types()
local result_ttl_ms, dead_ttl_ms = tonumber(ARGV[1]), tonumber(ARGV[2])
-- Until when a result is kept: with the moment itself a server need not rewrite the command, a tenth of HSET and this.
local result_end = string.format('%.0f', NOW + result_ttl_ms)
local ids, stale, ended, done = {}, {}, {}, {}
local forgotten, must_ring = 0, false

-- Keep the last ten attempts, a JSON line each.
local function remember(key, line)
  local lines = {}
  for old in string.gmatch(call('HGET', key, 'history') or '', '[^\n]+') do lines[#lines + 1] = old end
  lines[#lines + 1] = line
  local attempts = (tonumber(call('HGET', key, 'attempts')) or 0) + 1 -- HINCRBY raises at what is no number
  call('HSET', key, 'history', table.concat(lines, '\n', math.max(1, #lines - 9)), 'error', line,
    'attempts', attempts)
end

-- The lease of a message that is done, with the ms that it was held: a field of its own would take a twentieth of all
-- this, and text of more than 64 bytes makes a server with usual settings store the record in another, larger way.
local ended_leases = {}
local function ended_lease(lease)
  local ended = ended_leases[lease] -- the same for each message of a claim
  if not ended then
    local claimed = tonumber(string.match(lease, '^%S+ %d+ (%d+) ')) or NOW
    ended = lease .. ' ' .. string.format('%.0f', NOW - claimed)
    ended_leases[lease] = ended
  end
  return ended
end

local settle = {}

function settle.done(id, key, lease, result, _, watch, unique)
  if result_ttl_ms == 0 then
    call('UNLINK', key)
    forgotten = forgotten + 1
    tell(id, 'done')
  else
    call('HSET', key, 'state', 'done', 'result', result, 'lease', ended_lease(lease))
    call('PEXPIREAT', key, result_end)
    done[#done + 1] = id
  end
  free_unique(unique, id)
  notify(watch, id)
end

function settle.retry(id, key, _, attempt, delay_ms)
  local due = NOW + math.floor(tonumber(delay_ms))
  remember(key, attempt)
  count('failed', 1)
  tell(id, 'scheduled')
  call('HSET', key, 'state', 'scheduled', 'due', due)
  call('ZADD', SCHEDULED, due, id)
  if call('ZRANGE', SCHEDULED, 0, 0)[1] == id then must_ring = true end
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
  local r = redis.pcall('HMGET', RECORD .. id, 'state', 'settled', 'lease', 'sent')
  if r.err then return false end
  if kind == 'done' then return (r[1] == 'done' and holds(r[3], token)) or (result_ttl_ms == 0 and not r[1] and not r[4]) end
  return r[2] == kind .. ' ' .. token or (kind == 'retry' and r[2] == 'cancelled ' .. token)
end

local function settle_one(id, lease, kind, token, value, extra)
  local key, watch, unique, cancel = RECORD .. id, nil, nil, nil
  if string.sub(lease, 17, 17) ~= '-' then
    watch, unique, cancel = unpack(call('HMGET', key, 'watch', 'unique', 'cancel'))
  end
  -- Nobody wants another attempt at what was to be cancelled.
  if kind == 'retry' and cancel then kind = 'cancelled' end
  if kind ~= 'done' then call('HSET', key, 'settled', kind .. ' ' .. token, 'lease', lease) end
  settle[kind](id, key, lease, value, extra, watch, unique)
end

-- The record is somebody else's by now: nothing of ours is left to write to. Any other failure is raised.
local function pass_over(n, failure)
  if not (failure.err and find(failure.err, 'WRONGTYPE')) then error(failure) end
  count('forgotten', 1)
  stale[n] = true
end

local function settle_any(n, lease, kind, id, token, value, extra)
  if not holds(lease, token) then
    if not already(id, kind, token) then stale[n] = true end
    return
  end
  local written, failure = pcall(settle_one, id, lease, kind, token, value, extra)
  if not written then pass_over(n, failure) end
  ended[#ended + 1] = id
end

local first = tonumber(ARGV[3])
local others = 4 + 3 * first
for i = 4, others - 1, 3 do ids[#ids + 1] = ARGV[i] end
for i = others, #ARGV, 5 do ids[#ids + 1] = ARGV[i + 1] end
local leases = leases_of(ids)

-- Nearly all: `settle.done` of what need not be looked up, without its detours.
local plain = result_ttl_ms > 0
local token_of = {} -- by lease, the same for each message of a claim; false: there is more to look at
for n = 1, first do
  local i = 3 * n + 1
  local id, token, lease = ARGV[i], ARGV[i + 1], leases[n]
  if lease and token_of[lease] == nil then token_of[lease] = sub(lease, 17, 17) == '-' and sub(lease, 1, 16) end
  if plain and lease and token_of[lease] == token then
    local key = RECORD .. id
    local new = try('HSET', key, 'state', 'done', 'result', ARGV[i + 2], 'lease', ended_lease(lease))
    if new == 3 or type(new) == 'number' then
      call('PEXPIREAT', key, result_end)
      done[#done + 1] = id
    else
      pass_over(n, new)
    end
    ended[#ended + 1] = id
  else
    settle_any(n, lease, 'done', id, token, ARGV[i + 2])
  end
end
for n = first + 1, #ids do
  local i = others + 5 * (n - first - 1)
  settle_any(n, leases[n], ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4])
end
each_chunk('ZREM', ACTIVE, ended)
each_chunk('HDEL', LEASES, ended)
list_ended(DONE, done)
tell_all(done, 'done')
count('done', #done + forgotten)
if must_ring then ring() end
if next(stale) == nil then return #ids end
local answers = {}
for n = 1, #ids do answers[n] = stale[n] and 0 or 1 end
return answers
