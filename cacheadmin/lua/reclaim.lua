--[[
Free the orphans among one chunk of an index that was set aside; put what is valid back into the live index.
KEYS[1]  ZSET    index set aside    KEYS[2]  ZSET  live index
KEYS[3]  STRING  tenant epoch       KEYS[4]  STRING  group epoch
ARGV[1]  text    what value keys of this group begin with     ARGV[2]  int  members to look at
Returns  {values freed, members left aside}
Cost     O(chunk · log n); all keys share one hash tag
]]
local members = redis.call('ZRANGE', KEYS[1], 0, tonumber(ARGV[2]) - 1, 'WITHSCORES')
if #members == 0 then
  redis.call('UNLINK', KEYS[1])
  return {0, 0}
end
local epochs = redis.call('MGET', KEYS[3], KEYS[4])
local standing = (epochs[1] or '') .. (epochs[2] or '')
local orphans, freed = {}, 0
for i = 1, #members, 2 do
  local key = ARGV[1] .. members[i]
  -- where an epoch is gone nothing is valid, so no header need be read
  local header = #standing == 24 and redis.pcall('GETRANGE', key, 27, 50) or '-'
  if type(header) == 'string' and #header > 0 then
    if header == standing then
      redis.call('ZADD', KEYS[2], members[i + 1], members[i])
    else
      orphans[#orphans + 1] = key
    end
  end
end
if #orphans > 0 then freed = redis.call('UNLINK', unpack(orphans)) end
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, #members / 2 - 1)
return {freed, redis.call('ZCARD', KEYS[1])}
