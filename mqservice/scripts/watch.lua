-- Ask to be told when messages end.
--
-- KEYS[1]  ready list
-- ARGV[1]  channel on which to be told
-- ARGV[2..]  ids
--
-- Returns one state an id, nil for one that does not exist. Only unfinished messages are watched.
-- Twice: as once. Caller dies: one publication that nobody hears.
local answers = {}
local channel = ARGV[1]
for i = 2, #ARGV do
  local key = RECORD .. ARGV[i]
  local r = redis.call('HMGET', key, 'state', 'watch')
  answers[#answers + 1] = r[1]
  if r[1] == 'ready' or r[1] == 'scheduled' or r[1] == 'active' then
    if not r[2] then
      redis.call('HSET', key, 'watch', channel)
    elseif not string.find(' ' .. r[2] .. ' ', ' ' .. channel .. ' ', 1, true) then
      redis.call('HSET', key, 'watch', r[2] .. ' ' .. channel)
    end
  end
end
return answers
