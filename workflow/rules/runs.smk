# Which runs there are: those of all tables, at the tables' scale or the one of `--config scale=...`.
# Names and keys are made by rdfa.identity, so that the paths here are those that the commands write.
import re
import shlex
from pathlib import Path

from rdfa.data.sources.own_digest import refuse_changed
from rdfa.errors import RdfaError
from rdfa.files import read_json
from rdfa.identity import data_name, keys, paths, run_name
from rdfa.reporting.figure_index import (
    figures_folder,
    figures_key,
    keep_only_current_figures,
    shown_names,
)
from rdfa.reporting.grids import (
    elsewhere,
    keep_only_current,
    read_table,
    set_options,
    table_key,
    table_names,
)
from rdfa.snakemake_lock import remove_lock_of_killed_calls

if workflow.is_main_process:
    remove_lock_of_killed_calls()

SCALE = f"--scale {shlex.quote(str(config['scale']))}" if "scale" in config else ""
GRIDS = {}  # name -> its file with title and scale, and its rows with their runs


def entries_of(table):
    GRIDS[table] = read_table(table, scale=config.get("scale"))
    return GRIDS[table][1]


try:
    TABLES = {name: entries_of(name) for name in table_names()}
    SHOWN = shown_names()
except RdfaError as error:
    raise WorkflowError(str(error))

# The same grids on other data sets. One that cannot be (a width that a model does not take) stops nobody else.
REFUSED = {}
for name in elsewhere():
    try:
        TABLES[name] = entries_of(name)
    except RdfaError as error:
        REFUSED[name] = str(error)


def names_of(run):
    """What rules find a run by: its training's folder, and that with the key of its detections or of its metrics. Tables
    share trainings whose runs they detect with or evaluate in other ways."""
    folder, made = paths(run).folder.name, keys(run)
    return [(folder, key) for key in (None, made.detect, made.evaluate)]


RUNS = {
    name: (composed.run, entry.row)
    for entries in TABLES.values()
    for entry in entries
    for composed in entry.runs
    for name in names_of(composed.run)
}
# One run per data set and key is enough to fetch it.
DATA = {
    (data_name(run), keys(run).fetch): (run, row)
    for (_, key), (run, row) in RUNS.items()
    if key is None
}

for name, entries in TABLES.items():
    keep_only_current(Path(f"results/{name}.csv"), table_key(entries))
    keep_only_current_figures(figures_folder(name), figures_key(*GRIDS[name]))


def run_of(wildcards):
    return RUNS[wildcards.run, wildcards.get("key")][0]


# Own data sets that were looked at: once for all rows, as there may be tens of thousands of files.
UNCHANGED = set()


def current_paths(run):
    """A run's paths; refuses a user's own files that changed, for what was made of them must not pass as current."""
    where = paths(run)
    if (own := (where.data, str(run.source.own))) not in UNCHANGED:
        refuse_changed(run.dataset, run.source.own, where.data)
        UNCHANGED.add(own)
    return where


def paths_of(wildcards):
    return current_paths(run_of(wildcards))


def command_line(run, row):
    """A run as arguments of a command: its name and what its table's row changes."""
    return [run_name(run), *set_options(row)]


def arguments_of(wildcards):
    return command_line(*RUNS[wildcards.run, wildcards.get("key")])


def memory_of(wildcards, attempt):
    """A retry may have more: what a scheduler kills for its memory would only be killed again."""
    return run_of(wildcards).runtime.memory_mb * attempt


def launcher(run):
    """The command that trains a run: from two GPUs on, a process for each. Signals are passed on to all of them, and
    they have two minutes to save."""
    if run.runtime.gpus < 2:
        return "rdfa"
    return f"torchrun --standalone --nproc-per-node {run.runtime.gpus} --shutdown-timeout 120 -m rdfa"


def metrics_of(wildcards):
    if wildcards.table in REFUSED:
        raise WorkflowError(REFUSED[wildcards.table])
    return [
        ancient(str(current_paths(composed.run).metrics))
        for entry in TABLES[wildcards.table]
        for composed in entry.runs
    ]


def detections_of(wildcards):
    return [
        ancient(str(current_paths(composed.run).detections))
        for entry in TABLES[wildcards.table]
        for composed in entry.runs
    ]


def without_archives(entries):
    """Planted data is made here; anything else may have to be brought."""
    return all(
        composed.run.source.kind == "sample"
        for entry in entries
        for composed in entry.runs
    )


def figure_labels(wildcards):
    """What the report calls a file: for a figure its title and data set, from the index beside it. The report sorts by
    these words, so a number comes first."""
    listed = read_json(Path("results/figures") / wildcards.table / "index.json")[
        "figures"
    ]
    for number, figure in enumerate(listed, 3):
        if figure["file"] == f"{wildcards.shown}.svg":
            return {
                "no.": f"{number:02}",
                "what": figure["title"],
                "data set": figure["data_set"],
            }
    return {"no.": "01", "what": "The table", "data set": "all"}


# `--config scale=...` says that there is data for every table; else those that are made of planted data.
MADE = [
    name
    for name in table_names()
    if "scale" in config or without_archives(TABLES[name])
]


wildcard_constraints:
    run=r"[a-z0-9_.]+(-[a-z0-9_.]+){3}-s\d+-[0-9a-f]{8}",
    data="[a-z0-9_.-]+",
    key="[0-9a-f]{8}",
    table="|".join(map(re.escape, [*TABLES, *REFUSED])),
