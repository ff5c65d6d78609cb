# annotations + features -> checkpoint. The folder's name holds the key of all that decides the result, so an input's
# age means nothing: `ancient`. Progress is kept outside the outputs, in checkpoints/, and an interrupted training
# goes on from there, also when a retry starts it.


rule train:
    input:
        manifest=lambda wildcards: ancient(str(paths_of(wildcards).manifest)),
    output:
        checkpoint="results/runs/{run}/checkpoint.safetensors",
        params="results/runs/{run}/params.yaml",
        history="results/runs/{run}/history.csv",
        log="results/runs/{run}/log.txt",
        record="results/runs/{run}/run.json",
    log:
        "logs/train/{run}.log",
    benchmark:
        "logs/benchmarks/train/{run}.tsv"
    threads: lambda wildcards: run_of(wildcards).runtime.threads
    resources:
        gpu=lambda wildcards: run_of(wildcards).runtime.gpus,
        mem_mb=memory_of,
        runtime=lambda wildcards: run_of(wildcards).runtime.minutes,
    params:
        rdfa=lambda wildcards: launcher(run_of(wildcards)),
        run=arguments_of,
    message:
        "train {wildcards.run}"
    shell:
        "{params.rdfa} train {params.run:q} 2>&1 | tee -i {log}"
