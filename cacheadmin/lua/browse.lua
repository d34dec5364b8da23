--[[
Read one page of a group's entries from its index: names, expiry, size and header, never a payload.
KEYS[1]  ZSET    index: member, score expiry in ms    KEYS[2]  STRING  tenant epoch    KEYS[3]  STRING  group epoch
ARGV[1]  text    what value keys of this group begin with
ARGV[2]  int     rows to skip      ARGV[3]  int  rows to return     ARGV[4]  asc | desc, by expiry
ARGV[5]  int     a group of at most this many is read whole         ARGV[6]  int  bytes of each value to return
ARGV[7]  int     where to begin in a group that is read whole; above 0 nothing is returned of a larger one
ARGV[8]  int     rows to return of a group that is read whole
Returns  {now in ms, members not expired, tenant epoch, group epoch, 1 whole | 0 page, member, score, size, header, …}
Cost     O(log n + rows skipped and returned); all keys share one hash tag; nothing is written
]]
local clock = redis.call('TIME')
local now = string.format('%.0f', clock[1] * 1000 + math.floor(clock[2] / 1000))
local epochs = redis.call('MGET', KEYS[2], KEYS[3])
local total = redis.pcall('ZCOUNT', KEYS[1], now, '+inf')
if type(total) ~= 'number' then total = 0 end
local reply = {now, total, epochs[1], epochs[2], 0}
if total == 0 then return reply end

local skip, limit, from = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[7])
if total <= tonumber(ARGV[5]) then
  reply[5], skip, limit = 1, from, tonumber(ARGV[8])
  if from >= total then return reply end
elseif from > 0 then
  return reply
end
local found
if ARGV[4] == 'desc' then
  found = redis.call('ZREVRANGEBYSCORE', KEYS[1], '+inf', now, 'WITHSCORES', 'LIMIT', skip, limit)
else
  found = redis.call('ZRANGEBYSCORE', KEYS[1], now, '+inf', 'WITHSCORES', 'LIMIT', skip, limit)
end
local last, most_bytes, at = string.format('%.0f', tonumber(ARGV[6]) - 1), tonumber(ARGV[6]), #reply
for i = 1, #found, 2 do
  local key = ARGV[1] .. found[i]
  local header = redis.pcall('GETRANGE', key, '0', last)
  if type(header) ~= 'string' then header = '' end
  local size = #header
  if size >= most_bytes then size = redis.call('STRLEN', key) end -- a shorter one is here as a whole
  reply[at + 1], reply[at + 2], reply[at + 3], reply[at + 4] = found[i], found[i + 1], size, header
  at = at + 4
end
return reply
