-- Count how long runs took, in the present 10 s.
--
-- KEYS[1]  ready list
-- ARGV[1..]  two values a bucket: its number, how many more
--
-- Returns the number of buckets.
-- Twice: counted twice; so its caller never repeats it. Caller dies: they are counted.
local rate = BASE .. 'rate:' .. math.floor(NOW / 10000)
for i = 1, #ARGV, 2 do redis.call('HINCRBY', rate, 'run:' .. ARGV[i], ARGV[i + 1]) end
redis.call('EXPIRE', rate, 120)
return #ARGV / 2
