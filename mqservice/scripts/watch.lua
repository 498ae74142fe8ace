-- Ask to be told when messages end.
--
-- KEYS[1]  ready list
-- ARGV[1]  channel on which to be told
-- ARGV[2..]  ids
--
-- Returns one state an id, nil for one that does not exist. Only unfinished messages are watched.
-- Twice: as once. Caller dies: one publication that nobody hears.
local answers, ids = {}, {}
local channel = ARGV[1]
for i = 2, #ARGV do ids[#ids + 1] = ARGV[i] end

local function watch(id, stored, watched, lease)
  if watched and string.find(' ' .. watched .. ' ', ' ' .. channel .. ' ', 1, true) then return end
  redis.call('HSET', RECORD .. id, 'watch', watched and watched .. ' ' .. channel or channel, 'state', stored)
  if lease and string.sub(lease, 17, 17) == '-' then flag(id, lease, '+') end
end

for n, lease in ipairs(leases_of(ids)) do
  local r = redis.call('HMGET', RECORD .. ids[n], 'state', 'watch', 'sent')
  local stored = r[1] or (r[3] and 'ready')
  local state = stored and lease and 'active' or stored
  answers[n] = state
  if state == 'ready' or state == 'scheduled' or state == 'active' then watch(ids[n], stored, r[2], lease) end
end
return answers
