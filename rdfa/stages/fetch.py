"""`rdfa fetch`: fill the folders of runs' data sets; `--dry-run`: say what that would take."""

from pathlib import Path

from rdfa.data.fetch import fetch
from rdfa.data.fill import Plan, as_bytes, plan
from rdfa.data.sources.archive import local_archive
from rdfa.data.sources.beside import asked_for
from rdfa.errors import RdfaError
from rdfa.identity import data_name, keys, paths
from rdfa.schema import Run


def fetch_stage(run: Run, root: Path, archive: Path | None) -> Path:
    """Fill the data set's folder from its source; returns the manifest's path."""
    return fetch(run, paths(run, root).data, keys(run).fetch, archive)


def outlook_stage(runs: list[Run], root: Path) -> str:
    """What fetching the runs' data sets would do, as text. Writes nothing; asks the Hub."""
    lines: list[str] = []
    plans: list[Plan] = []
    for run in runs:
        where = paths(run, root)
        if where.manifest.exists():
            lines.append(f"{data_name(run)}: is there ({where.manifest})")
        elif run.source.kind != "hub":
            lines.append(f"{data_name(run)}: to {where.data}\n  from      {_origin(run)}")
        else:
            lines.append(f"{data_name(run)}: to {where.data}")
            try:
                plans.append(plan(run, where.data.resolve()))
                lines += _features(run, plans[-1])
            except RdfaError as error:
                lines.append(f"  features  cannot be told: {error}")
            asked = asked_for(run, where.data)
            lines += ["  by hand   " + each.replace("\n", "\n        ") for each in asked]
    if len(plans) > 1:
        # One after the other: a data set's parts are removed before the next begins.
        parts = max(each.missing for each in plans)
        lines.append(
            f"in all: {as_bytes(sum(each.missing for each in plans))} to download; on one disk they need about "
            f"{as_bytes(parts + sum(each.store for each in plans))}"
        )
    return "\n".join(lines) + "\n"


def _origin(run: Run) -> str:
    """Where the data of other sources than the Hub comes from."""
    if run.source.own is not None:
        return f"{run.source.own.annotations} and {run.source.own.features}"
    if run.source.kind == "hapt" and run.source.archive is not None:
        return f"{local_archive(run.source.archive, None) or run.source.archive.url}"
    return "its parameters: planted here"


def _features(run: Run, coming: Plan) -> list[str]:
    assert run.source.hub is not None
    if coming.listing is None and run.source.hub.repository is None and not coming.by_hand:
        return []  # asked for below
    if coming.listing is None:
        return ["  features  are there" + (", put in place by hand" if coming.by_hand else "")]
    pinned = "" if run.source.hub.revision else " (what main is now; source.hub.revision pins it)"
    return [
        f"  features  from {coming.listing.repository} at commit {coming.listing.commit}{pinned}",
        f"            {len(coming.listing.parts)} parts, {as_bytes(coming.listing.size)}, of which "
        f"{as_bytes(coming.missing)} are to be downloaded; then about {as_bytes(coming.store)} of features.h5",
        f"  disk      {as_bytes(coming.missing + coming.store)} needed, {as_bytes(coming.free)} free: "
        + ("enough" if coming.fits else "NOT ENOUGH, nothing will be begun"),
    ]
