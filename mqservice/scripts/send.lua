-- Make messages ready, or scheduled when they are for later.
--
-- KEYS[1]  ready list
-- ARGV[1]  bytes above which a body is stored as `blob`
-- ARGV[2]  ready messages at which new ones are refused; 0: none are
-- ARGV[3]  1: all or none are refused for that; 0: as many as fit are taken
-- ARGV[4]  values a message: 2 when none has more than that and no id comes twice, else 4
-- ARGV[5..]  the messages: id, body, meta (JSON or ''), extra (JSON or '':
--          {"delay": ms from now} or {"at": epoch ms}, {"ttl": ms}, {"watch": channel}, {"unique": key})
--
-- Returns 'ready' when all are new and ready; else one answer a message: 'ready' or 'scheduled' for a new one; '=' and
-- the state of the message that has this id already, which is left as it is; '!' and the id of the unfinished message
-- that has its unique key; or 'full'.
-- Twice: the ids exist, nothing happens, the answer is the same but for the '='. Caller dies: the messages are there.
-- Memory full: refused as a whole before its first write.
check_types()
local blob_bytes, max_length, whole, width = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3] == '1', tonumber(ARGV[4])
local records, states, marks = {}, {}, {}
for i = 5, #ARGV, width do records[#records + 1] = RECORD .. ARGV[i] end
local new, must_ring = 0, false

local room = math.huge
if max_length > 0 then
  local tombstones = tonumber(call('HGET', INFO, 'tombstones') or 0) or 0
  room = max_length - call('LLEN', K) + tombstones
  if whole and room < #records then room = 0 end
end

-- What few messages have. Returns the due time, or nil when it is ready now.
local function store_wish(key, wish)
  if wish.ttl or wish.watch or wish.unique then call('HSET', key, 'state', 'ready') end
  if wish.ttl then call('HSET', key, 'expires', NOW + wish.ttl) end
  if wish.watch then call('HSET', key, 'watch', wish.watch) end
  if wish.unique then call('HSET', key, 'unique', wish.unique) end
  local due = wish.at or (wish.delay and NOW + wish.delay)
  return due and due > NOW and math.floor(due)
end

local function schedule(key, id, due)
  call('HSET', key, 'state', 'scheduled', 'due', due)
  call('ZADD', SCHEDULED, due, id)
  -- Whoever sleeps until the next due time must learn of an earlier one.
  if call('ZRANGE', SCHEDULED, 0, 0)[1] == id then must_ring = true end
end

-- The id of the unfinished message that has the wished unique key; takes the key when there is none.
local function holder(id, unique)
  local other = call('GET', UNIQUE .. unique)
  if other and call('EXISTS', RECORD .. other) == 1 then return other end
  call('SET', UNIQUE .. unique, id)
  return false
end

local function store(id, body, meta, wish)
  local key = RECORD .. id
  local field = #body > blob_bytes and 'blob' or 'body'
  if meta == '' then
    call('HSET', key, field, body, 'sent', NOW_TEXT)
  else
    call('HSET', key, field, body, 'sent', NOW_TEXT, 'meta', meta)
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
local known, seen = 0, {}
for i = 1, #records, CHUNK do
  known = known + call('EXISTS', unpack(records, i, math.min(i + CHUNK - 1, #records)))
end

local function send(id, body, meta, extra)
  if known > 0 or seen[id] then
    if call('EXISTS', RECORD .. id) == 1 then return '=' .. state_of(id) end
  end
  if room <= 0 then return 'full' end
  local wish = extra ~= '' and cjson.decode(extra)
  local other = wish and wish.unique and holder(id, wish.unique)
  if other then return '!' .. other end
  seen[id] = true
  return store(id, body, meta, wish)
end

-- What `send` comes to for messages that are plain, new and welcome.
local function send_plain()
  local ids = {}
  for n = 1, #records do
    local id, body = ARGV[2 * n + 3], ARGV[2 * n + 4]
    call('HSET', records[n], #body > blob_bytes and 'blob' or 'body', body, 'sent', NOW_TEXT)
    ids[n], marks[n] = id, MARK .. id
  end
  tell_all(ids, 'ready')
  new, states = #ids, 'ready'
end

if width == 2 and known == 0 and room >= #records then
  send_plain()
else
  for i = 5, #ARGV, width do
    local has_more = width == 4
    states[#states + 1] = send(ARGV[i], ARGV[i + 1], has_more and ARGV[i + 2] or '', has_more and ARGV[i + 3] or '')
  end
end
each_chunk('RPUSH', K, marks)
count('sent', new)
if #marks > 0 or must_ring then ring() end
return states
