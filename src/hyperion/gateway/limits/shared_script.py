"""The server's side of shared limits: what Redis does in one step, with its own clock, for each exchange.

Sent by `gateway/limits/shared`; the arithmetic and its bound are those of `policy/lease`. All keys have the hash tag
`{hyperion}`, so that they lie together on a Redis that is a cluster.
"""

from typing import Final

PREFIX: Final = "{hyperion}:"
GATEWAYS_KEY: Final = PREFIX + "gateways"

# KEYS: the set of gateways, then buckets. ARGV: this gateway, how long it counts as there and how long its leases hold
# (both µs), then five for each bucket: rate per second, burst, tokens held, tokens owed (below 0: given back), wanted.
# Answers how many gateways there are, then for each bucket the tokens granted and its level. A bucket's hash has its
# `level` at the time `told`, and by gateway the tokens leased and until when. A lease that has ended counts as used.
# While they hold, leases and level together stay within the burst: what was leased until now did so until now.
# `longest` is a hundred years in ms: Redis takes no numbers with an exponent, which larger ones are written with.
LEASE: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local me, lease, longest = ARGV[1], tonumber(ARGV[3]), 3e12
redis.call('ZADD', KEYS[1], now + ARGV[2], me)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
local answer = {redis.call('ZCARD', KEYS[1])}
for i = 2, #KEYS do
  local at = 5 * i - 6
  local rate, burst, held = tonumber(ARGV[at]), tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  local owed, wanted = tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
  local level, told, leased, mine = burst, now, 0, held
  local fields = redis.call('HGETALL', KEYS[i])
  for j = 1, #fields, 2 do
    local name, value = fields[j], fields[j + 1]
    if name == 'level' then
      level = tonumber(value)
    elseif name == 'told' then
      told = tonumber(value)
    else
      local tokens, ends = string.match(value, '^(%d+) (%d+)$')
      if tonumber(ends) <= now then
        redis.call('HDEL', KEYS[i], name)
      elseif name == me then
        mine = math.max(held, tokens)
      else
        leased = leased + tokens
      end
    end
  end
  level = math.min(level + math.max(0, now - told) * rate / 1000000, burst - leased - mine) - owed
  local grant = math.max(0, math.min(wanted, math.floor(level)))
  level = level - grant
  redis.call('HSET', KEYS[i], 'level', string.format('%.6f', level), 'told', string.format('%.0f', now))
  if held + grant > 0 then
    redis.call('HSET', KEYS[i], me, string.format('%.0f %.0f', held + grant, now + lease))
  else
    redis.call('HDEL', KEYS[i], me)
  end
  redis.call('PEXPIRE', KEYS[i], math.ceil(lease / 1000 + math.min(longest, 1000 * math.max(0, burst - level) / rate)))
  answer[#answer + 1] = grant
  answer[#answer + 1] = math.floor(level)
end
return answer
"""

# KEYS: two hashes for each tenant, of its day and of its month. ARGV: this gateway, then for each hash how long to keep
# it (s) and what this gateway counted: requests, rows, tokens, cost, with blanks between. Answers for each hash the
# sums of what the other gateways counted, as text. Counts are cumulative, so that telling twice changes nothing.
USAGE: Final = """
local me, answer = ARGV[1], {}
for i = 1, #KEYS do
  redis.call('HSET', KEYS[i], me, ARGV[2 * i + 1])
  redis.call('EXPIRE', KEYS[i], ARGV[2 * i])
  local sums = {0, 0, 0, 0}
  local fields = redis.call('HGETALL', KEYS[i])
  for j = 1, #fields, 2 do
    if fields[j] ~= me then
      local n = 0
      for number in string.gmatch(fields[j + 1], '%S+') do
        n = n + 1
        sums[n] = sums[n] + number
      end
    end
  end
  answer[i] = string.format('%.17g %.17g %.17g %.17g', sums[1], sums[2], sums[3], sums[4])
end
return answer
"""
