"""Growth: what each stage costs in time and memory when there is more of everything, up to the size of HACS.

In order of reading: the kinds; `record`, which writes what the whole campaign measured as a figure and a table.
The sizes of the whole campaign are a tenth, three tenths and all of HACS's videos, and not ten times as many, which
would take an hour and a half (docs/reliability.md).
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.faults.campaign import SURVIVED, WRONG, Kind, Outcome, Scene
from tests.faults.load_figure import draw, table
from tests.faults.load_growth import BOUND, GROSS, Growth, Stage, cost_of, measured
from tests.faults.load_runs import ROWS, RUNS, clone, finished
from tests.faults.load_stages import VIDEOS, make

FULL = {"videos": (37, 3_700, 11_100, 37_000), "runs": (1, 30, 90, 300), "rows": (1, 30, 90, 300)}
SHORT = {"videos": (40, 200, 800), "runs": (1, 4, 12), "rows": (1, 4, 16)}
"""All but nothing, then 1x, 3x and 10x, or in the short form less."""
MOST_MIB = 10_240
"""Nothing may need more memory than a small machine has."""
FOUND: dict[str, list[Growth]] = {}
"""By unit, what this process measured at the full sizes."""
BEGIN, END = "<!-- load -->\n", "<!-- end of load -->\n"


def by_videos(scene: Scene) -> Iterator[Outcome]:
    """A data set with HACS's counts through the pipeline."""
    yield from _grown(scene, "videos", make, VIDEOS)


def by_runs(scene: Scene) -> Iterator[Outcome]:
    """An MLflow store with ever more runs."""
    yield from _grown(scene, "runs", None, RUNS)


def by_rows(scene: Scene) -> Iterator[Outcome]:
    """A table with ever more rows: what is to be done, and the table itself."""
    yield from _grown(scene, "rows", clone, ROWS[:1])
    yield from _grown(scene, "rows", finished, ROWS[1:])


def _grown(
    scene: Scene, unit: str, prepare: Callable[[Path, int], None] | None, stages: Sequence[Stage]
) -> Iterator[Outcome]:
    sizes = (FULL if scene.full else SHORT)[unit]
    folders = [scene.folder / f"{size} {unit}" for size in sizes]
    for folder, size in zip(folders, sizes, strict=True):
        folder.mkdir(exist_ok=True)
        if prepare is not None:
            cost_of(Stage(name="preparation", work=prepare), folder, size)
    for stage in stages:
        bounds = {"seconds": BOUND, "mib": BOUND} if scene.full else {"calls": BOUND, "mib": GROSS, "seconds": GROSS}
        growth = measured(stage, folders, sizes, bounds)
        if scene.full:
            FOUND.setdefault(unit, []).append(growth)
            print(table({unit: [growth]}).splitlines()[2], flush=True)  # it takes an hour: what has come so far
        wrong = growth.worse_than(bounds)
        most = max(growth.column("mib"))
        wrong += [f"{stage.name}: {most:,.0f} MiB at {sizes[-1]:,} {unit}"] if most > MOST_MIB else []
        yield Outcome(WRONG, "; ".join(wrong)) if wrong else Outcome(SURVIVED)


def record(page: Path) -> None:
    """Draw what was measured beside a page as load.svg, and write its slopes into the page."""
    if not FOUND:
        return
    draw(FOUND, page.with_name("load.svg"))
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(before + BEGIN + table(FOUND) + END + after, encoding="utf-8")


KINDS = (
    Kind("stages by the number of videos", by_videos, limit=7_200),  # each stage at all sizes, up to three times
    Kind("MLflow by the number of runs", by_runs, limit=600),
    Kind("snakemake -n and a table by the number of rows", by_rows, limit=600),
)
