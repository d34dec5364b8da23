--[[
Count the entries of some groups of one place, and weigh a few of each.
KEYS[1]  STRING  tenant epoch    then for each group: its index (ZSET) and its epoch (STRING)
ARGV[1]  int     entries to weigh in each group    then for each group what its value keys begin with
Returns  for each group {members not expired, weighed, their bytes, 1 if its epochs stand | 0 if all are orphans,
         one member, which tells what kind of entries they are}
Cost     O(groups · (log n + weighed)); all keys share one hash tag; nothing is written
]]
local clock = redis.call('TIME')
local now = string.format('%.0f', clock[1] * 1000 + math.floor(clock[2] / 1000))
local tenant = redis.call('MGET', KEYS[1])[1]
local reply = {}
for i = 2, #KEYS, 2 do
  local count = redis.pcall('ZCOUNT', KEYS[i], now, '+inf')
  if type(count) ~= 'number' then count = 0 end
  local weighed, bytes, stands, one = 0, 0, 0, ''
  if count > 0 then
    local group = redis.call('MGET', KEYS[i + 1])[1]
    if tenant and group and #group == 16 and string.sub(group, 1, 8) == tenant then stands = 1 end
    for _, member in ipairs(redis.call('ZRANDMEMBER', KEYS[i], tonumber(ARGV[1]))) do
      local size = redis.pcall('STRLEN', ARGV[i / 2 + 1] .. member)
      if type(size) == 'number' and size > 0 then
        weighed, bytes, one = weighed + 1, bytes + size, member
      end
    end
  end
  reply[i / 2] = {count, weighed, bytes, stands, one}
end
return reply
