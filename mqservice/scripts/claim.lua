-- Lease up to `room` messages: expired leases first, then due scheduled ones, then the head of the ready list.
--
-- KEYS[1]  ready list
-- ARGV[1]  token of this claim: 16 hex digits, the first of them 8 to b
-- ARGV[2]  consumer, unique to one claim loop
-- ARGV[3]  lease, ms
-- ARGV[4]  room: messages wanted, 1 to 1000
-- ARGV[5]  crashes after which a message is dead
-- ARGV[6]  ms that a dead message is kept
--
-- Returns {ms until the next message is due or the next lease has run out, or -1, now in ms, then seven values a message: id, delivery,
-- attempts used so far, sent ms, meta or false, body or false when it is in the field `blob`, crashes so far}.
-- A raw body is adopted: it gets an id (UUIDv7, of this time and the token) and a record.
-- Twice with one token: the same messages, as far as they are still held, with a fresh lease; nothing else.
-- Caller dies: the leases expire, the next claim finds them, each counts one crash.
local token, consumer, lease_ms = ARGV[1], ARGV[2], tonumber(ARGV[3])
local room, crash_limit, dead_ttl_ms = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local deadline = NOW + lease_ms
local ledger_key = BASE .. 'claim:' .. consumer

local out, leases, ledger = { -1, NOW }, {}, { token }
local taken, adopted = 0, 0

local function give(id, delivery, attempts, sent, meta, body, crashes)
  local n = #out
  out[n + 1], out[n + 2], out[n + 3], out[n + 4] = id, delivery, attempts, sent
  out[n + 5], out[n + 6], out[n + 7] = meta, body, crashes
  leases[#leases + 1] = deadline
  leases[#leases + 1] = id
  ledger[#ledger + 1] = id .. ' ' .. delivery
  taken = taken + 1
end

-- any state -> active, unless the message has ended, has expired, or has crashed too often.
local function take(id, from, crashed)
  local key = RECORD .. id
  local r = redis.call('HMGET', key, 'state', 'deliveries', 'attempts', 'sent', 'meta', 'body', 'crashes', 'expires',
    'cancel')
  local crashes = (tonumber(r[7]) or 0) + crashed
  if r[1] ~= from then
    if r[1] == 'cancelled' then
      if from == 'ready' then
        if redis.call('HEXISTS', key, 'purged') == 1 then
          redis.call('UNLINK', key)
        else
          redis.call('PEXPIRE', key, dead_ttl_ms)
        end
        redis.call('HINCRBY', INFO, 'tombstones', -1)
      end
    elseif not r[1] then
      bury(id, 'undecodable', '{"type":"MissingRecord","text":"the record of this id was deleted by somebody else"}', dead_ttl_ms)
    end
    return -- any other state: the id was on this list a second time
  end
  if r[9] then return mark_cancelled(id, dead_ttl_ms) end
  if crashes >= crash_limit and crashed > 0 then
    redis.call('HSET', key, 'crashes', crashes)
    return bury(id, 'crashed', nil, dead_ttl_ms)
  end
  if r[8] and tonumber(r[8]) < NOW and not r[2] then return bury(id, 'expired', nil, dead_ttl_ms) end
  local delivery = (tonumber(r[2]) or 0) + 1
  redis.call('HSET', key, 'state', 'active', 'deliveries', delivery, 'claimed', NOW, 'by', consumer)
  if crashed > 0 then redis.call('HSET', key, 'crashes', crashes) end
  give(id, delivery, tonumber(r[3]) or 0, tonumber(r[4]) or NOW, r[5], r[6], crashes)
end

-- raw body -> active, with a record of its own. RFC 9562, 6.2 method 1: time, then a counter, then random bits.
local function adopt(body)
  local ms = string.format('%012x', NOW)
  local id = string.format('%s-%s-7%03x-%s-%s', string.sub(ms, 1, 8), string.sub(ms, 9), taken,
    string.sub(token, 1, 4), string.sub(token, 5))
  redis.call('HSET', RECORD .. id, 'body', body, 'state', 'active', 'sent', NOW, 'deliveries', 1, 'claimed', NOW,
    'by', consumer)
  adopted = adopted + 1
  give(id, 1, 0, NOW, false, body, 0)
end

local function claim_expired()
  for _, id in ipairs(redis.call('ZRANGE', ACTIVE, '-inf', '(' .. NOW, 'BYSCORE', 'LIMIT', 0, room)) do
    redis.call('ZREM', ACTIVE, id)
    take(id, 'active', 1)
  end
end

local function claim_due()
  if taken >= room then return end
  for _, id in ipairs(redis.call('ZRANGE', SCHEDULED, '-inf', NOW, 'BYSCORE', 'LIMIT', 0, room - taken)) do
    redis.call('ZREM', SCHEDULED, id)
    take(id, 'scheduled', 0)
  end
end

local function claim_ready()
  if taken >= room then return end
  local entries = redis.call('LPOP', K, room - taken)
  if not entries then return end
  for _, entry in ipairs(entries) do
    if string.sub(entry, 1, #MARK) == MARK then
      take(string.sub(entry, #MARK + 1), 'ready', 0)
    else
      adopt(entry)
    end
  end
end

-- The same claim again: what it holds still, leased anew.
local function replay(lines)
  for id, delivery in string.gmatch(lines, '\n(%S+) (%d+)') do
    local r = redis.call('HMGET', RECORD .. id, 'state', 'deliveries', 'attempts', 'sent', 'meta', 'body', 'crashes')
    if r[1] == 'active' and r[2] == delivery then
      give(id, tonumber(delivery), tonumber(r[3]) or 0, tonumber(r[4]) or NOW, r[5], r[6], tonumber(r[7]) or 0)
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
  each_chunk('ZADD', ACTIVE, leases)
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
