# source -> annotations.json + features.h5. The manifest is written last and carries the data's key in its name.


rule fetch:
    output:
        manifest="data/{data}/manifest-{key}.json",
    log:
        "logs/fetch/{data}-{key}.log",
    benchmark:
        "logs/benchmarks/fetch/{data}-{key}.tsv"
    threads: 1
    resources:
        gpu=0,
        mem_mb=lambda wildcards, attempt: 2000 * attempt,
        runtime=600,
    params:
        run=lambda wildcards: command_line(*DATA[wildcards.data, wildcards.key]),
    message:
        "fetch {wildcards.data}"
    shell:
        "rdfa fetch {params.run:q} 2>&1 | tee -i {log}"
