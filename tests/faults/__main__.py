"""The campaign of faults: python -m tests.faults [--full] [--only GROUP ...] [--seed N] [--record FILE]."""

import argparse
import datetime
import importlib
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

from tests.conftest import ROOT
from tests.faults.campaign import Row, run_kind, table

GROUPS = ("crashes", "filesystem", "concurrency", "bad_data", "extremes", "hostile", "numerics", "load")
"""The modules, in the order of the table."""
BEGIN, END = "<!-- campaign -->\n", "<!-- end of campaign -->\n"


def main() -> int:
    """Run the campaign and print its table; the status is 1 when one fault was not survived."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description="break rdfa on purpose")
    parser.add_argument("--full", action="store_true", help="the whole campaign; the short form takes minutes")
    parser.add_argument("--only", nargs="+", choices=GROUPS, default=GROUPS, help="these groups alone")
    parser.add_argument("--kind", help="only kinds whose name contains this")
    parser.add_argument("--seed", type=int, default=0, help="of all random choices")
    parser.add_argument("--record", type=Path, help="a file whose table of the campaign is replaced by this one")
    asked = parser.parse_args()
    start = time.monotonic()
    rows = []
    for group in asked.only:
        for kind in importlib.import_module(f"tests.faults.{group}").KINDS:
            if asked.kind is None or asked.kind in kind.name:
                rows.append(run_kind(group.replace("_", " "), kind, asked.seed, asked.full))
                _report(rows[-1])
    print("\n" + table(rows))
    if asked.record:
        made = f"{_made_by(asked.seed, asked.full)}, {(time.monotonic() - start) / 60:.0f} minutes."
        _record(asked.record, f"{made}\n\n{table(rows)}")
        for group in asked.only:
            if record := getattr(importlib.import_module(f"tests.faults.{group}"), "record", None):
                record(asked.record)  # what a group shows beside the table: a figure
    return 0 if rows and all(row.passed for row in rows) else 1


def _report(row: Row) -> None:
    said = f"not here: {row.missing}" if row.missing else ", ".join(f"{n} {v}" for v, n in row.counts.items())
    print(f"{row.group}: {row.name}: {said} ({row.seconds:.1f} s)", flush=True)
    for failure in row.failures[:5]:
        print(failure, flush=True)


def _made_by(seed: int, full: bool) -> str:
    """What made this table: code, machine and day."""
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()
    form = "`make faults-full`" if full else "`make faults`"
    system = f"{os.cpu_count()} processors, {platform.system()}, Python {platform.python_version()}"
    return f"{form}, seed {seed}, at {described}, {datetime.date.today()}, {system}"


def _record(path: Path, text: str) -> None:
    page = path.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    path.write_text(before + BEGIN + text + END + after, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
