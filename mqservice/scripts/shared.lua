-- Prepended to every script of this folder; never run alone.
--
-- KEYS[1]  the queue's ready list, K. Every other key is derived from it, in the same Cluster slot:
--   {K}:bell       list  0 or 1 token; BLPOPed by idle consumers
--   {K}:active     zset  id -> lease deadline, ms
--   {K}:leases     hash  id -> lease, for every id in active: `token flag delivery claimed-ms consumer`, where token is
--                  that of the claim (16 hex digits) and flag, right behind it, says what a settle need not look up:
--                  - nothing, + the record is not plain, c that and its cancellation was asked for
--   {K}:scheduled  zset  id -> due time, ms
--   {K}:dead       zset  id -> time of death, ms
--   {K}:done       list  the newest finished ids, newest first, at most 10,000; {K}:cancelled likewise
--   {K}:info       hash  counters (sent, done, failed, died, died:<reason>, cancelled, replayed, purged, forgotten, tombstones), `paused`,
--                        `watched` (until when somebody wants its events, ms)
--   {K}:rate:<n>   hash  the same counters of one period of 10 s, for two minutes; see runs.lua, sample.lua
--   {K}:history:<h>  hash  what happened in each minute of an hour, for a day; see sample.lua
--   {K}:consumers  zset  consumer -> when it was last heard of, ms
--   {K}:u:<key>    string  id of the unfinished message that has this unique key
--   {K}:m:<id>     hash  the message
--   {K}:claim:<c>  string  the last claim of consumer c: its token, then an id per line
--   {K}:push:<t>   string  a raw push that has happened, for a minute
--
-- Fields of a message: body (or blob, when large: read outside of scripts), meta, state, sent, due, attempts, crashes,
-- finished, lease (its last one, once that has ended; of a message that is done, for how many ms it was held behind it,
-- and no `finished`), settled, result, error, reason, history, expires, watch, unique, cancel, progress, purged (a stub
-- for an entry of the ready list whose message was purged).
-- Nearly all are plain while they wait: sent, body and perhaps meta. They have no `state`: that is written with the first
-- other field, says 'ready' then, and tells a claim that there is more to look at.
-- A claim writes nothing into the record: a message that has a lease is active, whatever its `state` says. Claims and
-- settles of a hundred take a third less of Redis' time that way.
-- Times are this server's TIME in ms. Numbers that are 0 are absent.

local K = KEYS[1]
local BASE = '{' .. K .. '}:'
local BELL, ACTIVE, SCHEDULED = BASE .. 'bell', BASE .. 'active', BASE .. 'scheduled'
local DEAD, DONE, CANCELLED = BASE .. 'dead', BASE .. 'done', BASE .. 'cancelled'
local LEASES, INFO, RECORD, UNIQUE, CONSUMERS = BASE .. 'leases', BASE .. 'info', BASE .. 'm:', BASE .. 'u:', BASE .. 'consumers'

-- An id on the ready list carries this mark; a raw body that starts with it by accident does not exist.
local MARK = '\0mq:'
local CHUNK = 1000 -- values per variadic command: Lua's stack takes about 8,000

local TIME = redis.call('TIME')
local NOW = TIME[1] * 1000 + math.floor(TIME[2] / 1000)
local NOW_TEXT = string.format('%.0f', NOW) -- a number is formatted anew for each command that gets it

-- Looked up once: in a claim of a hundred, finding them again took 6 % of Redis' time.
local call, try, sub, find = redis.call, redis.pcall, string.sub, string.find

-- Raise WRONGTYPE, should a key of this queue hold something else, before the first write: scripts are not undone.
local function check_types()
  for _, key in ipairs({ K, BELL, DONE, CANCELLED }) do redis.call('LLEN', key) end
  for _, key in ipairs({ ACTIVE, SCHEDULED, DEAD, CONSUMERS }) do redis.call('ZCARD', key) end
  redis.call('HLEN', LEASES)
  redis.call('HLEN', INFO)
end

-- Tell one idle consumer to look. One token is enough: who takes it claims all it can, and rings on.
local function ring()
  if redis.call('LLEN', BELL) == 0 then redis.call('RPUSH', BELL, '1') end
end

-- Note what became of a message, for those who watch the queue. When nobody does, it costs one HGET a call.
local watched, told, untold = nil, {}, 0
local function tell(id, state)
  if watched == nil then watched = (tonumber(redis.call('HGET', INFO, 'watched')) or 0) > NOW end
  if not watched then return end
  if #told < 100 then told[#told + 1] = state .. ' ' .. id else untold = untold + 1 end
end

-- Note the same about many.
local function tell_all(ids, state)
  for n = 1, #ids do
    tell(ids[n], state)
    if not watched then return end
  end
end

-- Publish what was noted: now in ms, how many were left out, then a line each. Called after every script.
local function tell_watchers()
  if #told > 0 then redis.call('PUBLISH', 'mq:queue:' .. K, NOW .. ' ' .. untold .. '\n' .. table.concat(told, '\n')) end
end

