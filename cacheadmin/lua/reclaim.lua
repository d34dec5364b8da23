--[[
Free the orphans among one chunk of an index that was set aside; put what is valid back into the live index.
KEYS[1]  ZSET    index set aside    KEYS[2]  ZSET  live index
KEYS[3]  STRING  tenant epoch       KEYS[4]  STRING  group epoch
ARGV[1]  text    what value keys of this group begin with     ARGV[2]  int  rank of the first member to look at
ARGV[3]  int     members to look at
Returns  {values freed, rank of the next chunk or 0 at the end}
Cost     O(log n + chunk); all keys share one hash tag
]]
-- What was looked at stays until the end: taking members out one by one costs more than all the rest.
local from, chunk = tonumber(ARGV[2]), tonumber(ARGV[3])
local names = redis.call('ZRANGE', KEYS[1], from, from + chunk - 1)
local epochs = redis.call('MGET', KEYS[3], KEYS[4])
local standing = (epochs[1] or '') .. (epochs[2] or '')
local orphans, count, freed = {}, 0, 0
for _, name in ipairs(names) do
  local key = ARGV[1] .. name
  -- where an epoch is gone nothing is valid, so no header need be read
  local header = #standing == 24 and redis.pcall('GETRANGE', key, 27, 50) or '-'
  if type(header) == 'string' and #header > 0 then
    if header == standing then
      -- a full server refuses it, and the entry is only out of sight; memory must come back all the same
      redis.pcall('ZADD', KEYS[2], redis.call('ZSCORE', KEYS[1], name), name)
    else
      count = count + 1
      orphans[count] = key
    end
  end
end
if count > 0 then freed = redis.call('UNLINK', unpack(orphans)) end
if #names < chunk then
  redis.call('UNLINK', KEYS[1])
  return {freed, 0}
end
return {freed, from + chunk}
