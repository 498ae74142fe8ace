-- Cancel a message: ready, scheduled -> cancelled at once; active -> its process is told to cancel the coroutine.
--
-- KEYS[1]  ready list
-- ARGV[1]  id
-- ARGV[2]  ms that a cancelled message is kept
--
-- Returns 'cancelled', 'cancelling' (active), the state that cannot be cancelled, or nil when there is no such id.
-- Twice: as once. Caller dies: it is cancelled; an active one at the latest when its lease is renewed or has expired.
local id = ARGV[1]
local r = redis.call('HMGET', RECORD .. id, 'state', 'by')
if r[1] == 'ready' then
  mark_cancelled(id, tonumber(ARGV[2]))
  redis.call('PERSIST', RECORD .. id) -- until a claim takes its entry off the list
  redis.call('HINCRBY', INFO, 'tombstones', 1)
  ring()
  return 'cancelled'
elseif r[1] == 'scheduled' then
  redis.call('ZREM', SCHEDULED, id)
  mark_cancelled(id, tonumber(ARGV[2]))
  return 'cancelled'
elseif r[1] == 'active' then
  redis.call('HSET', RECORD .. id, 'cancel', NOW)
  local process = string.match(r[2] or '', '^([^/]+)/')
  if process then redis.call('PUBLISH', 'mq:process:' .. process, 'cancel ' .. id .. ' ' .. K) end
  return 'cancelling'
end
return r[1]
