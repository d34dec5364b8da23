--[[
Store a value if its epochs and its lease (or the group's fence) still stand, and note it in the group's index.
KEYS[1]  STRING  the entry            KEYS[4]  HASH    registry of the place
KEYS[2]  STRING  its lease, or the group's fence       KEYS[5]  STRING  tenant epoch     KEYS[6]  STRING  group epoch
KEYS[3]  ZSET    index: member, score expiry in ms     KEYS[7…] STRING  tag epochs
ARGV[1]  bytes   header and payload   ARGV[2]  int  timeout in ms, 0 for ever   ARGV[3]  text  member
ARGV[4]  bytes   token                ARGV[5]  bytes  the epochs of the stamp, joined
ARGV[6]  0 | 1   leased: the lease ends with the fill     ARGV[7]  int  ms that epochs must still live, 0 for ever
ARGV[8]  0 | 1   only if no valid value is there (`add`)
Returns  1 stored, 0 refused
Cost     O(log n) and at most 224 dead members pruned, once in sixteen calls; all keys share one hash tag
]]
local life = tonumber(ARGV[7])

-- extended an hour ahead of need, so that not every call writes
local function outlive(key)
  local left = redis.call('PTTL', key)
  if left < 0 or (life > 0 and left >= life - 3600000) then return false end
  if life == 0 then redis.call('PERSIST', key) else redis.call('PEXPIRE', key, life) end
  return true
end

local held = redis.call('MGET', KEYS[2], unpack(KEYS, 5))
if not held[1] or string.sub(held[1], 1, 8) ~= ARGV[4] then return 0 end
local epochs = ''
for i = 2, #KEYS - 3 do
  if not held[i] then return 0 end
  epochs = epochs .. held[i]
end
if epochs ~= ARGV[5] then return 0 end
if ARGV[8] == '1' then
  local header = redis.pcall('GETRANGE', KEYS[1], 2, 26 + #epochs)
  if header == string.sub(ARGV[1], 3, 27 + #epochs) then return 0 end
end

local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local timeout = tonumber(ARGV[2])
local expiry = '+inf'
if timeout > 0 then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
  expiry = now + timeout
else
  redis.call('SET', KEYS[1], ARGV[1])
end
if ARGV[6] == '1' then redis.call('UNLINK', KEYS[2]) end
if outlive(KEYS[5]) then outlive(KEYS[4]) end  -- the registry lives as long as the tenant epoch
for i = 6, #KEYS do outlive(KEYS[i]) end

local noted = redis.pcall('ZADD', KEYS[3], expiry, ARGV[3])
if type(noted) == 'table' and noted.err then
  redis.call('UNLINK', KEYS[3])
  redis.call('ZADD', KEYS[3], expiry, ARGV[3])
end
local left = redis.call('PTTL', KEYS[3])
if left == -1 then
  if life > 0 and redis.call('ZCARD', KEYS[3]) == 1 then redis.call('PEXPIRE', KEYS[3], life) end
elseif life == 0 then
  redis.call('PERSIST', KEYS[3])
elseif left < life - 3600000 then
  redis.call('PEXPIRE', KEYS[3], life)
end
if clock[2] % 16 > 0 then return 1 end

-- one fill in sixteen prunes: members past their time, and some of those whose values were evicted
local dead = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now, 'LIMIT', 0, 192)
local values = string.sub(KEYS[1], 1, #KEYS[1] - #ARGV[3])
local picked, names = redis.call('ZRANDMEMBER', KEYS[3], -32), {}
for i, member in ipairs(picked) do names[i] = values .. member end
if redis.call('EXISTS', unpack(names)) < #names then
  for i, name in ipairs(names) do
    if redis.call('EXISTS', name) == 0 then dead[#dead + 1] = picked[i] end
  end
end
if #dead > 0 then redis.call('ZREM', KEYS[3], unpack(dead)) end
return 1
