# The workflow's front door: `snakemake --cores all results/table1.csv`, or `tables` for all (docs/workflow.md).
from snakemake.utils import min_version

min_version("9.21")


# Only used with `--software-deployment-method apptainer`: docker build -f workflow/Dockerfile -t rdfa:0.1.0 .
container: "docker-daemon://rdfa:0.1.0"


include: "workflow/rules/runs.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/tables.smk"
include: "workflow/rules/report.smk"


rule all:
    default_target: True
    input:
        rules.tables.input,