-- Run a variadic command over any number of values.
local function each_chunk(command, key, values)
  for i = 1, #values, CHUNK do
    redis.call(command, key, unpack(values, i, math.min(i + CHUNK - 1, #values)))
  end
end

-- What the claim with this token gave is still held.
local function holds(lease, token)
  return lease and string.sub(lease, 1, 16) == token
end

-- How often the message has been handed out, the lease's own time included.
local function deliveries(lease)
  return lease and tonumber(string.match(lease, '^%S+ (%d+) ')) or 0
end

-- The leases of many ids, in their order; false where there is none.
local function leases_of(ids)
  if #ids == 0 then return {} end
  if #ids <= CHUNK then return call('HMGET', LEASES, unpack(ids)) end
  local leases = {}
  for i = 1, #ids, CHUNK do
    local last = math.min(i + CHUNK - 1, #ids)
    for n, lease in ipairs(redis.call('HMGET', LEASES, unpack(ids, i, last))) do leases[i + n - 1] = lease end
  end
  return leases
end

-- What a record says of its state; nothing when there is none.
local function stored_state(id)
  local r = redis.call('HMGET', RECORD .. id, 'state', 'sent')
  return r[1] or (r[2] and 'ready')
end

-- The state of one message that exists; 'damaged' when somebody else has written its record.
local function state_of(id)
  local known, state = pcall(stored_state, id)
  if not known or not state then return 'damaged' end
  return redis.call('HEXISTS', LEASES, id) == 1 and 'active' or state
end

-- Put a flag into the lease of an active message.
local function flag(id, lease, sign)
  redis.call('HSET', LEASES, id, string.sub(lease, 1, 16) .. sign .. string.sub(lease, 18))
end

-- Count `n` events, for ever and in the present 10 s.
local function count(event, n)
  if n == 0 then return end
  -- pcall: a number that somebody else has damaged must not undo half of a script.
  redis.pcall('HINCRBY', INFO, event, n)
  local rate = BASE .. 'rate:' .. math.floor(NOW / 10000)
  redis.pcall('HINCRBY', rate, event, n)
  redis.pcall('EXPIRE', rate, 120)
end

-- Count ids on the ready list whose message is cancelled. pcall: as above.
local function count_tombstones(n) redis.pcall('HINCRBY', INFO, 'tombstones', n) end

-- The message has ended: another one may have its unique key.
local function free_unique(unique, id)
  if unique and redis.call('GET', UNIQUE .. unique) == id then redis.call('DEL', UNIQUE .. unique) end
end

-- Keep the newest 10,000 ended ids.
local function list_ended(list, ids)
  if #ids == 0 then return end
  each_chunk('LPUSH', list, ids)
  redis.call('LTRIM', list, 0, 9999)
end

-- Tell the processes that wait for this message that it has come to an end. `watch` names their channels.
local function notify(watch, id)
  if watch then
    for channel in string.gmatch(watch, '%S+') do redis.call('PUBLISH', channel, 'ended ' .. id .. ' ' .. K) end
  end
end

-- active (its lease is the caller's to end) or ready -> dead. `error` is JSON or nil; the record goes after ttl_ms, the list keeps its newest 100,000.
local function bury(id, reason, error, ttl_ms)
  local key = RECORD .. id
  redis.call('HSET', key, 'state', 'dead', 'reason', reason, 'finished', NOW)
  if error then redis.call('HSET', key, 'error', error) end
  redis.call('PEXPIRE', key, ttl_ms)
  -- Listed still from an earlier life, whose record has gone: that one is forgotten now.
  if redis.call('ZADD', DEAD, NOW, id) == 0 then count('forgotten', 1) end
  count('died', 1)
  redis.pcall('HINCRBY', INFO, 'died:' .. reason, 1)
  tell(id, 'dead')
  count('forgotten', redis.call('ZREMRANGEBYSCORE', DEAD, '-inf', NOW - ttl_ms))
  local excess = redis.call('ZCARD', DEAD) - 100000
  if excess > 0 then
    local oldest = redis.call('ZPOPMIN', DEAD, math.min(excess, 100))
    for i = 1, #oldest, 2 do redis.call('UNLINK', RECORD .. oldest[i]) end
    count('forgotten', #oldest / 2)
  end
  local r = redis.call('HMGET', key, 'watch', 'unique')
  free_unique(r[2], id)
  notify(r[1], id)
end

-- A UUIDv7 of this moment. RFC 9562, 6.2 method 1: time, then a counter (below 4096), then 16 hex digits that are
-- random but for the first, 8 to b.
local function uuid7(counter, random)
  local ms = string.format('%012x', NOW)
  return string.format('%s-%s-7%03x-%s-%s', string.sub(ms, 1, 8), string.sub(ms, 9), counter,
    string.sub(random, 1, 4), string.sub(random, 5))
end

-- any unfinished state -> cancelled. A ready one stays on the list as a tombstone, which a claim takes off.
local function mark_cancelled(id, ttl_ms)
  local key = RECORD .. id
  redis.call('HSET', key, 'state', 'cancelled', 'finished', NOW)
  redis.call('PEXPIRE', key, ttl_ms)
  count('cancelled', 1)
  tell(id, 'cancelled')
  list_ended(CANCELLED, { id })
  local r = redis.call('HMGET', key, 'watch', 'unique')
  free_unique(r[2], id)
  notify(r[1], id)
end
