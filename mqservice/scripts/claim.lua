-- Lease up to `room` messages: expired leases first, then due scheduled ones, then the head of the ready list.
--
-- KEYS[1]  ready list
-- ARGV[1]  token of this claim: 16 hex digits, the first of them 8 to b
-- ARGV[2]  consumer, unique to one claim loop
-- ARGV[3]  lease, ms
-- ARGV[4]  room: messages wanted, 1 to 1000
-- ARGV[5]  crashes after which a message is dead
-- ARGV[6]  ms that a dead message is kept
-- ARGV[7]  bytes above which a raw body is stored as `blob`
-- ARGV[8]  bytes above which a raw body is dead at once: whoever reads it would stand still
--
-- Returns {ms until the next message is due or the next lease has run out, or -1, now in ms, then six values a message: id,
-- attempts used so far, sent ms, meta or false, body or false when it is in the field `blob`, crashes so far}.
-- A raw body is adopted: it gets an id (UUIDv7, of this time and the token) and a record.
-- Twice with one token: the same messages, as far as they are still held, with a fresh lease; nothing else.
-- Caller dies: the leases expire, the next claim finds them, each counts one crash.
check_types()
local token, consumer, lease_ms = ARGV[1], ARGV[2], tonumber(ARGV[3])
local room, crash_limit, dead_ttl_ms = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local blob_bytes, most_bytes = tonumber(ARGV[7]), tonumber(ARGV[8])
local deadline = NOW + lease_ms
local ledger_key = BASE .. 'claim:' .. consumer

local out, deadlines, leases, ledger = { -1, NOW }, {}, {}, { token }
local taken, adopted, buried, given = 0, 0, 0, {}

local function lease(sign, delivery) return token .. sign .. ' ' .. delivery .. ' ' .. NOW .. ' ' .. consumer end
local FIRST = lease('-', 1)

local function give(id, lease, attempts, sent, meta, body, crashes)
  local n = #out
  out[n + 1], out[n + 2], out[n + 3] = id, attempts, sent
  out[n + 4], out[n + 5], out[n + 6] = meta, body, crashes
  taken = taken + 1
  deadlines[2 * taken - 1], deadlines[2 * taken] = deadline, id
  leases[2 * taken - 1], leases[2 * taken] = id, lease
  ledger[taken + 1] = id
  given[id] = true
  tell(id, 'active')
end

-- It is on the ready list, but not ready: cancelled meanwhile, or its record is gone.
local function take_off(id, key, state)
  if state == 'cancelled' then
    if redis.call('HEXISTS', key, 'purged') == 1 then
      redis.call('UNLINK', key)
    else
      redis.call('PEXPIRE', key, dead_ttl_ms)
    end
    count_tombstones(-1)
  end -- any other state: it was on this list a second time
end

-- The record of this id is no hash, but somebody else's: that stays, and a dead letter tells of it.
local function take_damaged(id, error)
  local grave = uuid7(adopted + buried, token)
  buried = buried + 1
  redis.call('HDEL', LEASES, id)
  redis.call('HSET', RECORD .. grave, 'body', id, 'sent', NOW)
  bury(grave, 'undecodable', cjson.encode({ type = 'WrongType', text = 'the record of ' .. string.gsub(string.sub(id, 1, 128), '[^%w._:-]', '?') .. ': ' .. error }),
    dead_ttl_ms)
end

-- Whatever is not plain: it has been handed out before, has options, was cancelled, or is damaged.
local function take_special(id, key, from, held)
  local r = redis.call('HMGET', key, 'state', 'sent', 'meta', 'body', 'lease', 'attempts', 'crashes', 'expires', 'cancel')
  local crashed = from == 'active' and 1 or 0
  if from ~= 'active' and held then return end -- likewise
  if from == 'active' then redis.call('HDEL', LEASES, id) end
  if not tonumber(r[2]) and (not r[1] or r[1] == 'ready' or r[1] == 'scheduled') then
    return bury(id, 'undecodable', '{"type":"MissingRecord","text":"the record of this id was deleted or damaged by somebody else"}', dead_ttl_ms)
  end
  if from == 'active' then
    if r[1] ~= 'ready' and r[1] ~= 'scheduled' then return end
    redis.call('HSET', key, 'lease', held or '', 'more', 1)
  elseif r[1] ~= from then
    return from == 'ready' and take_off(id, key, r[1])
  end
  if r[9] then return mark_cancelled(id, dead_ttl_ms) end
  local handed_out = deliveries(held or r[5])
  local crashes = (tonumber(r[7]) or 0) + crashed
  if crashed > 0 then
    redis.call('HSET', key, 'crashes', crashes)
    if crashes >= crash_limit then return bury(id, 'crashed', nil, dead_ttl_ms) end
  end
  if r[8] and (tonumber(r[8]) or 0) < NOW and handed_out == 0 then return bury(id, 'expired', nil, dead_ttl_ms) end
  give(id, lease('+', handed_out + 1), tonumber(r[6]) or 0, r[2], r[3], r[4], crashes)
