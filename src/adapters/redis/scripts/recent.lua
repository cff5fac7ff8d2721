return {'ok', redis.call('LRANGE', base .. 'r:' .. take(), 0, -1)}
