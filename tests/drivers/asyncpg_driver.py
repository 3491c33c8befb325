"""asyncpg: everything a program does with it, said aloud.

Prints one line per observation. The tests run it against a server and against the proxy: the
lines must be the same. asyncpg speaks binary only, pipelines what it can, and caches statements.
"""

import asyncio
import datetime
import io
import time

import asyncpg
from common import BIG, CHANNEL, arguments, say, values_with

VALUES = values_with('{"a": [1, null, "ü"], "b": {"c": 1.5}}')


async def values(connection):
    for name, value in VALUES:
        statement = await connection.prepare(f"select $1::{name} as v")
        row = await statement.fetchrow(value)
        say("value", name, row["v"], statement.get_attributes(), statement.get_parameters())
        assert row["v"] == value or repr(row["v"]) == repr(value), (name, value, row)
    row = await connection.fetchrow("select row(1, 'a', null::int) r, int4range(1, 9) g, point(1, 2)")
    say("composite", tuple(row))


async def cursors(connection):
    async with connection.transaction():
        rows = [r[0] async for r in connection.cursor("select generate_series(1, 100)", prefetch=7)]
        say("cursor", sum(rows))
        cursor = await connection.cursor("select generate_series(1, $1::int)", 50)
        say("fetch", await cursor.fetch(3), await cursor.forward(10), await cursor.fetchrow())


async def pipelines(connection):
    await connection.execute("create temp table piped(n int primary key, t text)")
    many = [(n, f"row {n}") for n in range(3000)]
    await connection.executemany("insert into piped values ($1, $2)", many)
    say("many", await connection.fetchval("select count(*) from piped"))
    try:
        await connection.executemany("insert into piped values ($1, $2)", [(9000, ""), (7, "")])
    except asyncpg.UniqueViolationError as error:
        say("many failed", error.sqlstate, error.detail, error.constraint_name)
    say("rolled back", await connection.fetchval("select count(*) from piped"))
    rows = await connection.fetchmany("insert into piped values ($1, $2) returning n",
                                      [(n, "") for n in range(5000, 5100)])
    say("fetchmany", len(rows))


async def copies(connection):
    await connection.execute("create temp table copied(id int, name text, at timestamptz)")
    at = datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)
    records = [(n, f"name {n}", at) for n in range(3000)] + [(None, None, None)]
    say("binary in", await connection.copy_records_to_table("copied", records=records))
    text = io.BytesIO(b"7000\ta\\tb\t\\N\n" * 500)
    say("text in", await connection.copy_to_table("copied", source=text))
    csv = io.BytesIO(b'id,name,at\n8000,"a ""b"", c",\n')
    say("csv in", await connection.copy_to_table("copied", source=csv, format="csv", header=True))
    for kind in ("text", "csv", "binary"):
        out = io.BytesIO()
        query = "select * from copied where id < $1 order by id"
        tag = await connection.copy_from_query(query, 2500, output=out, format=kind)
        say("out", kind, tag, len(out.getvalue()), out.getvalue()[-60:])
    try:
        await connection.copy_to_table("copied", source=io.BytesIO(b"1\n"))
    except asyncpg.PostgresError as error:
        say("copy error", error.sqlstate, str(error), error.context)
    try:
        await connection.copy_records_to_table("copied", records=[("x", 1, 2)])
    except (asyncpg.DataError, TypeError) as error:
        say("copy given up", type(error).__name__)
    say("copied", await connection.fetchval("select count(*) from copied"))


async def notifications(connection, other):
    seen, done = [], asyncio.Event()

    def heard(_connection, pid, channel, payload):
        seen.append((pid == other.get_server_pid(), channel == CHANNEL, payload))
        if len(seen) == 3:
            done.set()

    await connection.add_listener(CHANNEL, heard)
    knock = "select pg_notify($1, 'knock ' || n) from generate_series(1, 3) n"
    await other.fetch(knock, CHANNEL)
    await asyncio.wait_for(done.wait(), 20)
    say("notify", seen)
    await connection.remove_listener(CHANNEL, heard)


async def cancels(connection):
    began = time.monotonic()
    try:
        await connection.fetchval("select pg_sleep(30)", timeout=0.3)
    except asyncio.TimeoutError:
        say("timeout")
    say("after timeout", await connection.fetchval("select 1"))
    task = asyncio.create_task(connection.fetchval("select pg_sleep(30)"))
    await asyncio.sleep(0.3)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        say("cancelled")
    say("after cancel", await connection.fetchval("select 2"))
    assert time.monotonic() - began < 15


async def errors(connection):
    for text in [
        "select 1 frm a b c",
        "select 'ü', nowhere from pg_class",
        "select * from nowhere",
        "select 1/0",
        "drop operator === (int4)",
        "insert into piped values (1)",
    ]:
        for run in (connection.execute, connection.fetch):
            try:
                await run(text)
            except asyncpg.PostgresError as error:
                say("error", error.sqlstate, error.message, error.position, error.detail, error.hint)
    try:
        async with connection.transaction():
            await connection.fetch("selct")
    except asyncpg.PostgresSyntaxError:
        say("rolled back", await connection.fetchval("select 3"))
    await connection.execute("create temp table changing as select 1 as a")
    statement = await connection.prepare("select * from changing")
    await connection.execute("alter table changing add b text")
    try:
        await statement.fetch()
    except asyncpg.PostgresError as error:
        say("stale", error.sqlstate, error.message)


async def big(connection):
    began = time.monotonic()
    say("big result", len(await connection.fetchval(f"select repeat('x', {BIG})")))
    say("big text", await connection.fetchval("select length($1::text)", "y" * BIG))
    say("big bytea", await connection.fetchval("select length($1::bytea)", b"y" * BIG))
    assert time.monotonic() - began < 60


async def encodings(given):
    for encoding, text in {"latin1": "Grüße", "euc_jp": "日本語", "utf-8": "ü"}.items():
        settings = {"client_encoding": f"'{encoding}'"}
        connection = await asyncpg.connect(given.conninfo, server_settings=settings)
        try:
            say("encoding", encoding, await connection.fetchrow("select $1::text, 'a'", text))
        except asyncpg.PostgresError as error:
            say("encoding", encoding, error.sqlstate)
        finally:
            await connection.close()


async def main():
    given = arguments(__doc__)
    connection = await asyncpg.connect(given.conninfo)
    other = await asyncpg.connect(given.conninfo)
    for check in (values, cursors, pipelines, copies):
        await check(connection)
    await notifications(connection, other)
    for check in (cancels, errors, big):
        await check(connection)
    await connection.reset()
    await asyncio.gather(connection.close(), other.close())
    await encodings(given)
    say("end")


if __name__ == "__main__":
    asyncio.run(main())
