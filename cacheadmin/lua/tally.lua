--[[
Add counts to roll-ups, unless this very batch has been added before (its answer was lost on the way).
KEYS[1]  STRING  number of the last batch of this process      KEYS[2…]  HASH  roll-ups: field -> numbers, by spaces
ARGV[1]  int     number of this batch, 1 and up                ARGV[2]   int   seconds for which KEYS[1] is remembered
then for each roll-up:   int seconds to live · int most fields · int n, 1 to 1,000 · n times (field, numbers to add)
         A field that would be one too many is counted as `<its part before the first colon>:%00other` instead.
Returns  1 added, 0 known already
Cost     O(fields named); all keys share one hash tag
]]
local last = redis.call('GET', KEYS[1])
if last and tonumber(last) >= tonumber(ARGV[1]) then return 0 end

local function sum(old, added)
  local numbers, i = {}, 0
  for number in string.gmatch(old, '%d+') do
    i = i + 1
    numbers[i] = number + 0
  end
  i = 0
  for number in string.gmatch(added, '%d+') do
    i = i + 1
    numbers[i] = (numbers[i] or 0) + number
  end
  for k, number in ipairs(numbers) do
    if number >= 1e14 then numbers[k] = string.format('%.0f', number) end  -- else it is written without an exponent
  end
  return table.concat(numbers, ' ')
end

local at = 3
for k = 2, #KEYS do
  local key, most, n, fields = KEYS[k], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), {}
  for i = 1, n do fields[i] = ARGV[at + 1 + 2 * i] end
  local old, length = redis.call('HMGET', key, unpack(fields)), redis.call('HLEN', key)
  local pairs_, size, others = {}, 0, {}
  for i = 1, n do
    local field, added = fields[i], ARGV[at + 2 + 2 * i]
    if not old[i] and length >= most then
      field = string.match(field, '^[^:]*') .. ':%00other'
      others[field] = others[field] and sum(others[field], added) or added
    else
      if old[i] then added = sum(old[i], added) else length = length + 1 end
      pairs_[size + 1], pairs_[size + 2], size = field, added, size + 2
    end
  end
  if size > 0 then redis.call('HSET', key, unpack(pairs_)) end
  for field, added in pairs(others) do
    local known = redis.call('HGET', key, field)
    redis.call('HSET', key, field, known and sum(known, added) or added)
  end
  redis.call('EXPIRE', key, ARGV[at])
  at = at + 3 + 2 * n
end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
return 1
