#!/usr/bin/env python3
"""Prints commands.tsv: the commands of Redis and Valkey as the servers' own specifications tell.

Every argument is `NAME=DIR`, DIR being an unpacked source tree with src/commands/*.json; the first
is the base, a later one adds commands and says where it differs. Review the difference line by line:
  generate.py redis-7.0=DIR valkey-8.1=DIR > commands.tsv
"""

import json
import pathlib
import sys

HEADER = """\
# Commands as the servers' own specifications tell; printed by generate.py, not written by hand.
# name: full name in lower case, a subcommand after a bar.
# servers: which of the specifications have it.
# since: the first release with it.
# arity: arguments with the name; negative: at least so many.
# flags, categories: as COMMAND tells them, without the `@`; `-` for none.
# keys: one specification after another, `;` between: flags@begin/find. begin: a position, or
#   KEYWORD>position to search it from; find: last,step,limit counted from begin, or
#   num(at,first,step) where a number tells how many; `?` where the specification cannot tell.
# differs: what another server's specification says differently; `-` for nothing.
# name	servers	since	arity	flags	categories	keys	differs
"""


def read(directory):
    commands = {}
    for file in sorted(pathlib.Path(directory, "src/commands").glob("*.json")):
        for name, spec in json.loads(file.read_text()).items():
            container = spec.get("container")
            full = (f"{container}|{name}" if container else name).lower()
            if "ONLY_SENTINEL" not in spec.get("command_flags", []):
                commands[full] = spec
    return commands


def words(values):
    return ",".join(sorted({value.lower() for value in values})) or "-"


def categories(spec):
    """With those a server derives from the flags (setImplicitACLCategories)."""
    flags = set(spec.get("command_flags", []))
    found = set(spec.get("acl_categories", []))
    found |= {"WRITE"} & flags
    if "READONLY" in flags and "SCRIPTING" not in found:
        found.add("READ")
    if "ADMIN" in flags:
        found |= {"ADMIN", "DANGEROUS"}
    found |= {"PUBSUB", "FAST", "BLOCKING"} & flags
    if "FAST" not in found:
        found.add("SLOW")
    return words(found)


def key(spec):
    begin, find = spec["begin_search"], spec["find_keys"]
    if "index" in begin:
        start = str(begin["index"]["pos"])
    elif "keyword" in begin:
        start = f"{begin['keyword']['keyword']}>{begin['keyword']['startfrom']}"
    else:
        start = "?"
    if "range" in find:
        end = ",".join(str(find["range"][part]) for part in ("lastkey", "step", "limit"))
    elif "keynum" in find:
        parts = (find["keynum"][part] for part in ("keynumidx", "firstkey", "step"))
        end = f"num({','.join(map(str, parts))})"
    else:
        end = "?"
    return f"{words(spec['flags'])}@{start}/{end}"


def columns(spec):
    return {
        "arity": str(spec["arity"]),
        "flags": words(spec.get("command_flags", [])),
        "categories": categories(spec),
        "keys": ";".join(key(each) for each in spec.get("key_specs", [])) or "-",
    }


def main():
    servers = [argument.split("=", 1) for argument in sys.argv[1:]]
    if not servers:
        sys.exit(__doc__)
    read_all = {name: read(directory) for name, directory in servers}
    lines = []
    for name in sorted(set().union(*read_all.values())):
        have = {server: specs[name] for server, specs in read_all.items() if name in specs}
        first, *others = have
        base = columns(have[first])
        differs = []
        for server in others:
            for column, value in columns(have[server]).items():
                if value != base[column]:
                    differs.append(f"{server} {column}={value}")
        fields = [name, words(have), have[first]["since"], *base.values(), "; ".join(differs) or "-"]
        lines.append("\t".join(fields))
    sys.stdout.write(HEADER + "\n".join(lines) + "\n")


main()
