// ioredis: everything a program does with it, said aloud.
//
// Prints one line per observation. The tests run it against a server and against the proxy: the
// lines must be the same. The server is the first argument, as a URL with user and password.
'use strict';

const assert = require('node:assert');
const fs = require('node:fs');
const Redis = require('ioredis');

const BIG = 64 * 1024 * 1024;

const say = (what, ...seen) => console.log(what, ...seen.map((one) => JSON.stringify(one)));

async function failing(what, promise) {
  try {
    say(what, 'no error', await promise);
  } catch (error) {
    say(what, error.name, error.message);
  }
}

// What the URL says would go before the options.
function connect(text, options = {}) {
  const url = new URL(text);
  const tls = process.env.DRIVER_CA
    ? { tls: { ca: fs.readFileSync(process.env.DRIVER_CA, 'utf8') } } : {};
  const client = new Redis({
    host: url.hostname,
    port: Number(url.port),
    username: url.username,
    password: url.password,
    lazyConnect: true,
    retryStrategy: null,
    ...tls,
    ...options,
  });
  client.on('error', () => {});
  return client;
}

const once = (emitter, event) =>
  new Promise((resolve) => { emitter.once(event, (...seen) => resolve(seen)); });

async function logins(url) {
  const client = connect(url, { connectionName: 'me', db: 3 });
  await client.connect();
  say('login', await client.ping(), await client.client('GETNAME'), await client.acl('WHOAMI'));
  say('database', await client.set('a', 3), /db=3/.test(await client.client('INFO')));
  say('select', await client.select(0), await client.get('a'));
  await failing('select', client.select(99));
  say('version', /redis_version:7/.test(await client.info('server')));
  client.disconnect();
  for (const [what, options] of [['wrong', { password: 'wrong' }], ['nobody', { username: 'nobody' }]]) {
    const refused = connect(url, options);
    await failing(what, refused.connect().then(() => refused.ping()));
    refused.disconnect();
  }
}

async function values(client) {
  say('text', await client.set('text', 'Grüße, 世界'), await client.get('text'));
  const bytes = Buffer.from([0, 13, 10, 255]);
  say('bytes', await client.set('bytes', bytes), (await client.getBuffer('bytes')).equals(bytes));
  say('options', await client.set('o', 1, 'EX', 1000, 'NX'), await client.set('o', 2, 'NX'));
  say('numbers', await client.incrby('n', 5), await client.incrbyfloat('f', 1.5));
  say('several', await client.mset({ m1: 1, m2: 2 }), await client.mget('m1', 'none', 'm2'));
  say('hash', await client.hset('h', { a: 1, b: 'x' }), await client.hgetall('h'));
  say('list', await client.rpush('l', 1, 2, 3), await client.lrange('l', 0, -1), await client.lpop('l'));
  say('set', await client.sadd('s', 'a'), await client.smembers('s'));
  say('sorted', await client.zadd('z', 1, 'a', 2.5, 'b'), await client.zrange('z', 0, -1, 'WITHSCORES'));
  say('keys', await client.type('z'), await client.exists('l', 'none'), await client.ttl('o') > 0);
}

async function errors(client) {
  await client.set('text', 'x');
  await failing('wrong type', client.lpush('text', 1));
  await failing('no command', client.call('NOSUCH', 'a'));
  await failing('arity', client.call('GET'));
  await failing('syntax', client.set('a', 'b', 'NOSUCH'));
}

async function pipelines(client) {
  const many = await Promise.all(Array.from({ length: 10000 }, (_, n) => client.incrby('many', n % 3)));
  say('at once', many.length, many[9999]);
  const pipe = client.pipeline();
  for (let n = 0; n < 10000; n += 1) pipe.set(`p${n % 100}`, n).get(`p${n % 100}`);
  const answers = await pipe.exec();
  say('pipeline', answers.length, answers.filter(([error]) => error).length, answers[19999]);
  const mixed = await client.pipeline().set('a', 'x').incr('a').get('a').exec();
  say('with an error', mixed.map(([error, value]) => [error && error.message, value]));
}

