redis.call('HSETNX', base .. 'wm', take(), take())
return {'ok'}
