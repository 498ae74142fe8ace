-- Delete what is left of a queue's messages: records that no listing leads to, and what belonged to them.
--
-- KEYS[1]  ready list
-- ARGV[1]  epoch ms: messages that were sent later stay, for they belong to the queue's next life
-- ARGV[2..]  names of keys of this queue without their common begin, such as `m:<id>`, `u:<key>`, `history:<h>`
--
-- Returns how many messages were deleted.
-- Twice: as once. Caller dies: some are deleted.
check_types()
local before = tonumber(ARGV[1])
local deleted = 0

local function sweep_record(id)
  local key = RECORD .. id
  if redis.call('TYPE', key).ok == 'hash' then
    local r = redis.call('HMGET', key, 'sent', 'unique', 'watch')
    if (tonumber(r[1]) or 0) >= before then return end
    if redis.call('ZSCORE', ACTIVE, id) then return end
    free_unique(r[2], id)
    notify(r[3], id)
  end
  deleted = deleted + redis.call('UNLINK', key)
end

local function sweep_unique(name)
  local id = redis.call('GET', UNIQUE .. name)
  if id and redis.call('EXISTS', RECORD .. id) == 0 then redis.call('DEL', UNIQUE .. name) end
end

for i = 2, #ARGV do
  local kind, name = string.match(ARGV[i], '^(%l+):(.*)$')
  if kind == 'm' then
    sweep_record(name)
  elseif kind == 'u' then
    sweep_unique(name)
  elseif kind == 'claim' or kind == 'push' or kind == 'rate' or kind == 'history' then
    redis.call('UNLINK', BASE .. ARGV[i])
  end
end
return deleted
