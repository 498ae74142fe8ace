-- Put a schedule, new or in place of the one of its name.
--
-- KEYS[1]  {mq}:schedules, set of the names of all schedules. Derived, in the same slot:
--   K:changes   hash  born: ms, when the first change was noted; version: number of changes since
--   K:s:<name>  hash  spec, timing, source, owner, rev (version of its last change), created (ms, nothing is due before),
--                     last (latest due time dealt with, ms), fired (latest that was sent, ms), skipped (how many),
--                     turn_by and turn_until (who may fire it, until when, ms)
-- ARGV[1]  name
-- ARGV[2]  spec, JSON
-- ARGV[3]  timing: text that differs when the due times do
-- ARGV[4]  source: config or api
-- ARGV[5]  owner: which application's configuration; '' for the api
--
-- Returns 1 created; 0 replaced, or the same as it was; -1 left alone, since a configuration does not undo what was put
-- over the api. With other timing it begins anew, now; else it goes on where it was.
-- Twice: 0 for 1, no second effect. Caller dies: it is put.
local name, spec, timing, source, owner = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local key, changes = K .. ':s:' .. name, K .. ':changes'
local r = redis.call('HMGET', key, 'spec', 'timing', 'source', 'owner')
if r[1] and source == 'config' and r[3] == 'api' then return -1 end
if r[1] == spec and r[3] == source and r[4] == owner then return 0 end
redis.call('HSETNX', changes, 'born', NOW)
local rev = redis.call('HINCRBY', changes, 'version', 1)
redis.call('SADD', K, name)
redis.call('HSET', key, 'spec', spec, 'timing', timing, 'source', source, 'owner', owner, 'rev', rev)
if r[2] ~= timing then redis.call('HSET', key, 'created', NOW) end
return r[1] and 0 or 1
