"""psycopg 3: everything a program does with it, said aloud.

Prints one line per observation. The tests run it against a server and against the proxy: the
lines must be the same.
"""

import datetime
import io
import threading
import time

import psycopg
from common import BIG, CHANNEL, arguments, say, values_with
from psycopg.rows import tuple_row
from psycopg.types.json import Jsonb

VALUES = values_with(Jsonb({"a": [1, None, "ü"], "b": {"c": 1.5}}))


def values(connection):
    for binary in (False, True):
        placeholder = "%b" if binary else "%t"
        cursor = connection.cursor(binary=binary)
        for name, value in VALUES:
            row = cursor.execute(f"select {placeholder}::{name}", [value]).fetchone()
            column = cursor.description[0]
            say("value", name, binary, row[0], column.type_code, cursor.pgresult.fformat(0))
            same = row[0] == value or repr(row[0]) == repr(value)
            assert same or name == "jsonb", (name, value, row)


def prepared(connection):
    for n in range(12):
        row = connection.execute("select %s::int + 1", [n], prepare=True).fetchone()
        assert row == (n + 1,)
    say("prepared", connection.execute("select count(*) from pg_prepared_statements").fetchone())


def cursors(connection):
    with connection.transaction():
        with connection.cursor("named", scrollable=True) as cursor:
            cursor.itersize = 7
            cursor.execute("select g from generate_series(1, 100) g")
            say("cursor", [row[0] for row in cursor][:8], cursor.rownumber)
        with connection.cursor("scrolled", scrollable=True) as cursor:
            cursor.execute("select g from generate_series(1, 100) g")
            first = cursor.fetchmany(3)
            cursor.scroll(-2)
            say("scroll", first, cursor.fetchmany(2), cursor.fetchone())
    rows = connection.cursor().stream("select g from generate_series(1, 1000) g", size=100)
    say("stream", sum(row[0] for row in rows))


def pipelines(connection):
    connection.execute("create temp table piped(n int primary key)")
    with connection.pipeline():
        cursor = connection.cursor()
        cursor.executemany("insert into piped values (%s)", [(n,) for n in range(500)])
        results = [connection.execute("select %s::int", [n]) for n in range(50)]
        say("pipeline", sum(result.fetchone()[0] for result in results))
    try:
        with connection.pipeline() as pipeline:
            connection.execute("insert into piped values (1000)")
            connection.execute("insert into piped values (7)")
            # The error may be here already, and then this raises it.
            connection.execute("insert into piped values (1001)")
            pipeline.sync()
    except psycopg.errors.UniqueViolation as error:
        say("pipeline error", error.sqlstate, error.diag.message_detail, error.diag.constraint_name)
    say("after", connection.execute("select count(*) from piped").fetchone())


def copies(connection):
    cursor = connection.cursor()
    cursor.execute("create temp table copied(id int, name text, at timestamptz)")
    lines = "".join(f"{n}\tname {n}\t2026-01-01 00:00:00+00\n" for n in range(2000))
    with cursor.copy("copy copied from stdin") as copy:
        for start in range(0, len(lines), 777):
            copy.write(lines[start : start + 777])
    with cursor.copy("copy copied from stdin (format csv, header)") as copy:
        copy.write('id,name,at\n5000,"a ""quoted"", name",\n')
    with cursor.copy("copy copied from stdin (format binary)") as copy:
        copy.set_types(["int4", "text", "timestamptz"])
        copy.write_row((6000, "binär", datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)))
        copy.write_row((6001, None, None))
    for options in ("", "(format csv, header, force_quote *)", "(format binary)"):
        out = io.BytesIO()
        with cursor.copy(f"copy (table copied order by id) to stdout {options}") as copy:
            for data in copy:
                out.write(data)
        say("copy", options, len(out.getvalue()), out.getvalue()[-60:])
    try:
        with cursor.copy("copy copied from stdin") as copy:
            copy.write("1\ttoo\tfew\tmany\n")
    except psycopg.Error as error:
        say("copy error", error.sqlstate, error.diag.message_primary, error.diag.context)
    try:
        with cursor.copy("copy copied from stdin") as copy:
            copy.write("7\ta\t\\N\n")
            raise ZeroDivisionError
    except ZeroDivisionError:
        say("copy given up", cursor.execute("select count(*) from copied").fetchone())


def notifications(connection, other):
    connection.execute(f"listen {CHANNEL}")
    knock = "select pg_notify(%s, 'knock ' || n) from generate_series(1, 3) n"
    other.execute(knock, [CHANNEL])
    seen = list(connection.notifies(timeout=20, stop_after=3))
    own = other.info.backend_pid
    say("notify", [(n.channel == CHANNEL, n.payload, n.pid == own) for n in seen])
    notices = []
    connection.add_notice_handler(lambda notice: notices.append(notice.message_primary))
    connection.execute("do $$ begin raise notice 'hello %', 1; raise warning 'w'; end $$")
    say("notice", notices)


def cancels(connection):
    began = time.monotonic()
    timer = threading.Timer(0.3, connection.cancel_safe)
    timer.start()
    try:
        connection.execute("select pg_sleep(30)")
    except psycopg.errors.QueryCanceled as error:
        say("cancel", error.sqlstate, error.diag.message_primary)
    timer.join()
    assert time.monotonic() - began < 15
    say("after cancel", connection.execute("select 1").fetchone())
    connection.execute("set statement_timeout = 50")
    try:
        connection.execute("select pg_sleep(30)")
    except psycopg.errors.QueryCanceled as error:
        say("timeout", error.diag.message_primary)
    connection.execute("reset statement_timeout")


def errors(connection):
    for text in [
        "select 1 frm a b c",
        "select 'ü', nowhere from pg_class",
        "select * from nowhere",
        "select 1/0",
        "select 'x'::int",
        "insert into piped values (1)",
        "select f(1, 'a')",
        "drop operator === (int4)",
        "select '1::int",
    ]:
        try:
            connection.execute(text.replace("%", "%%"))
        except psycopg.Error as error:
            diag = error.diag
            say("error", error.sqlstate, diag.message_primary, diag.statement_position,
                diag.message_detail, diag.message_hint, diag.severity_nonlocalized)
    with connection.transaction(force_rollback=True):
        try:
            connection.execute("selct")
        except psycopg.Error as error:
            say("in transaction", connection.info.transaction_status.name)
            try:
                connection.execute("select 1")
            except psycopg.Error as error:
                say("aborted", error.sqlstate)


def big(connection):
    began = time.monotonic()
    for binary in (False, True):
        cursor = connection.cursor(binary=binary)
        value = cursor.execute(f"select repeat('x', {BIG})").fetchone()[0]
        say("big result", len(value))
    value = "y" * BIG
    say("big text", connection.execute("select length(%t::text)", [value]).fetchone())
    say("big bytea", connection.execute("select length(%b::bytea)", [value.encode()]).fetchone())
    assert time.monotonic() - began < 60


def main():
    given = arguments(__doc__)
    connect = lambda: psycopg.connect(given.conninfo, autocommit=True, row_factory=tuple_row)
    with connect() as connection, connect() as other:
        for check in (values, prepared, cursors, pipelines, copies):
            check(connection)
        notifications(connection, other)
        for check in (cancels, errors, big):
            check(connection)
    say("end")


if __name__ == "__main__":
    main()
