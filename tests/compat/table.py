#!/usr/bin/env python3
"""Reads the logs of the suites, compares the modes, prints the table. A helper of run.sh."""

import argparse
import collections
import pathlib
import re
import sys
import xml.etree.ElementTree

# Per table: its mark in the document, its suites, and its modes with their headings.
TABLES = [
    (
        "suites",
        ["regress", "libpq_pipeline", "asyncpg"],
        {
            "direct": "directly",
            "relay": "relay",
            "terminated": "terminated SCRAM + TLS",
            "opened": "relay, doors opened by a rule",
        },
    ),
    (
        "suites of Redis",
        ["redis_tcl", "redis_py_2", "redis_py_3"],
        {
            "direct": "directly",
            "opened": "relay, doors opened by a rule",
            "terminated": "terminated password + TLS, doors opened by a rule",
        },
    ),
]


# So many tests of one reason are named; the results name all.
TESTS_MAX = 12


def read_regress(log):
    """`     strings   ... FAILED  1073 ms`, also behind `test` and `parallel group`."""
    for line in log.splitlines():
        found = re.match(r"^(?:test)?\s+(\S+)\s+\.\.\. (ok|FAILED|failed)\b", line)
        if found:
            yield found[1], "ok" if found[2] == "ok" else "failed"


def read_libpq_pipeline(log):
    for line in log.splitlines():
        if line.startswith("RESULT "):
            _, test, result = line.split()
            yield test, result


def read_asyncpg(log):
    yield from read_junit(log, lambda classname: classname.split(".")[-1])


def read_junit(log, shorten):
    """JUnit reports: of all tests, then of further tries of those that failed."""
    for report in re.findall(r"<testsuites.*?</testsuites>", log, re.DOTALL):
        for case in xml.etree.ElementTree.fromstring(report).iter("testcase"):
            name = f"{shorten(case.get('classname', ''))}.{case.get('name')}"
            kinds = {child.tag for child in case}
            if kinds & {"failure", "error"}:
                yield name, "failed"
            else:
                yield name, "skipped" if "skipped" in kinds else "ok"


def read_redis_tcl(log):
    """`[ok]: name (3 ms)`, `[err]: name in file`, with colours; units announce themselves."""
    unit, seen = "", collections.Counter()
    for line in re.sub(r"\x1b\[[0-9;]*m", "", log).splitlines():
        if found := re.match(r"^\[?Testing (\S+?)\]?$", line):
            unit = found[1]
        elif found := re.match(r"^\[(ok|err|exception|timeout)\]: (.*)", line):
            name = re.sub(r" (\(\d+ ms\)|in tests/\S+)$", "", found[2])
            seen[unit, name] += 1
            again = f" #{seen[unit, name]}" if seen[unit, name] > 1 else ""
            yield f"{unit}: {name}{again}", "ok" if found[1] == "ok" else "failed"


def read_redis_py(log):
    """The same by module: classes of the synchronous and the asynchronous tests share names."""
    yield from read_junit(log, lambda classname: classname.removeprefix("tests."))


READERS = {
    "regress": read_regress,
    "libpq_pipeline": read_libpq_pipeline,
    "asyncpg": read_asyncpg,
    "redis_tcl": read_redis_tcl,
    "redis_py_2": read_redis_py,
    "redis_py_3": read_redis_py,
}


def read(suite, log, out):
    text = pathlib.Path(log).read_text(errors="replace")
    results = dict(READERS[suite](text))
    pathlib.Path(out).write_text("".join(f"{t}\t{r}\n" for t, r in results.items()))
    counts = collections.Counter(results.values())
    print("   ", ", ".join(f"{n} {what}" for what, n in sorted(counts.items())) or "no result")
    for test, result in results.items():
        if result == "failed":
            print(f"      failed: {test}")


def rows(path):
    lines = path.read_text().splitlines() if path.exists() else []
    return [line.split("\t") for line in lines if line and not line.startswith("#")]


