# tables -> figures. Both are in `snakemake --report`, in categories named and ordered as in the paper. A folder of
# figures is set aside when it is not made of the runs of now (runs.smk).
from rdfa.files import read_json


report: "../report/workflow.rst"


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


rule figures:
    input:
        metrics_of,
        detections_of,
        table=ancient("results/{table}.csv"),
        markdown=ancient("results/{table}.md"),
        made_of=ancient("results/{table}.json"),
    output:
        report(
            directory("results/figures/{table}"),
            patterns=["{shown,table}.html", "{shown,[a-z0-9_.-]+}.svg"],
            caption="../report/shown.rst",
            category=lambda wildcards: SHOWN[wildcards.table],
            labels=figure_labels,
        ),
    log:
        "logs/figures/{table}.log",
    benchmark:
        "logs/benchmarks/figures/{table}.tsv"
    threads: 1
    resources:
        gpu=0,
        mem_mb=lambda wildcards, attempt: 2000 * attempt,
        runtime=60,
    params:
        key=lambda wildcards: figures_key(*GRIDS[wildcards.table]),
        scale=f"--scale {config['scale']}" if "scale" in config else "",
    message:
        "figures {wildcards.table}"
    shell:
        "rdfa figures {wildcards.table} {params.scale} 2>&1 | tee -i {log}"


rule tables:
    input:
        expand("results/{table}.csv", table=MADE),
        expand("results/figures/{table}", table=MADE),
