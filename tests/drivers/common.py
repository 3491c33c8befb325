"""What the Python drivers' tests share."""

import argparse
import datetime
import decimal
import os
import uuid

# One value: a hundred megabytes.
BIG = 100 * 1024 * 1024
# Two runs may share a database: each hears itself only.
CHANNEL = f"door_{os.getpid()}"


def arguments(description):
    """The server, or the proxy, to talk to. The password is in PGPASSWORD."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("conninfo", help="connection string in libpq's words")
    return parser.parse_args()


def say(what, *seen):
    """Prints an observation, every value as its `repr`."""
    print(what, *(repr(one) for one in seen), flush=True)


def values_with(document):
    """Types with a value each; `document` is a jsonb as the driver takes it."""
    return [
        ("int8", -(2**62)),
        ("float8", 1.0000000000000002),
        ("numeric", decimal.Decimal("-12345678901234567890.000123400")),
        ("numeric", decimal.Decimal("NaN")),
        ("text", "Grüße, 世界 '\"\\"),
        ("bytea", bytes(range(256))),
        ("bool", True),
        ("date", datetime.date(1752, 9, 14)),
        ("timestamptz", datetime.datetime(2026, 7, 31, 12, 0, 0, 1, datetime.timezone.utc)),
        ("interval", datetime.timedelta(days=-3, microseconds=1)),
        ("uuid", uuid.UUID("0123456789abcdef0123456789abcdef")),
        ("jsonb", document),
        ("int4[]", [1, None, 3]),
        ("text[]", [["a", 'b"'], ["", "c,d"]]),
        ("numeric[]", [decimal.Decimal("1.10"), None]),
        ("text", None),
        ("jsonb", None),
    ]
