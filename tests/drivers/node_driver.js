// node-postgres: everything a program does with it, said aloud.
//
// Prints one line per observation. The tests run it against a server and against the proxy: the
// lines must be the same. The password is in PGPASSWORD, the server in the first argument.
'use strict';

const assert = require('node:assert');
const { pipeline } = require('node:stream/promises');
const { Readable, Writable } = require('node:stream');
const { Client } = require('pg');
const Cursor = require('pg-cursor');
const QueryStream = require('pg-query-stream');
const { from: copyFrom, to: copyTo } = require('pg-copy-streams');

const BIG = 100 * 1024 * 1024;
// Two runs may share a database: each hears itself only.
const CHANNEL = `door_${process.pid}`;

const say = (what, ...seen) => console.log(what, ...seen.map((one) => JSON.stringify(one)));

const shown = (error) => [
  error.code, error.message, error.position, error.detail, error.hint, error.where,
  error.severity, error.constraint,
];

async function failing(what, promise) {
  try {
    await promise;
    say(what, 'no error');
  } catch (error) {
    say(what, ...shown(error));
  }
}

async function values(client) {
  const all = [
    ['int8', '-4611686018427387904'], ['float8', 1.0000000000000002],
    ['numeric', '-12345678901234567890.000123400'], ['numeric', 'NaN'],
    ['text', 'Grüße, 世界 \'"\\'], ['bytea', Buffer.from([0, 1, 254, 255])], ['bool', true],
    ['timestamptz', new Date('2026-07-31T12:00:00.001Z')],
    ['uuid', '01234567-89ab-cdef-0123-456789abcdef'],
    ['jsonb', JSON.stringify({ a: [1, null, 'ü'], b: { c: 1.5 } })],
    ['int4[]', [1, null, 3]], ['text[]', [['a', 'b"'], ['', 'c,d']]], ['text', null],
  ];
  for (const binary of [false, true]) {
    for (const [type, value] of all) {
      // Its parser of binary values knows few types; what it makes of them is not the point.
      const result = await client.query({ text: `select $1::${type} as v`, values: [value], binary });
      const field = result.fields[0];
      say('value', type, binary, result.rows[0].v, field.dataTypeID, field.format);
    }
  }
  for (let n = 0; n < 10; n += 1) {
    const named = { name: 'kept', text: 'select $1::int + 1 as n', values: [n] };
    assert.strictEqual((await client.query(named)).rows[0].n, n + 1);
  }
  const several = await client.query("select 1 as a; select 'b' as b; create temp table s(n int)");
  say('several', several.map((result) => [result.command, result.rowCount, result.rows]));
  say('empty', (await client.query('')).rows, (await client.query('-- nothing')).command);
}

async function cursors(client) {
  const cursor = client.query(new Cursor('select g from generate_series(1, $1::int) g', [100]));
  say('cursor', (await cursor.read(7)).map((row) => row.g), (await cursor.read(50)).length);
  await cursor.close();
  say('after cursor', (await client.query('select 1 as n')).rows);
  let sum = 0;
  const stream = new QueryStream('select g from generate_series(1, 1000) g', [], { batchSize: 64 });
  for await (const row of client.query(stream)) sum += row.g;
  say('stream', sum);
  const failed = client.query(new Cursor('select 10 / (50 - g) from generate_series(1, 100) g'));
  say('cursor', (await failed.read(10)).length);
  await failing('cursor error', failed.read(100));
}

async function queues(client) {
  await client.query('create temp table piped(n int primary key)');
  const inserts = Array.from({ length: 300 }, (_, n) =>
    client.query('insert into piped values ($1)', [n]));
  const bad = client.query('insert into piped values (7)').catch((error) => error.code);
  const count = client.query('select count(*) from piped');
  await Promise.all(inserts);
  say('queue', await bad, (await count).rows);
}