end

-- ready, scheduled or expired -> active, unless the message has ended, has expired, or has crashed too often.
local function take(id, from, held)
  if given[id] then return end -- on the list a second time
  if #id > 128 or string.find(id, '[^%w._:-]') then return take_damaged(id, 'this is no id') end
  local key = RECORD .. id
  local r = redis.pcall('HMGET', key, 'state', 'sent', 'meta', 'body', 'more')
  if r.err then return take_damaged(id, r.err) end
  if not held then
    if r[1] == from and tonumber(r[2]) and not r[5] then return give(id, FIRST, 0, r[2], r[3], r[4], 0) end
  end
  take_special(id, key, from, held)
end

local function take_all(ids, from)
  for n, held in ipairs(leases_of(ids)) do take(ids[n], from, held) end
end

-- raw body -> active, with a record of its own.
local function adopt(body)
  local id = uuid7(adopted + buried, token)
  local large = #body > blob_bytes
  redis.call('HSET', RECORD .. id, large and 'blob' or 'body', body, 'state', 'ready', 'sent', NOW)
  adopted = adopted + 1
  if #body > most_bytes then
    local text = string.format('an entry of %d bytes; at most %d are handed out', #body, most_bytes)
    return bury(id, 'undecodable', cjson.encode({ type = 'TooLarge', text = text }), dead_ttl_ms)
  end
  give(id, FIRST, 0, NOW, false, not large and body, 0)
end

local function claim_expired()
  local ids = redis.call('ZRANGE', ACTIVE, '-inf', '(' .. NOW, 'BYSCORE', 'LIMIT', 0, room)
  each_chunk('ZREM', ACTIVE, ids)
  take_all(ids, 'active')
end

local function claim_due()
  if taken >= room then return end
  local ids = redis.call('ZRANGE', SCHEDULED, '-inf', NOW, 'BYSCORE', 'LIMIT', 0, room - taken)
  each_chunk('ZREM', SCHEDULED, ids)
  take_all(ids, 'scheduled')
end

local function claim_ready()
  if taken >= room then return end
  local entries = redis.call('LPOP', K, room - taken) or {}
  local ids, bodies = {}, {}
  for n, entry in ipairs(entries) do
    if string.sub(entry, 1, #MARK) == MARK then
      ids[#ids + 1] = string.sub(entry, #MARK + 1)
    else
      bodies[n] = entry
    end
  end
  local held, next_id = leases_of(ids), 1
  for n = 1, #entries do
    if bodies[n] then
      adopt(bodies[n])
    else
      take(ids[next_id], 'ready', held[next_id])
      next_id = next_id + 1
    end
  end
end

-- The same claim again: what it holds still, leased anew.
local function replay(lines)
  local ids = {}
  for id in string.gmatch(lines, '\n(%S+)') do ids[#ids + 1] = id end
  for n, held in ipairs(leases_of(ids)) do
    if holds(held, token) then
      local r = redis.call('HMGET', RECORD .. ids[n], 'attempts', 'sent', 'meta', 'body', 'crashes')
      give(ids[n], held, tonumber(r[1]) or 0, tonumber(r[2]) or NOW, r[3], r[4], tonumber(r[5]) or 0)
    end
  end
end

local paused = redis.call('HEXISTS', INFO, 'paused') == 1
local last = redis.call('GET', ledger_key)
if last and string.sub(last, 1, #token) == token then
  replay(string.sub(last, #token + 1))
elseif not paused then
  claim_expired()
  claim_due()
  claim_ready()
end

if taken > 0 then
  each_chunk('ZADD', ACTIVE, deadlines)
  each_chunk('HSET', LEASES, leases)
  redis.call('SET', ledger_key, table.concat(ledger, '\n'), 'PX', lease_ms)
end
count('sent', adopted)
redis.call('ZADD', CONSUMERS, NOW, consumer)
if paused then return out end -- whoever resumes rings

-- The next moment at which a claim may find something: a due time, or a lease that has run out.
local next_due = redis.call('ZRANGE', SCHEDULED, 0, 0, 'WITHSCORES')[2]
local next_expiry = redis.call('ZRANGE', ACTIVE, 0, 0, 'WITHSCORES')[2]
local soonest = math.min(tonumber(next_due or math.huge), tonumber(next_expiry or math.huge) + 1)
if soonest < math.huge then out[1] = math.max(0, soonest - NOW) end
if redis.call('LLEN', K) > 0 or out[1] == 0 then ring() end
return out
