--[[
Store a value under the stamp of this moment: a plain `set` or `add` that no `get` of the same request preceded.
KEYS[1]  STRING  the entry    KEYS[2]  STRING  its lease    KEYS[3]  ZSET  index    KEYS[4]  HASH  registry
KEYS[5]  STRING  tenant epoch KEYS[6]  STRING  group epoch
ARGV[1]  set | add (only if absent or not valid) | replace (only if valid)
ARGV[2]  bytes   header up to the epochs    ARGV[3]  bytes  header after the epochs, and payload
ARGV[4]  int     timeout in ms, 0 for ever  ARGV[5]  text   member     ARGV[6]  text  the group's name
ARGV[7]  int     ms that epochs must still live, 0 for ever     ARGV[8], ARGV[9]  bytes  candidates: tenant, group epoch
Returns  1 stored, 0 not
Cost     O(log n); all keys share one hash tag. The first write is the one a full server refuses.
]]
local life, timeout = tonumber(ARGV[7]), tonumber(ARGV[4])

local function born(key, value)
  if life > 0 then redis.call('SET', key, value, 'PX', life) else redis.call('SET', key, value) end
end

-- extended an hour ahead of need, so that not every call writes
local function outlive(key)
  local left = redis.call('PTTL', key)
  if left < 0 then return end
  if life == 0 then redis.call('PERSIST', key) elseif left < life - 3600000 then redis.call('PEXPIRE', key, life) end
end

local got = redis.call('MGET', KEYS[1], KEYS[5], KEYS[6])
local stored, tenant, group = got[1], got[2], got[3]
local complete = tenant and #tenant == 8 and group and #group == 16 and string.sub(group, 1, 8) == tenant
local valid = false
if stored and complete then
  -- the tags of a decorated entry are not known here: tenant and group decide, the next read compares them all
  valid = string.sub(stored, 3, 26) == string.sub(ARGV[2], 3, 26) and string.sub(stored, 28, 51) == tenant .. group
end
if (ARGV[1] == 'add' and valid) or (ARGV[1] == 'replace' and not valid) then return 0 end

if not tenant or #tenant ~= 8 then
  tenant = ARGV[8]
  born(KEYS[5], tenant)
  redis.call('UNLINK', KEYS[4])
  redis.call('HSET', KEYS[4], 'e', tenant)
  if life > 0 then redis.call('PEXPIRE', KEYS[4], life) end
end
if not complete then
  local marker = redis.pcall('HGET', KEYS[4], 'e')
  if type(marker) == 'string' and marker == tenant then redis.call('HSET', KEYS[4], 'g:' .. ARGV[6], '') end
  group = tenant .. ARGV[9]
  born(KEYS[6], group)
end

local clock = redis.call('TIME')
local expiry = '+inf'
local value = ARGV[2] .. tenant .. group .. ARGV[3]
if timeout > 0 then
  redis.call('SET', KEYS[1], value, 'PX', timeout)
  expiry = string.format('%.0f', clock[1] * 1000 + math.floor(clock[2] / 1000) + timeout)
else
  redis.call('SET', KEYS[1], value)
end
redis.call('UNLINK', KEYS[2])
for i = 4, 6 do outlive(KEYS[i]) end
local noted = redis.pcall('ZADD', KEYS[3], expiry, ARGV[5])
if type(noted) == 'table' and noted.err then
  redis.call('UNLINK', KEYS[3])
  redis.call('ZADD', KEYS[3], expiry, ARGV[5])
end
if redis.call('PTTL', KEYS[3]) == -1 then
  if life > 0 and redis.call('ZCARD', KEYS[3]) == 1 then redis.call('PEXPIRE', KEYS[3], life) end
else
  outlive(KEYS[3])
end
return 1