async function copies(client) {
  await client.query('create temp table copied(id int, name text)');
  const lines = Array.from({ length: 2000 }, (_, n) => `${n}\tname ${n}\n`);
  await pipeline(Readable.from(lines), client.query(copyFrom('copy copied from stdin')));
  const csv = client.query(copyFrom('copy copied from stdin (format csv)'));
  await pipeline(Readable.from(['5000,"a ""b"", c"\n', '5001,\n']), csv);
  for (const options of ['', '(format csv, header)', '(format binary)']) {
    const chunks = [];
    const keep = new Writable({ write(chunk, _, done) { chunks.push(chunk); done(); } });
    const sql = `copy (select * from copied order by id) to stdout ${options}`;
    await pipeline(client.query(copyTo(sql)), keep);
    const all = Buffer.concat(chunks);
    say('copy', options, all.length, all.subarray(-40).toString('latin1'));
    if (options === '(format binary)') {
      await pipeline(Readable.from([all]), client.query(copyFrom(`copy copied from stdin ${options}`)));
    }
  }
  const short = client.query(copyFrom('copy copied from stdin'));
  await failing('copy error', pipeline(Readable.from(['1\n']), short));
  say('copied', (await client.query('select count(*) from copied')).rows);
}

async function notifications(client, other) {
  const seen = [];
  const heard = new Promise((resolve) => {
    client.on('notification', (message) => {
      seen.push([message.channel === CHANNEL, message.payload, message.processId === other.processID]);
      if (seen.length === 3) resolve();
    });
  });
  const notices = [];
  client.on('notice', (notice) => notices.push([notice.severity, notice.message]));
  await client.query(`listen ${CHANNEL}`);
  const knock = "select pg_notify($1, 'knock ' || n) from generate_series(1, 3) n";
  await other.query(knock, [CHANNEL]);
  await heard;
  await client.query("do $$ begin raise notice 'hello'; raise warning 'w'; end $$");
  say('notify', seen, notices);
}

async function cancels(client, config) {
  const began = Date.now();
  const sleeping = client.query('select pg_sleep(30)');
  const outcome = failing('cancel', sleeping);
  await new Promise((resolve) => { setTimeout(resolve, 300); });
  const messenger = new Client(config);
  // The server signals twice before it closes: the second time may hit a later statement.
  const delivered = new Promise((resolve) => { messenger.connection.once('end', resolve); });
  messenger.cancel(client, client.activeQuery || client._activeQuery);
  await outcome;
  await delivered;
  assert(Date.now() - began < 15000);
  say('after cancel', (await client.query('select 1 as n')).rows);
}

async function errors(client) {
  const texts = [
    'select 1 frm a b c', "select 'ü', nowhere from pg_class", 'select * from nowhere', 'select 1/0',
    'drop operator === (int4)', 'insert into piped values (1)', "select 'x'::int",
  ];
  for (const text of texts) {
    await failing('error', client.query(text));
    await failing('error', client.query({ text, values: [] , name: '' }));
  }
  await client.query('begin');
  await failing('in transaction', client.query('selct'));
  await failing('aborted', client.query('select 1'));
  await client.query('rollback');
}

async function big(client) {
  const began = Date.now();
  say('big result', (await client.query(`select repeat('x', ${BIG}) as v`)).rows[0].v.length);
  const text = 'y'.repeat(BIG);
  say('big text', (await client.query('select length($1::text) as n', [text])).rows);
  const bytes = Buffer.alloc(BIG, 7);
  say('big bytea', (await client.query('select length($1::bytea) as n', [bytes])).rows);
  assert(Date.now() - began < 60000);
}

async function encodings(config) {
  // It writes and reads UTF-8 whatever it asks for: only ASCII means the same.
  const client = new Client({ ...config, client_encoding: 'LATIN1', options: '-c extra_float_digits=0' });
  await client.connect();
  const sql = "select getdatabaseencoding() as d, current_setting('client_encoding') as c, " +
    "convert_to(chr(252), 'UTF8') as u, 0.1::float4::float8 as f";
  say('encoding', (await client.query(sql)).rows);
  await client.end();
}

async function main() {
  const config = { connectionString: process.argv[2], password: process.env.PGPASSWORD };
  if (process.env.DRIVER_CA) {
    config.ssl = { ca: require('node:fs').readFileSync(process.env.DRIVER_CA, 'utf8') };
  }
  const [client, other] = [new Client(config), new Client(config)];
  await Promise.all([client.connect(), other.connect()]);
  for (const check of [values, cursors, queues, copies]) await check(client);
  await notifications(client, other);
  await cancels(client, config);
  for (const check of [errors, big]) await check(client);
  await Promise.all([client.end(), other.end()]);
  await encodings(config);
  say('end');
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
