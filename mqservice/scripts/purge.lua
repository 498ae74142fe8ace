-- Delete messages of one state, oldest first, a bounded number of them.
--
-- KEYS[1]  ready list
-- ARGV[1]  state: ready, scheduled, dead, done or cancelled
-- ARGV[2]  how many at most, 1 to 1000
--
-- Returns {taken off the list, deleted}. The first is less than asked when nothing is left.
-- Twice: deletes as many again, which is what was asked for; only the number comes out too small. Caller dies: they
-- are gone.
check_types()
local state, most = ARGV[1], tonumber(ARGV[2])
local gone = {}
local taken, deleted = 0, 0

local function forget(id, expected)
  local key = RECORD .. id
  local r = redis.call('HMGET', key, 'state', 'unique', 'watch', 'sent')
  r[1] = r[1] or (r[4] and 'ready')
  if expected == 'dead' and r[1] ~= 'dead' then count('forgotten', 1) end -- a listing that outlived its record
  if expected == 'cancelled' and r[1] == 'cancelled' and redis.call('PTTL', key) == -1 then
    -- Its entry is still on the ready list: a stub stays for the claim that takes that off.
    redis.call('UNLINK', key)
    redis.call('HSET', key, 'state', 'cancelled', 'purged', NOW)
    deleted = deleted + 1
    return
  end
  if r[1] ~= expected then
    if expected == 'ready' and r[1] == 'cancelled' then
      count_tombstones(-1)
      redis.call('UNLINK', key)
    end
    return
  end
  free_unique(r[2], id)
  redis.call('UNLINK', key)
  deleted = deleted + 1
  tell(id, 'purged')
  notify(r[3], id)
end

if state == 'ready' then
  gone = redis.call('LPOP', K, most) or {}
  for _, entry in ipairs(gone) do
    if string.sub(entry, 1, #MARK) == MARK then
      forget(string.sub(entry, #MARK + 1), 'ready')
    else
      deleted = deleted + 1
      count('sent', 1) -- a raw body counts when it is adopted, or now
    end
  end
  taken = #gone
elseif state == 'scheduled' or state == 'dead' then
  gone = redis.call('ZPOPMIN', state == 'dead' and DEAD or SCHEDULED, most)
  for i = 1, #gone, 2 do forget(gone[i], state) end
  taken = #gone / 2
else
  gone = redis.call('RPOP', state == 'done' and DONE or CANCELLED, most) or {}
  for _, id in ipairs(gone) do forget(id, state) end
  taken = #gone
end
if state ~= 'done' and state ~= 'cancelled' then count('purged', deleted) end
return { taken, deleted }
