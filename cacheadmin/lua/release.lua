--[[
Give a lease back, if it is still mine: somebody else may compute at once instead of waiting for its end.
KEYS[1]  STRING  the lease    ARGV[1]  bytes  my token
Returns  1 given back, 0 not mine
Cost     O(1)
]]
local held = redis.call('MGET', KEYS[1])[1]
if held and string.sub(held, 1, 8) == ARGV[1] then return redis.call('UNLINK', KEYS[1]) end
return 0
