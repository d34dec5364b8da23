--[[
Give a valid entry a new timeout; its epochs, registry and place in the index follow.
KEYS[1]  STRING  the entry    KEYS[2]  ZSET  index    KEYS[3]  HASH  registry
KEYS[4]  STRING  tenant epoch KEYS[5]  STRING  group epoch
ARGV[1]  bytes   digest and identity that the header must hold
ARGV[2]  int     timeout in ms, 0 for ever     ARGV[3]  text  member     ARGV[4]  int  ms that epochs must still live
Returns  1 done, 0 absent or not valid
Cost     O(log n); all keys share one hash tag
]]
local got = redis.call('MGET', KEYS[1], KEYS[4], KEYS[5])
local stored, tenant, group = got[1], got[2], got[3]
if not (stored and tenant and group) or string.sub(stored, 3, 26) ~= ARGV[1]
  or string.sub(stored, 28, 51) ~= tenant .. group or string.sub(group, 1, 8) ~= tenant then
  return 0
end
local timeout, life = tonumber(ARGV[2]), tonumber(ARGV[4])
for i = 2, 5 do
  local left = redis.call('PTTL', KEYS[i])
  if left >= 0 then
    if life == 0 then redis.call('PERSIST', KEYS[i]) elseif left < life - 3600000 then redis.call('PEXPIRE', KEYS[i], life) end
  end
end
local expiry = '+inf'
if timeout > 0 then
  local clock = redis.call('TIME')
  expiry = string.format('%.0f', clock[1] * 1000 + math.floor(clock[2] / 1000) + timeout)
  redis.call('PEXPIRE', KEYS[1], timeout)
else
  redis.call('PERSIST', KEYS[1])
end
redis.pcall('ZADD', KEYS[2], 'XX', expiry, ARGV[3])
return 1
