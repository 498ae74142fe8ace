-- Publish on a channel that keeps a history: note the message and publish it, in one step.
--
-- KEYS[1]  stream of the channel's latest messages: id -> field `b`, the body. Derived, in the same slot:
--   {K}:last         string  the newest id, for 30 days, so that numbers go on where an expired history ended
--   {K}:publish:<t>  string  a publication that has happened, for a minute: its id and its receivers
-- ARGV[1]  Redis channel
-- ARGV[2]  body
-- ARGV[3]  token of this publication
-- ARGV[4]  messages that are kept
-- ARGV[5]  ms that they are kept
--
-- Returns {id, receivers}. An id is `<ms>-<number>`: numbers go up by one, so whoever knows one can tell what it missed.
-- On the channel called like K the id is published right before the body: nothing comes between the two.
-- Twice: the token is known for a minute; nothing happens, the same answer. Caller dies: it is published.
-- Memory full: refused before anybody hears of it.
local channel, body, history, history_ms = ARGV[1], ARGV[2], tonumber(ARGV[4]), tonumber(ARGV[5])
local seen, last_key = BASE .. 'publish:' .. ARGV[3], BASE .. 'last'
local before = redis.call('GET', seen)
if before then
  local id, receivers = string.match(before, '^(%S+) (%d+)$')
  return { id, tonumber(receivers) }
end
local last = redis.call('GET', last_key)
if not last then
  local newest = redis.call('XREVRANGE', K, '+', '-', 'COUNT', 1)[1]
  last = newest and newest[1] or '0-0'
end
local last_ms, last_number = string.match(last, '^(%d+)-(%d+)$')
local id = string.format('%d-%d', math.max(NOW, tonumber(last_ms)), tonumber(last_number) + 1)
redis.call('XADD', K, 'MAXLEN', history, id, 'b', body)
redis.call('XTRIM', K, 'MINID', NOW - history_ms)
redis.call('PEXPIRE', K, history_ms)
redis.call('SET', last_key, id, 'EX', 2592000)
redis.call('PUBLISH', K, id)
local receivers = redis.call('PUBLISH', channel, body)
redis.call('SET', seen, id .. ' ' .. receivers, 'PX', 60000)
return { id, receivers }
