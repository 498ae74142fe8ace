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
-- Returns {ms until the next message is due or the next lease has run out, or -1; now in ms; three values each message
-- that has failed or crashed before: its place in what follows, from 1, attempts and crashes; then four values a message:
-- id, sent ms, meta or nil, body or, when that is in the field `blob`, its size}. A table for each message would cost a
-- tenth of all.
-- A raw body is adopted: it gets an id (UUIDv7, of this time and the token) and a record.
-- Twice with one token: the same messages, as far as they are still held, with a fresh lease; nothing else.
-- Caller dies: the leases expire, the next claim finds them, each counts one crash.
check_types()
local token, consumer, lease_ms = ARGV[1], ARGV[2], tonumber(ARGV[3])
local room, crash_limit, dead_ttl_ms = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local blob_bytes, most_bytes = tonumber(ARGV[7]), tonumber(ARGV[8])
local deadline = string.format('%.0f', NOW + lease_ms)
local ledger_key = BASE .. 'claim:' .. consumer

local out, ids, deadlines, leases, taken, spent = { -1, NOW, {} }, {}, {}, {}, 0, {}
local adopted, buried, special = 0, 0, {}

local function lease(sign, delivery) return token .. sign .. ' ' .. delivery .. ' ' .. NOW .. ' ' .. consumer end
local FIRST = lease('-', 1)

local function give(id, lease, sent, meta, body)
  taken = taken + 1
  if not body then body = call('HSTRLEN', RECORD .. id, 'blob') end
  local even, row = 2 * taken, 4 * taken
  ids[taken] = id
  out[row], out[row + 1], out[row + 2], out[row + 3] = id, sent, meta, body
  deadlines[even - 1], deadlines[even] = deadline, id
  leases[even - 1], leases[even] = id, lease
end

-- It is on the ready list, but not ready: cancelled meanwhile, or its record is gone.
local function take_off(id, key, state)
  if state == 'cancelled' then
    if call('HEXISTS', key, 'purged') == 1 then
      call('UNLINK', key)
    else
      call('PEXPIRE', key, dead_ttl_ms)
    end
    count_tombstones(-1)
  end -- any other state: it was on this list a second time
end

-- The record of this id is no hash, but somebody else's: that stays, and a dead letter tells of it.
local function take_damaged(id, error)
  local grave = uuid7(adopted + buried, token)
  buried = buried + 1
  call('HDEL', LEASES, id)
  call('HSET', RECORD .. grave, 'body', id, 'sent', NOW)
  bury(grave, 'undecodable', cjson.encode({ type = 'WrongType', text = 'the record of ' .. string.gsub(string.sub(id, 1, 128), '[^%w._:-]', '?') .. ': ' .. error }),
    dead_ttl_ms)
end

-- Whatever is not plain: it has been handed out before, has options, was cancelled, or is damaged.
local function take_special(id, key, from, held)
  local r = call('HMGET', key, 'state', 'sent', 'meta', 'body', 'lease', 'attempts', 'crashes', 'expires', 'cancel')
  r[1] = r[1] or 'ready'
  local crashed = from == 'active' and 1 or 0
  if special[id] then return end -- on the list a second time
  if from == 'active' then
    call('HDEL', LEASES, id)
  elseif call('HEXISTS', LEASES, id) == 1 then
    return -- likewise
  end
  if not tonumber(r[2]) and (r[1] == 'ready' or r[1] == 'scheduled') then
    return bury(id, 'undecodable', '{"type":"MissingRecord","text":"the record of this id was deleted or damaged by somebody else"}', dead_ttl_ms)
  end
  if from == 'active' then
    if r[1] ~= 'ready' and r[1] ~= 'scheduled' then return end
    call('HSET', key, 'lease', held or '', 'state', r[1])
  elseif r[1] ~= from then
    return from == 'ready' and take_off(id, key, r[1])
  end
  if r[9] then return mark_cancelled(id, dead_ttl_ms) end
  local handed_out = deliveries(held or r[5])
  local crashes = (tonumber(r[7]) or 0) + crashed
  if crashed > 0 then
    call('HSET', key, 'crashes', crashes)
    if crashes >= crash_limit then return bury(id, 'crashed', nil, dead_ttl_ms) end
  end
  if r[8] and (tonumber(r[8]) or 0) < NOW and handed_out == 0 then return bury(id, 'expired', nil, dead_ttl_ms) end
  special[id] = true
  give(id, lease('+', handed_out + 1), r[2], r[3], r[4])
  spent[taken] = { tonumber(r[6]) or 0, crashes }
end

