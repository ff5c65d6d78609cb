# metrics -> tables. A table's name holds no key, so it remembers the key of what it was made of (in its .json), and
# is made again when that is not the key of now, whatever the ages of files say.


rule table:
    input:
        metrics_of,
    output:
        csv="results/{table}.csv",
        markdown="results/{table}.md",
        averages="results/{table}.json",
        curves="results/{table}-curves.csv",
    params:
        key=lambda wildcards: table_key(TABLES[wildcards.table]),
        scale=f"--scale {config['scale']}" if "scale" in config else "",
    log:
        "logs/tables/{table}.log",
    benchmark:
        "logs/benchmarks/tables/{table}.tsv"
    localrule: True
    message:
        "table {wildcards.table}"
    shell:
        "rdfa table {wildcards.table} {params.scale} 2>&1 | tee {log}"
