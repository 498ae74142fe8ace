-- Delete a schedule. Messages it has sent stay.
--
-- KEYS[1]  {mq}:schedules; keys derived from it as in schedule_put.lua
-- ARGV[1]  name
-- ARGV[2]  '' for any; else only one whose source is config and whose owner is this
--
-- Returns 1 deleted, 0 there is none such.
-- Twice: 0 for 1, no second effect. Caller dies: it is deleted.
local name, owner = ARGV[1], ARGV[2]
local key = K .. ':s:' .. name
if owner ~= '' then
  local r = redis.call('HMGET', key, 'source', 'owner')
  if r[1] ~= 'config' or r[2] ~= owner then return 0 end
end
local known = redis.call('SREM', K, name) + redis.call('DEL', key)
if known == 0 then return 0 end
redis.call('HINCRBY', K .. ':changes', 'version', 1)
return 1
