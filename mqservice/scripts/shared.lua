-- Prepended to every script of this folder; never run alone.
--
-- KEYS[1]  the queue's ready list, K. Every other key is derived from it, in the same Cluster slot:
--   {K}:bell       list  0 or 1 token; BLPOPed by idle consumers
--   {K}:active     zset  id -> lease deadline, ms
--   {K}:scheduled  zset  id -> due time, ms
--   {K}:dead       zset  id -> time of death, ms
--   {K}:done       list  the newest finished ids, newest first, at most 10,000; {K}:cancelled likewise
--   {K}:info       hash  counters (sent, done, failed, died, cancelled, replayed, purged, forgotten, tombstones) and `paused`
--   {K}:rate:<n>   hash  the same counters of one period of 10 s, for two minutes
--   {K}:consumers  zset  consumer -> when it was last heard of, ms
--   {K}:u:<key>    string  id of the unfinished message that has this unique key
--   {K}:m:<id>     hash  the message
--   {K}:claim:<c>  string  the last claim of consumer c: its token, then `id delivery` per line
--   {K}:push:<t>   string  a raw push that has happened, for a minute
--
-- Fields of a message: body (or blob, when large: read outside of scripts), meta, state, sent, due, deliveries,
-- attempts, crashes, claimed, finished, by, settled, result, error, reason, history, expires, watch, unique, cancel,
-- progress, purged (a stub for an entry of the ready list whose message was purged).
-- Times are this server's TIME in ms. Numbers that are 0 are absent.

local K = KEYS[1]
local BASE = '{' .. K .. '}:'
local BELL, ACTIVE, SCHEDULED = BASE .. 'bell', BASE .. 'active', BASE .. 'scheduled'
local DEAD, DONE, CANCELLED = BASE .. 'dead', BASE .. 'done', BASE .. 'cancelled'
local INFO, RECORD, UNIQUE, CONSUMERS = BASE .. 'info', BASE .. 'm:', BASE .. 'u:', BASE .. 'consumers'

-- An id on the ready list carries this mark; a raw body that starts with it by accident does not exist.
local MARK = '\0mq:'
local CHUNK = 1000 -- values per variadic command: Lua's stack takes about 8,000

local TIME = redis.call('TIME')
local NOW = TIME[1] * 1000 + math.floor(TIME[2] / 1000)

-- Tell one idle consumer to look. One token is enough: who takes it claims all it can, and rings on.
local function ring()
  if redis.call('LLEN', BELL) == 0 then redis.call('RPUSH', BELL, '1') end
end

-- Run a variadic command over any number of values.
local function each_chunk(command, key, values)
  for i = 1, #values, CHUNK do
    redis.call(command, key, unpack(values, i, math.min(i + CHUNK - 1, #values)))
  end
end

-- Count `n` events, for ever and in the present 10 s.
local function count(event, n)
  if n == 0 then return end
  redis.call('HINCRBY', INFO, event, n)
  local rate = BASE .. 'rate:' .. math.floor(NOW / 10000)
  redis.call('HINCRBY', rate, event, n)
  redis.call('EXPIRE', rate, 120)
end

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

-- active or ready -> dead. `error` is JSON or nil; the record goes after ttl_ms, the list keeps its newest 100,000.
local function bury(id, reason, error, ttl_ms)
  local key = RECORD .. id
  redis.call('HSET', key, 'state', 'dead', 'reason', reason, 'finished', NOW)
  if error then redis.call('HSET', key, 'error', error) end
  redis.call('PEXPIRE', key, ttl_ms)
  -- Listed still from an earlier life, whose record has gone: that one is forgotten now.
  if redis.call('ZADD', DEAD, NOW, id) == 0 then count('forgotten', 1) end
  count('died', 1)
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

-- any unfinished state -> cancelled. A ready one stays on the list as a tombstone, which a claim takes off.
local function mark_cancelled(id, ttl_ms)
  local key = RECORD .. id
  redis.call('HSET', key, 'state', 'cancelled', 'finished', NOW)
  redis.call('PEXPIRE', key, ttl_ms)
  count('cancelled', 1)
  list_ended(CANCELLED, { id })
  local r = redis.call('HMGET', key, 'watch', 'unique')
  free_unique(r[2], id)
  notify(r[1], id)
end
