--[[
Add counts to roll-ups, unless this very batch has been added before (its answer was lost on the way).
KEYS[1]  STRING  number of the last batch of this process      KEYS[2…]  HASH  roll-ups: field -> numbers, by spaces
ARGV[1]  int     number of this batch, 1 and up                ARGV[2]   int   seconds for which KEYS[1] is remembered
then for each roll-up:   int seconds to live · int most fields · int n · n times (field, numbers to add)
         A field that would be one too many is counted as `<its part before the first colon>:%00other` instead.
Returns  1 added, 0 known already
Cost     O(fields named); all keys share one hash tag
]]
local last = redis.call('GET', KEYS[1])
if last and tonumber(last) >= tonumber(ARGV[1]) then return 0 end

local function sum(old, added)
  local numbers, i = {}, 0
  for number in string.gmatch(old, '%d+') do numbers[#numbers + 1] = tonumber(number) end
  for number in string.gmatch(added, '%d+') do
    i = i + 1
    numbers[i] = (numbers[i] or 0) + tonumber(number)
  end
  for k = 1, #numbers do numbers[k] = string.format('%.0f', numbers[k]) end
  return table.concat(numbers, ' ')
end

local at = 3
for k = 2, #KEYS do
  local key, most = KEYS[k], tonumber(ARGV[at + 1])
  local length, ends = redis.call('HLEN', key), at + 3 + 2 * tonumber(ARGV[at + 2])
  for i = at + 3, ends - 1, 2 do
    local field, added = ARGV[i], ARGV[i + 1]
    local old = redis.call('HGET', key, field)
    if not old and length >= most then
      field = string.match(field, '^[^:]*') .. ':%00other'
      old = redis.call('HGET', key, field)
    end
    if old then added = sum(old, added) else length = length + 1 end
    redis.call('HSET', key, field, added)
  end
  redis.call('EXPIRE', key, ARGV[at])
  at = ends
end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
return 1
