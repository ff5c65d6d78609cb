"""The campaign of faults: python -m tests.faults [--full] [--only GROUP ...] [--seed N] [--record FILE].

With `--record` the lines of the kinds that ran take the place of theirs in the table of a document, each with the
revision of the code that it ran at; other lines stay.
"""

import argparse
import datetime
import importlib
import os
import platform
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT
from tests.faults.campaign import Row, cells_of, line, run_kind, table

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
    parser.add_argument("--record", type=Path, help="a document whose lines of these kinds are replaced")
    asked = parser.parse_args()
    revision, rows = _revision(), []
    for group in asked.only:
        module = importlib.import_module(f"tests.faults.{group}")
        kinds = [kind for kind in module.KINDS if asked.kind is None or asked.kind in kind.name]
        ran = [_report(run_kind(_spoken(group), kind, asked.seed, asked.full)) for kind in kinds]
        rows += ran
        if asked.record:
            record(asked.record, [line(row, revision) for row in ran], asked.full, asked.seed)
            if asked.kind is None and hasattr(module, "record"):
                module.record(asked.record)  # what a group shows beside the table: a figure
    print("\n" + table([line(row, revision) for row in rows]))
    for row in rows:
        for failure in row.failures[:1]:
            print(f"{failure[:200]} [...] {failure[-400:]}" if len(failure) > 700 else failure)
    print(f"{sum(row.seconds for row in rows):.0f} seconds in all")
    return 0 if rows and all(row.passed for row in rows) else 1


def _report(row: Row) -> Row:
    said = f"not here: {row.missing}" if row.missing else ", ".join(f"{n} {v}" for v, n in row.counts.items())
    print(f"{row.group}: {row.name}: {said} ({row.seconds:.1f} s)", flush=True)
    for failure in row.failures[:5]:
        print(failure, flush=True)
    return row


def _spoken(group: str) -> str:
    return group.replace("_", " ")


def _revision() -> str:
    """Of the code that is tested; the documents do not count, of which one is being written."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    changed = git("status", "--porcelain", "--", ".", ":!docs")
    return git("rev-parse", "--short=7", "HEAD") + ("-dirty" if changed else "")


def record(path: Path, lines: list[str], full: bool, seed: int) -> None:
    """Put lines into the table of a document, each in the place of its kind's former one, or at its group's end."""
    page = path.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    old, _, after = rest.partition(END)
    kinds = {tuple(cells_of(each)[:2]): each for each in old.splitlines() if cells_of(each)[0] in map(_spoken, GROUPS)}
    kinds |= {tuple(cells_of(each)[:2]): each for each in lines}
    order = [_spoken(group) for group in GROUPS]
    kept = [kinds[kind] for kind in sorted(kinds, key=lambda kind: order.index(kind[0]))]
    form = "make faults-full" if full else "make faults"
    system = f"{os.cpu_count()} processors, {platform.system()}, Python {platform.python_version()}"
    made = f"`{form}`, seed {seed}, {datetime.date.today()}, {system}; `at` is the revision that ran.\n\n"
    path.write_text(f"{before}{BEGIN}{made}{table(kept)}{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
