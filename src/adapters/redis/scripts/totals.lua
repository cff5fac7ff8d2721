return {'ok', redis.call('HGETALL', base .. 'totals')}
