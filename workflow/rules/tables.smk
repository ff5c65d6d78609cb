# metrics -> tables, as CSV, Markdown and LaTeX, averages for DVC and training curves. Stale ones are set aside (runs.smk).


rule table:
    input:
        metrics_of,
    output:
        csv=report(
            "results/{table}.csv",
            caption="../report/table.rst",
            category=lambda wildcards: SHOWN[wildcards.table],
            labels={"no.": "02", "what": "The table as CSV", "data set": "all"},
        ),
        markdown="results/{table}.md",
        latex="results/{table}.tex",
        averages="results/{table}.json",
        curves="results/{table}-curves.csv",
    log:
        "logs/tables/{table}.log",
    benchmark:
        "logs/benchmarks/tables/{table}.tsv"
    localrule: True
    threads: 1
    resources:
        gpu=0,
        mem_mb=1000,
        runtime=10,
    params:
        key=lambda wildcards: table_key(TABLES[wildcards.table]),
        scale=SCALE,
    message:
        "table {wildcards.table}"
    shell:
        "rdfa table {wildcards.table:q} {params.scale} 2>&1 | tee -i {log:q}"