-- ready, scheduled or expired -> active, unless the message has ended, has expired, or has crashed too often.
local function take(id, from, held)
  local key = RECORD .. id
  local r = try('HMGET', key, 'sent', 'meta', 'body', 'state')
  if r.err then return take_damaged(id, r.err) end
  local sent = r[1]
  local plain = sent and not r[4] and #sent == 13 and from == 'ready' -- a time of 13 digits: until 2286
  -- To look at each character would take a twentieth of a claim, and nearly every id is a UUID. What is as long and none
  -- is found out when its lease has ended.
  local is_uuid = plain and #id == 36
  if not is_uuid and (#id > 128 or not find(id, '^[%w._:-]+$')) then return take_damaged(id, 'this is no id') end
  if plain then return give(id, FIRST, sent, r[2], r[3]) end
  take_special(id, key, from, held)
end

-- raw body -> active, with a record of its own.
local function adopt(body)
  local id = uuid7(adopted + buried, token)
  local large = #body > blob_bytes
  call('HSET', RECORD .. id, large and 'blob' or 'body', body, 'sent', NOW_TEXT)
  adopted = adopted + 1
  if #body > most_bytes then
    local text = string.format('an entry of %d bytes; at most %d are handed out', #body, most_bytes)
    return bury(id, 'undecodable', cjson.encode({ type = 'TooLarge', text = text }), dead_ttl_ms)
  end
  give(id, FIRST, NOW_TEXT, false, not large and body)
end

local function claim_expired()
  local expired = call('ZRANGE', ACTIVE, '-inf', '(' .. NOW, 'BYSCORE', 'LIMIT', 0, room)
  each_chunk('ZREM', ACTIVE, expired)
  local held = leases_of(expired)
  for n = 1, #expired do take(expired[n], 'active', held[n]) end
end

local function claim_due()
  if taken >= room then return end
  local due = call('ZRANGE', SCHEDULED, '-inf', NOW, 'BYSCORE', 'LIMIT', 0, room - taken)
  each_chunk('ZREM', SCHEDULED, due)
  for n = 1, #due do take(due[n], 'scheduled') end
end

local function claim_ready()
  if taken >= room then return end
  local entries = call('LPOP', K, room - taken) or {}
  for n = 1, #entries do
    local entry = entries[n]
    if sub(entry, 1, #MARK) == MARK then
      take(sub(entry, #MARK + 1), 'ready')
    else
      adopt(entry)
    end
  end
end

-- The same claim again: what it holds still, leased anew.
local function replay(lines)
  local before = {}
  for id in string.gmatch(lines, '\n(%S+)') do before[#before + 1] = id end
  for n, held in ipairs(leases_of(before)) do
    if holds(held, token) then
      local r = call('HMGET', RECORD .. before[n], 'sent', 'meta', 'body', 'attempts', 'crashes')
      give(before[n], held, r[1] or NOW_TEXT, r[2], r[3])
      spent[taken] = { tonumber(r[4]) or 0, tonumber(r[5]) or 0 }
    end
  end
  each_chunk('ZADD', ACTIVE, deadlines)
end

-- Put them among the active ones. When some were there already, or are on the list twice, each is given once, and to one.
local function lease_all()
  local new = 0
  for i = 1, #deadlines, CHUNK do
    new = new + call('ZADD', ACTIVE, 'NX', unpack(deadlines, i, math.min(i + CHUNK - 1, #deadlines)))
  end
  if new == taken then return end
  local held, once, were, rows, signs, budgets = leases_of(ids), {}, ids, out, leases, spent
  out, ids, deadlines, leases, taken, spent = { -1, NOW, {} }, {}, {}, {}, 0, {}
  for n, id in ipairs(were) do
    if not held[n] and not once[id] then
      once[id] = true
      give(id, signs[2 * n], rows[4 * n + 1], rows[4 * n + 2], rows[4 * n + 3])
      spent[taken] = budgets[n]
    end
  end
  each_chunk('ZADD', ACTIVE, deadlines)
end

local paused = call('HEXISTS', INFO, 'paused') == 1
local last = call('GET', ledger_key)
if last and sub(last, 1, #token) == token then
  replay(sub(last, #token + 1))
elseif not paused then
  claim_expired()
  claim_due()
  claim_ready()
  lease_all()
end

if taken > 0 then
  each_chunk('HSET', LEASES, leases)
  call('SET', ledger_key, token .. '\n' .. table.concat(ids, '\n'), 'PX', lease_ms)
  tell_all(ids, 'active')
end
for place, budget in pairs(spent) do
  if budget[1] > 0 or budget[2] > 0 then
    for _, value in ipairs({ place, budget[1], budget[2] }) do table.insert(out[3], value) end
  end
end
count('sent', adopted)
call('ZADD', CONSUMERS, NOW, consumer)
if paused then return out end -- whoever resumes rings

-- The next moment at which a claim may find something: a due time, or a lease that has run out.
local next_due = call('ZRANGE', SCHEDULED, 0, 0, 'WITHSCORES')[2]
local next_expiry = call('ZRANGE', ACTIVE, 0, 0, 'WITHSCORES')[2]
local soonest = math.min(tonumber(next_due or math.huge), tonumber(next_expiry or math.huge) + 1)
if soonest < math.huge then out[1] = math.max(0, soonest - NOW) end
if call('LLEN', K) > 0 or out[1] == 0 then ring() end
return out
