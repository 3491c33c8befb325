#!/usr/bin/env python3
"""Reads the logs of the suites, compares the modes, prints the table. A helper of run.sh."""

import argparse
import collections
import pathlib
import re
import sys
import xml.etree.ElementTree

SUITES = ["regress", "libpq_pipeline", "asyncpg"]
MODES = ["direct", "relay", "terminated", "opened"]
BEGIN, END = "<!-- suites: begin -->", "<!-- suites: end -->"


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
    """JUnit reports: of all tests, then of further tries of those that failed."""
    for report in re.findall(r"<testsuites.*?</testsuites>", log, re.DOTALL):
        for case in xml.etree.ElementTree.fromstring(report).iter("testcase"):
            name = f"{case.get('classname', '').split('.')[-1]}.{case.get('name')}"
            kinds = {child.tag for child in case}
            if kinds & {"failure", "error"}:
                yield name, "failed"
            else:
                yield name, "skipped" if "skipped" in kinds else "ok"


READERS = {
    "regress": read_regress,
    "libpq_pipeline": read_libpq_pipeline,
    "asyncpg": read_asyncpg,
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
        if its_suite == suite and re.fullmatch(its_mode, mode) and re.fullmatch(its_test, test):
            return why
    return None


def table(results, differences, versions):
    """The table's lines, and the differences nobody explained."""
    versions = dict(rows(versions))
    lines = [
        "| suite | version | directly | relay | terminated SCRAM + TLS | relay, doors opened by a rule |",
        "|---|---|---|---|---|---|",
    ]
    notes, unexplained = [], []
    for suite in SUITES:
        runs = {mode: dict(rows(results / f"{suite}.{mode}.tsv")) for mode in MODES}
        cells = []
        for mode in MODES:
            run = {test: result for test, result in runs[mode].items() if result != "skipped"}
            passed = sum(result == "ok" for result in run.values())
            skipped = len(runs[mode]) - len(run)
            note = f", {skipped} skipped" if skipped else ""
            cells.append(f"{passed} of {len(run)}{note}" if runs[mode] else "not run")
            if mode != "direct" and runs[mode]:
                found, missing = compare(suite, mode, runs, differences)
                notes += found
                unexplained += missing
        lines.append(f"| {suite} | {versions.get(suite, '?')} | " + " | ".join(cells) + " |")
        for test, result in runs["direct"].items():
            if result == "failed":
                why = explain(differences, suite, "direct", test) or "fails without the proxy"
                notes.append(f"- {suite}, `{test}`, directly: {why}")
    lines += ["", *(notes or ["No test passes directly and fails through the proxy."])]
    return lines, unexplained


def compare(suite, mode, runs, differences):
    notes, unexplained = [], []
    for test, direct in runs["direct"].items():
        through = runs[mode].get(test, "missing")
        if through == direct or direct == "failed":
            continue
        why = explain(differences, suite, mode, test)
        notes.append(f"- {suite}, `{test}`, {mode}: {through}. {why or '**not explained**'}")
        if why is None:
            unexplained.append(f"{suite} {mode} {test}: {through}, directly {direct}")
    return notes, unexplained


def write(document, lines):
    text = document.read_text()
    head, rest = text.split(BEGIN, 1)
    _, tail = rest.split(END, 1)
    document.write_text("\n".join([head + BEGIN, *lines, END + tail]))


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
    lines, unexplained = table(given.results, rows(given.differences), given.versions)
    print("\n".join(["", *lines]))
    if given.write:
        write(given.write, lines)
    for difference in unexplained:
        print(f"not explained: {difference}", file=sys.stderr)
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(main())
