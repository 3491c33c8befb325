"""What the Python drivers' tests share."""

import argparse
import os

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
