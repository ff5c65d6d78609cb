"""Give one Snakemake job to Kubernetes: fill in job.yaml and hand it to kubectl; prints the job's name.

kubectl knows cluster, namespace and user. Everything else that a cluster may want differently is in job.yaml.
"""

import argparse
import json
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent


def manifest(options: argparse.Namespace) -> dict[str, Any]:
    """The Kubernetes job that runs the script in the working directory of this call."""
    job: dict[str, Any] = yaml.safe_load((HERE / "job.yaml").read_text(encoding="utf-8"))
    job["metadata"]["name"] = f"rdfa-{options.rule}-{uuid.uuid4().hex[:12]}"
    job["spec"]["activeDeadlineSeconds"] = 60 * options.minutes
    (container,) = job["spec"]["template"]["spec"]["containers"]
    container["workingDir"] = str(Path.cwd())
    container["command"] = ["python3", str(HERE / "run.py"), str(options.script.resolve())]
    limits = {"memory": f"{options.memory_mb}M"}
    if options.gpus:
        limits["nvidia.com/gpu"] = str(options.gpus)
    container["resources"] = {"limits": limits, "requests": limits | {"cpu": str(options.cpus)}}
    return job


def main() -> int:
    """Submit the job that the arguments describe."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("script", type=Path)
    parser.add_argument("--rule", required=True)
    for name in ("--gpus", "--memory-mb", "--minutes", "--cpus"):
        parser.add_argument(name, type=int, required=True)
    job = manifest(parser.parse_args())
    created = subprocess.run(
        ["kubectl", "create", "-f", "-"], input=json.dumps(job), text=True, stdout=subprocess.PIPE, check=False
    )
    if created.returncode == 0:
        print(job["metadata"]["name"])
    return created.returncode


if __name__ == "__main__":
    sys.exit(main())
