# checkpoint -> detections -> metrics. Both files carry the key of what made them in their names.


rule detect:
    input:
        manifest=lambda wildcards: ancient(str(paths_of(wildcards).manifest)),
        record=ancient("results/runs/{run}/run.json"),
        checkpoint=ancient("results/runs/{run}/checkpoint.safetensors"),
    output:
        "results/runs/{run}/detections-{key}.json",
    log:
        "logs/detect/{run}-{key}.log",
    benchmark:
        "logs/benchmarks/detect/{run}-{key}.tsv"
    threads: lambda wildcards: run_of(wildcards).runtime.threads
    resources:
        gpu=lambda wildcards: min(run_of(wildcards).runtime.gpus, 1),
        mem_mb=memory_of,
        runtime=60,
    params:
        run=arguments_of,
    message:
        "detect {wildcards.run}"
    shell:
        "rdfa detect {params.run:q} 2>&1 | tee -i {log}"


rule evaluate:
    input:
        manifest=lambda wildcards: ancient(str(paths_of(wildcards).manifest)),
        detections=lambda wildcards: ancient(str(paths_of(wildcards).detections)),
    output:
        "results/runs/{run}/metrics-{key}.json",
    log:
        "logs/evaluate/{run}-{key}.log",
    benchmark:
        "logs/benchmarks/evaluate/{run}-{key}.tsv"
    threads: 1
    resources:
        gpu=0,
        mem_mb=lambda wildcards, attempt: 1000 * attempt,
        runtime=30,
    params:
        run=arguments_of,
    message:
        "evaluate {wildcards.run}"
    shell:
        "rdfa evaluate {params.run:q} 2>&1 | tee -i {log}"
