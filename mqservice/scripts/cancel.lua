-- Cancel a message: ready, scheduled -> cancelled at once; active -> its process is told to cancel the coroutine.
--
-- KEYS[1]  ready list
-- ARGV[1]  id
-- ARGV[2]  ms that a cancelled message is kept
--
-- Returns 'cancelled', 'cancelling' (active), the state that cannot be cancelled, or nil when there is no such id.
-- Twice: as once. Caller dies: it is cancelled; an active one at the latest when its lease is renewed or has expired.
check_types()
local id = ARGV[1]
local state = stored_state(id)
local lease = redis.call('HGET', LEASES, id)
if lease then
  if state then redis.call('HSET', RECORD .. id, 'cancel', NOW, 'state', state) end
  flag(id, lease, 'c')
  local process = string.match(lease, '^%S+ %d+ %d+ ([^/]+)/')
  if process then redis.call('PUBLISH', 'mq:process:' .. process, 'cancel ' .. id .. ' ' .. K) end
  return 'cancelling'
end
if state == 'ready' then
  mark_cancelled(id, tonumber(ARGV[2]))
  redis.call('PERSIST', RECORD .. id) -- until a claim takes its entry off the list
  count_tombstones(1)
  ring()
  return 'cancelled'
elseif state == 'scheduled' then
  redis.call('ZREM', SCHEDULED, id)
  mark_cancelled(id, tonumber(ARGV[2]))
  return 'cancelled'
end
return state
