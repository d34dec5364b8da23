--[[
Make the absent epochs of an entry and grant, join or refuse a lease: the stamp that a later fill must still find.
KEYS[1]  STRING  tenant epoch        KEYS[3]  HASH    registry of the place
KEYS[2]  STRING  group epoch         KEYS[4]  STRING  the entry's lease, or the group's fence
KEYS[5…] STRING  tag epochs
ARGV[1]  text    ask | join | take (a lease) | fence (the group's fence)
ARGV[2]  int     ms that epochs must still live, 0 for ever          ARGV[3]  int  ms of the lease or fence
ARGV[4]  text    the group's name
ARGV[5…7] bytes  candidates of 8 random bytes: tenant epoch, group epoch, token        ARGV[8…] one a tag
Returns  {1 granted | 0 busy, token, tenant epoch, group epoch, tag epochs…}
Cost     O(number of tags); all keys share one hash tag. The first write is the one a full server refuses.
]]
local mode, life, hold = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])

local function born(key, value)
  if life > 0 then redis.call('SET', key, value, 'PX', life) else redis.call('SET', key, value) end
end

-- extended an hour ahead of need, so that not every call writes
local function outlive(key, ms)
  local left = redis.call('PTTL', key)
  if left < 0 or (ms > 0 and left >= ms - 3600000) then return false end
  if ms == 0 then redis.call('PERSIST', key) else redis.call('PEXPIRE', key, ms) end
  return true
end

local got = redis.call('MGET', unpack(KEYS))
local tenant, group, held = got[1], got[2], got[4]
local function standing()
  local marker = redis.pcall('HGET', KEYS[3], 'e')
  return type(marker) == 'string' and marker == tenant
end

if not tenant or #tenant ~= 8 then
  tenant = ARGV[5]
  born(KEYS[1], tenant)
  redis.call('UNLINK', KEYS[3])
  redis.call('HSET', KEYS[3], 'e', tenant)
  if life > 0 then redis.call('PEXPIRE', KEYS[3], life) end
end
if not group or #group ~= 16 or string.sub(group, 1, 8) ~= tenant then
  if standing() then redis.call('HSET', KEYS[3], 'g:' .. ARGV[4], '') end
  group = tenant .. ARGV[6]
  born(KEYS[2], group)
end
local epochs = tenant .. group
local reply = {1, '', tenant, group}
for i = 5, #KEYS do
  local tag = got[i]
  if not tag or #tag ~= 8 then
    tag = ARGV[i + 3]
    born(KEYS[i], tag)
  end
  reply[i] = tag
  epochs = epochs .. tag
end

if outlive(KEYS[1], life) then outlive(KEYS[3], life) end  -- the registry lives as long as the tenant epoch
for i = 2, #KEYS do
  if i > 4 or i == 2 then outlive(KEYS[i], life) end
end

if mode == 'fence' then
  if not held or #held ~= 8 then
    held = ARGV[7]
    redis.call('SET', KEYS[4], held, 'PX', hold)
  else
    outlive(KEYS[4], hold)
  end
  reply[2] = held
  return reply
end

if held and string.sub(held, 9) == epochs and mode ~= 'take' then
  if mode == 'ask' then
    reply[1] = 0
  else
    reply[2] = string.sub(held, 1, 8)
  end
  return reply
end
redis.call('SET', KEYS[4], ARGV[7] .. epochs, 'PX', hold)
reply[2] = ARGV[7]
return reply
