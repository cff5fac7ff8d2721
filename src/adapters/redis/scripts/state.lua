return {'ok', redis.call('HGET', base .. 'wm', take())}
