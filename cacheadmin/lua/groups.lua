--[[
List the groups of a place, if the registry can be trusted: it carries the standing tenant epoch as its marker.
KEYS[1]  STRING  tenant epoch    KEYS[2]  HASH  registry
Returns  the fields of the registry; nil when it is lost or older than the epoch, so the caller must widen
Cost     O(number of groups); both keys share one hash tag
]]
local tenant = redis.call('MGET', KEYS[1])[1]
local marker = redis.pcall('HGET', KEYS[2], 'e')
if not tenant or type(marker) ~= 'string' or marker ~= tenant then return false end
return redis.call('HKEYS', KEYS[2])