async function transactions(client, other) {
  say('transaction', await client.multi().set('t', 1).incr('t').hset('th', 'f', 'v').hgetall('th').exec());
  await client.watch('t');
  await other.set('t', 100);
  say('watched', await client.multi().get('t').exec());
  await client.watch('t');
  say('unchanged', await client.multi().get('t').exec());
  const inside = await client.multi().set('t', 'x').incr('t').exec();
  say('error inside', inside.map(([error, value]) => [error && error.message, value]));
  await failing('aborted', client.multi().set('t', 'y').call('NOSUCH').exec());
  await client.multi({ pipeline: false });
  say('one by one', await client.set('t', 'z'), await client.get('t'), await client.exec());
}

async function subscriptions(url, client) {
  const listener = connect(url);
  await listener.connect();
  say('subscribed', await listener.subscribe('c', 'd'), await listener.psubscribe('c*'));
  const heard = Promise.all([once(listener, 'message'), once(listener, 'pmessage')]);
  say('published', await client.publish('c', 'hello'), await heard);
  await failing('not now', listener.get('a'));
  say('unsubscribed', await listener.unsubscribe('c'), await listener.punsubscribe('c*'));
  let sum = 0;
  const all = new Promise((resolve) => {
    listener.on('message', (_, text) => { sum += Number(text); if (text === '999') resolve(); });
  });
  await Promise.all(Array.from({ length: 1000 }, (_, n) => client.publish('d', n)));
  await all;
  say('many', sum, await listener.unsubscribe('d'), await listener.get('none'));
  say('sharded', await listener.ssubscribe('shard'));
  const message = once(listener, 'smessage');
  say('sharded', await client.spublish('shard', 'm'), await message);
  listener.disconnect();
}

async function blocking(client, other) {
  const popped = client.blpop('none', 'queue', 20);
  while (!/blocked_clients:1/.test(await other.info('clients'))) { /* not before it waits */ }
  await other.rpush('queue', 'a', 'b');
  say('blocked', await popped, await client.blmove('queue', 'queue2', 'LEFT', 'RIGHT', 20));
  say('in vain', await client.blpop('none', 0.05));
}

async function streams(client) {
  for (let n = 1; n <= 10; n += 1) await client.xadd('st', `${n}-1`, 'n', n);
  say('stream', await client.xlen('st'), await client.xrange('st', 3, 4));
  say('group', await client.xgroup('CREATE', 'st', 'g', 0),
    await client.xreadgroup('GROUP', 'g', 'one', 'COUNT', 2, 'STREAMS', 'st', '>'));
  say('acknowledged', await client.xack('st', 'g', '1-1'), await client.xpending('st', 'g'),
    await client.xautoclaim('st', 'g', 'two', 0, 0));
}

async function scripts(client) {
  client.defineCommand('both', { numberOfKeys: 1, lua: "return {KEYS[1], ARGV[1], {'nested'}}" });
  say('script', await client.both('k', 'v'), await client.both('k', 'w'));
  await failing('script error', client.eval("return redis.error_reply('MINE went wrong')", 0));
}

async function loops(client) {
  const pairs = Array.from({ length: 1000 }, (_, n) => [`scanned:${n}`, n]);
  await client.mset(new Map(pairs));
  const seen = new Set();
  for await (const keys of client.scanStream({ match: 'scanned:*', count: 17 })) {
    for (const key of keys) seen.add(key);
  }
  await client.hset('big', Object.fromEntries(pairs));
  let fields = 0;
  for await (const found of client.hscanStream('big')) fields += found.length / 2;
  say('scan', seen.size, fields, (await client.keys('scanned:9*')).length);
}

async function big(client) {
  const value = Buffer.alloc(BIG, 'abc');
  say('big', await client.set('huge', value), await client.strlen('huge'));
  assert((await client.getBuffer('huge')).equals(value));
  const answers = await client.multi().getBuffer('huge').del('huge').exec();
  say('big', answers[0][1].length, answers[1][1]);
}

async function ends(client) {
  say('quit', await client.quit());
}

async function main() {
  const url = process.argv[2];
  const [client, other] = [connect(url), connect(url)];
  await Promise.all([client.connect(), other.connect()]);
  say('empty', await client.flushall());
  await logins(url);
  for (const check of [values, errors, pipelines, streams, scripts, loops, big]) await check(client);
  await transactions(client, other);
  await subscriptions(url, client);
  await blocking(client, other);
  await ends(client);
  other.disconnect();
  say('end');
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
