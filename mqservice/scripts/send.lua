-- Make messages ready, or scheduled when they are for later.
--
-- KEYS[1]  ready list
-- ARGV[1]  bytes above which a body is stored as `blob`
-- ARGV[2..]  four values a message: id, body, meta (JSON or ''), extra (JSON or '':
--          {"delay": ms from now} or {"at": epoch ms}, {"ttl": ms}, {"watch": channel})
--
-- Returns one state a message: 'ready' or 'scheduled' for a new one, else '=' and the state of the message that
-- has this id already, which is left as it is.
-- Twice: the ids exist, nothing happens, the answer is the same but for the '='. Caller dies: the messages are there.
-- Memory full: refused as a whole before its first write.
local blob_bytes = tonumber(ARGV[1])
local states, marks = {}, {}
local new, must_ring = 0, false

-- Field and value of what few messages have. Returns the due time, or nil when it is ready now.
local function store_extra(key, extra)
  local wish = cjson.decode(extra)
  if wish.ttl then redis.call('HSET', key, 'expires', NOW + wish.ttl) end
  if wish.watch then redis.call('HSET', key, 'watch', wish.watch) end
  local due = wish.at or (wish.delay and NOW + wish.delay)
  return due and due > NOW and math.floor(due)
end

local function schedule(key, id, due)
  redis.call('HSET', key, 'state', 'scheduled', 'due', due)
  redis.call('ZADD', SCHEDULED, due, id)
  -- Whoever sleeps until the next due time must learn of an earlier one.
  if redis.call('ZRANGE', SCHEDULED, 0, 0)[1] == id then must_ring = true end
end

for i = 2, #ARGV, 4 do
  local id, body, meta, extra = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local key = RECORD .. id
  if redis.call('EXISTS', key) == 1 then
    states[#states + 1] = '=' .. redis.call('HGET', key, 'state')
  else
    local field = #body > blob_bytes and 'blob' or 'body'
    if meta == '' then
      redis.call('HSET', key, field, body, 'state', 'ready', 'sent', NOW)
    else
      redis.call('HSET', key, field, body, 'state', 'ready', 'sent', NOW, 'meta', meta)
    end
    local due = extra ~= '' and store_extra(key, extra)
    if due then
      schedule(key, id, due)
      states[#states + 1] = 'scheduled'
    else
      marks[#marks + 1] = MARK .. id
      states[#states + 1] = 'ready'
    end
    new = new + 1
  end
end
each_chunk('RPUSH', K, marks)
if new > 0 then redis.call('HINCRBY', INFO, 'sent', new) end
if #marks > 0 or must_ring then ring() end
return states
