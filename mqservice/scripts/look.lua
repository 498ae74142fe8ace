-- Look at the ready list, and take nothing.
--
-- KEYS[1]  ready list
-- ARGV[1]  position to start at, from 0
-- ARGV[2]  entries at most, 1 to 1000
-- ARGV[3]  bytes above which an entry is not handed out
-- ARGV[4]  bytes after which no further entry is handed out
--
-- Returns one value an entry: the entry, or its size when that is above ARGV[3]. Fewer than asked for: the list has
-- ended, or the bytes were reached.
-- Twice: as once, of what is there then. Changes nothing.
local start, count, entry_bytes, most_bytes = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local entries, bytes = {}, 0
for i = start, start + count - 1 do
  local entry = redis.call('LINDEX', K, i) -- one by one: 200 entries at once may be gigabytes
  if not entry then break end
  if #entry > entry_bytes then
    entries[#entries + 1] = #entry
  else
    bytes = bytes + #entry
    entries[#entries + 1] = entry
  end
  if bytes >= most_bytes then break end
end
return entries
