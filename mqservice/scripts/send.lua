-- Make messages ready, or scheduled when they are for later.
--
-- KEYS[1]  ready list
-- ARGV[1]  bytes above which a body is stored as `blob`
-- ARGV[2]  ready messages at which new ones are refused; 0: none are
-- ARGV[3]  1: all or none are refused for that; 0: as many as fit are taken
-- ARGV[4..]  four values a message: id, body, meta (JSON or ''), extra (JSON or '':
--          {"delay": ms from now} or {"at": epoch ms}, {"ttl": ms}, {"watch": channel}, {"unique": key})
--
-- Returns one answer a message: 'ready' or 'scheduled' for a new one; '=' and the state of the message that has this
-- id already, which is left as it is; '!' and the id of the unfinished message that has its unique key; or 'full'.
-- Twice: the ids exist, nothing happens, the answer is the same but for the '='. Caller dies: the messages are there.
-- Memory full: refused as a whole before its first write.
check_types()
local blob_bytes, max_length, whole = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3] == '1'
local states, marks = {}, {}
local new, must_ring = 0, false

local room = math.huge
if max_length > 0 then
  local tombstones = tonumber(redis.call('HGET', INFO, 'tombstones') or 0) or 0
  room = max_length - redis.call('LLEN', K) + tombstones
  if whole and room < (#ARGV - 3) / 4 then room = 0 end
end

-- What few messages have. Returns the due time, or nil when it is ready now.
local function store_wish(key, wish)
  if wish.ttl or wish.watch or wish.unique then redis.call('HSET', key, 'more', 1) end
  if wish.ttl then redis.call('HSET', key, 'expires', NOW + wish.ttl) end
  if wish.watch then redis.call('HSET', key, 'watch', wish.watch) end
  if wish.unique then redis.call('HSET', key, 'unique', wish.unique) end
  local due = wish.at or (wish.delay and NOW + wish.delay)
  return due and due > NOW and math.floor(due)
end

local function schedule(key, id, due)
  redis.call('HSET', key, 'state', 'scheduled', 'due', due)
  redis.call('ZADD', SCHEDULED, due, id)
  -- Whoever sleeps until the next due time must learn of an earlier one.
  if redis.call('ZRANGE', SCHEDULED, 0, 0)[1] == id then must_ring = true end
end

-- The id of the unfinished message that has the wished unique key; takes the key when there is none.
local function holder(id, unique)
  local other = redis.call('GET', UNIQUE .. unique)
  if other and redis.call('EXISTS', RECORD .. other) == 1 then return other end
  redis.call('SET', UNIQUE .. unique, id)
  return false
end

local function store(id, body, meta, wish)
  local key = RECORD .. id
  local field = #body > blob_bytes and 'blob' or 'body'
  if meta == '' then
    redis.call('HSET', key, field, body, 'state', 'ready', 'sent', NOW)
  else
    redis.call('HSET', key, field, body, 'state', 'ready', 'sent', NOW, 'meta', meta)
  end
  new = new + 1
  local due = wish and store_wish(key, wish)
  tell(id, due and 'scheduled' or 'ready')
  if due then
    schedule(key, id, due)
    return 'scheduled'
  end
  marks[#marks + 1] = MARK .. id
  room = room - 1
  return 'ready'
end

-- How many of the ids exist already: 0 for nearly every call, which spares it a look at each.
local function known()
  local records, found = {}, 0
  for i = 4, #ARGV, 4 do records[#records + 1] = RECORD .. ARGV[i] end
  for i = 1, #records, CHUNK do
    found = found + redis.call('EXISTS', unpack(records, i, math.min(i + CHUNK - 1, #records)))
  end
  return found
end

local look, seen = known() > 0, {}

local function send(id, body, meta, extra)
  if look or seen[id] then
    if redis.call('EXISTS', RECORD .. id) == 1 then return '=' .. state_of(id) end
  end
  if room <= 0 then return 'full' end
  local wish = extra ~= '' and cjson.decode(extra)
  local other = wish and wish.unique and holder(id, wish.unique)
  if other then return '!' .. other end
  seen[id] = true
  return store(id, body, meta, wish)
end

for i = 4, #ARGV, 4 do
  states[#states + 1] = send(ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3])
end
each_chunk('RPUSH', K, marks)
count('sent', new)
if #marks > 0 or must_ring then ring() end
return states
