"""Two gigabytes by COPY in each direction, for measuring what the proxy keeps of them."""

import time

import psycopg
from common import arguments, say

BYTES = 2 * 1024 * 1024 * 1024
LINE = b"x" * 1023 + b"\n"


def main():
    given = arguments(__doc__)
    with psycopg.connect(given.conninfo, autocommit=True) as connection:
        cursor = connection.cursor()
        began = time.monotonic()
        lines = BYTES // 65536
        received = 0
        with cursor.copy(
            f"copy (select repeat('x', 65535) from generate_series(1, {lines})) to stdout"
        ) as copy:
            while data := copy.read():
                received += len(data)
        assert received == BYTES, received
        out = time.monotonic()
        cursor.execute("create temp table nothing(line text)")
        block = LINE * 1024
        with cursor.copy("copy nothing from stdin where false") as copy:
            for _ in range(BYTES // len(block)):
                copy.write(block)
        say("sent", cursor.rowcount, cursor.execute("select count(*) from nothing").fetchone())
        say("end")
        print(f"out {out - began:.1f} s, in {time.monotonic() - out:.1f} s")


if __name__ == "__main__":
    main()