def explain(differences, suite, mode, test):
    for its_suite, its_mode, its_test, why in differences:
        if re.fullmatch(its_suite, suite) and re.fullmatch(its_mode, mode) and re.fullmatch(its_test, test):
            return why
    return None


def table(suites, modes, results, differences, versions):
    """One table's lines, and the differences nobody explained; no lines if nothing was run."""
    lines = ["| suite | version | " + " | ".join(modes.values()) + " |"]
    lines.append("|---" * (len(modes) + 2) + "|")
    notes, unexplained, run_any = [], [], False
    for suite in suites:
        runs = {mode: dict(rows(results / f"{suite}.{mode}.tsv")) for mode in modes}
        run_any = run_any or any(runs.values())
        cells = [cell(runs[mode]) for mode in modes]
        lines.append(f"| {suite} | {versions.get(suite, '?')} | " + " | ".join(cells) + " |")
        for mode in modes:
            if mode != "direct" and runs[mode]:
                found, missing = compare(suite, mode, runs, differences)
                notes += found
                unexplained += missing
        for test, result in runs["direct"].items():
            if result == "failed":
                why = explain(differences, suite, "direct", test) or "fails without the proxy"
                notes.append((suite, "directly", test, why))
    lines += ["", *shown(notes)]
    return (lines if run_any else []), unexplained


def shown(notes):
    """One line for the tests of a suite and mode that have one reason."""
    if not notes:
        return ["No test passes directly and fails through the proxy."]
    groups = collections.defaultdict(list)
    for suite, way, test, why in notes:
        groups[suite, way, why].append(f"`{test}`")
    lines = []
    for (suite, way, why), tests in groups.items():
        more = f" and {len(tests) - TESTS_MAX} more" if len(tests) > TESTS_MAX else ""
        lines.append(f"- {suite}, {way}: {', '.join(tests[:TESTS_MAX])}{more}. {why}")
    return lines


def cell(run):
    counted = [result for result in run.values() if result != "skipped"]
    skipped = len(run) - len(counted)
    note = f", {skipped} skipped" if skipped else ""
    return f"{counted.count('ok')} of {len(counted)}{note}" if run else "not run"


def compare(suite, mode, runs, differences):
    notes, unexplained = [], []
    for test, direct in runs["direct"].items():
        through = runs[mode].get(test, "missing")
        if through == direct or direct == "failed":
            continue
        why = explain(differences, suite, mode, test)
        notes.append((suite, f"{mode}, {through}", test, why or "**not explained**"))
        if why is None:
            unexplained.append(f"{suite} {mode} {test}: {through}, directly {direct}")
    return notes, unexplained


def write(document, mark, lines):
    begin, end = f"<!-- {mark}: begin -->", f"<!-- {mark}: end -->"
    text = document.read_text()
    head, rest = text.split(begin, 1)
    _, tail = rest.split(end, 1)
    document.write_text("\n".join([head + begin, *lines, end + tail]))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--read")
    parser.add_argument("--log")
    parser.add_argument("--out")
    parser.add_argument("--results", type=pathlib.Path)
    parser.add_argument("--differences", type=pathlib.Path)
    parser.add_argument("--versions", type=pathlib.Path)
    parser.add_argument("--write", type=pathlib.Path)
    given = parser.parse_args()
    if given.read:
        read(given.read, given.log, given.out)
        return 0
    versions = sorted(given.versions.glob("versions*.tsv"))
    versions = dict(row for path in versions for row in rows(path))
    differences, unexplained = rows(given.differences), []
    for mark, suites, modes in TABLES:
        lines, missing = table(suites, modes, given.results, differences, versions)
        unexplained += missing
        print("\n".join(["", *lines]))
        if given.write and lines:
            write(given.write, mark, lines)
    for difference in unexplained:
        print(f"not explained: {difference}", file=sys.stderr)
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(main())
