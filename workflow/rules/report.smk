# tables -> figures. Both are in `snakemake --report`, in categories named and ordered as in the paper. A folder of
# figures is set aside when it is not made of the runs of now (runs.smk).


report: "../report/workflow.rst"


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
        scale=SCALE,
    message:
        "figures {wildcards.table}"
    shell:
        "rdfa figures {wildcards.table:q} {params.scale} 2>&1 | tee -i {log:q}"


rule tables:
    input:
        expand("results/{table}.csv", table=MADE),
        expand("results/figures/{table}", table=MADE),
