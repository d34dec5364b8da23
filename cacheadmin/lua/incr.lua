--[[
Add to an integer entry, atomically and with 64 bits: Redis counts, not Lua, whose numbers have 53.
KEYS[1]  STRING  the entry    KEYS[2]  STRING  tenant epoch    KEYS[3]  STRING  group epoch
ARGV[1]  bytes   digest and identity that the header must hold    ARGV[2]  int  what to add
Returns  the new value as text; nil if absent or not valid; 'other' if the payload is no integer
Cost     O(1)
]]
local got = redis.call('MGET', KEYS[1], KEYS[2], KEYS[3])
local stored, tenant, group = got[1], got[2], got[3]
if not (stored and tenant and group) or string.sub(stored, 3, 26) ~= ARGV[1]
  or string.sub(stored, 28, 51) ~= tenant .. group or string.sub(group, 1, 8) ~= tenant then
  return false
end
if string.byte(stored, 2) ~= 0 then return 'other' end
local count = string.byte(stored, 27)
local ends = 27 + 8 + 16 + 8 * (count - 2)
local start = ends + 2 + string.byte(stored, ends + 1) * 256 + string.byte(stored, ends + 2)
redis.call('SET', KEYS[1], string.sub(stored, start + 1), 'KEEPTTL')
local result = redis.pcall('INCRBY', KEYS[1], ARGV[2])
if type(result) == 'table' then
  redis.call('SET', KEYS[1], stored, 'KEEPTTL')
  return result
end
local digits = redis.call('GET', KEYS[1])
redis.call('SET', KEYS[1], string.sub(stored, 1, start) .. digits, 'KEEPTTL')
return digits
