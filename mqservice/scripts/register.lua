-- Make a queue known to whoever lists queues.
--
-- KEYS[1]  the set of all queues, not a ready list
-- ARGV[1]  name
--
-- Returns 1 when it is new. A script, and not the command it runs, because it must work when memory is full: or no
-- process could start that drains it. Twice: as once. Caller dies: it is known.
return redis.call('SADD', KEYS[1], ARGV[1])
