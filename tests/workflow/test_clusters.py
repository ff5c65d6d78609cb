"""Runs on clusters: the profiles, what they ask a scheduler for, and a training that is pre-empted and retried."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from rdfa.files import read_json
from rdfa.identity import paths
from rdfa.reporting.grids import read_table
from rdfa.stages.fetch import fetch_stage
from rdfa.stages.train import train_stage
from tests.conftest import ROOT
from tests.workflow.conftest import ROWS, Clone, clone_project, small_table

pytestmark = [pytest.mark.workflow, pytest.mark.xdist_group("clone")]
KUBERNETES = ROOT / "workflow" / "profiles" / "kubernetes"
# A cluster of one machine: `create` runs the job's command at once, `get` says how it ended.
KUBECTL = """#!{python}
import json, pathlib, subprocess, sys
jobs = pathlib.Path("jobs")
if sys.argv[1] == "create":
    job = json.load(sys.stdin)
    jobs.mkdir(exist_ok=True)
    (jobs / (job["metadata"]["name"] + ".json")).write_text(json.dumps(job))
    (container,) = job["spec"]["template"]["spec"]["containers"]
    done = subprocess.run(container["command"], cwd=container["workingDir"], stdout=2)
    (jobs / job["metadata"]["name"]).write_text("Failed" if done.returncode else "SuccessCriteriaMet Complete")
else:
    print((jobs / sys.argv[3]).read_text())
"""


@pytest.fixture
def fresh(tmp_path: Path) -> Clone:
    """A clone without results whose table has one row."""
    made = clone_project(tmp_path / "clone")
    (made.root / "params" / "tables" / "table1.yaml").write_text(small_table(ROWS[:1]))
    return made


@pytest.mark.parametrize("profile", ["slurm", "kubernetes"])
def test_a_profile_plans_the_whole_table_at_full_scale_from_a_clone(tmp_path: Path, profile: str) -> None:
    clone = clone_project(tmp_path)
    done = clone.run("snakemake", "--profile", f"workflow/profiles/{profile}", "-n", "results/table1.csv")
    planned = done.stdout + done.stderr
    assert set(re.findall(r"^train +(\d+)$", planned, re.MULTILINE)) == {"28"}
    assert "train thumos14-rdfa-paper-full-s0" in planned


def test_a_training_on_several_gpus_is_started_by_torchrun_and_nothing_else_is(fresh: Clone) -> None:
    fresh.edit("params/scales/sample.yaml", "gpus: 0", "gpus: 4")
    commands = re.findall(r"^Shell command: (.*)$", fresh.snakemake("-n", "-p"), re.MULTILINE)
    (started,) = [command for command in commands if command.startswith("torchrun")]
    assert "--nproc-per-node 4 --shutdown-timeout 120 -m rdfa train thumos14" in started
    assert len(commands) == 5


def test_a_training_that_is_preempted_is_retried_and_ends_as_if_it_never_was(fresh: Clone, tmp_path: Path) -> None:
    table = fresh.root / "params" / "tables" / "table1.yaml"
    longer = table.read_text().replace("epochs: 3", "epochs: 20")  # else it may end before the signal comes
    assert longer != table.read_text()
    table.write_text(longer)
    (entry,) = read_table("table1", folder=fresh.root / "params")[1]
    (composed,) = entry.runs
    fetch_stage(composed.run, tmp_path, None)
    uninterrupted = train_stage(composed, tmp_path, tracked=False)
    process = subprocess.Popen(
        ["snakemake", "--cores", "2", "--retries", "2", str(paths(composed.run).folder / "run.json")],
        cwd=fresh.root,
        env=fresh.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    checkpoints = fresh.root / "checkpoints"
    while not (found := trainings_under(process.pid)) and process.poll() is None:
        time.sleep(0.1)
    while not list(checkpoints.glob("*.safetensors")) and process.poll() is None:
        time.sleep(0.01)
    os.kill(found[0], signal.SIGTERM)
    said = process.communicate(timeout=300)[0]
    assert process.returncode == 0, said
    assert "Trying to restart" in said
    (folder,) = (fresh.root / "results" / "runs").iterdir()
    assert "resumed from" in (folder / "log.txt").read_text()
    for name in ("checkpoint.safetensors", "history.csv"):
        assert (folder / name).read_bytes() == (uninterrupted / name).read_bytes()


def trainings_under(snakemake: int) -> list[int]:
    """Ids of the processes that train below a Snakemake process."""
    listed = subprocess.run(["ps", "-ww", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in listed.splitlines()]
    parents = {int(pid): int(parent) for pid, parent, _ in rows}

    def below(pid: int) -> bool:
        return pid == snakemake or (pid in parents and below(parents[pid]))

    return [int(pid) for pid, _, args in rows if re.search(r"python\S* \S*rdfa train ", args) and below(int(pid))]


def test_a_job_on_kubernetes_runs_in_the_clone_with_the_resources_of_its_rule(fresh: Clone, tmp_path: Path) -> None:
    kubectl = tmp_path / "bin" / "kubectl"
    kubectl.parent.mkdir()
    kubectl.write_text(KUBECTL.format(python=sys.executable))
    kubectl.chmod(0o755)
    path = f"{kubectl.parent}{os.pathsep}{fresh.environment()['PATH']}"
    planned = fresh.snakemake("-n")
    (manifest,) = set(re.findall(r"data/\S+/manifest-\w+\.json", planned))
    options = ("--config", "scale=sample", "--seconds-between-status-checks", "1", "--latency-wait", "1")
    fresh.run("snakemake", "--profile", "workflow/profiles/kubernetes", *options, "--", manifest, PATH=path)
    assert (fresh.root / manifest).exists()
    (submitted,) = (fresh.root / "jobs").glob("rdfa-fetch-*.json")
    job = read_json(submitted)
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"] == {"memory": "2000M"}
    assert container["resources"]["requests"] == {"memory": "2000M", "cpu": "1"}
    assert job["spec"]["activeDeadlineSeconds"] == 36000
    assert container["workingDir"] == str(fresh.root)


def test_gpus_are_asked_for_as_a_limit_because_kubernetes_refuses_them_as_a_request_alone(tmp_path: Path) -> None:
    kubectl = tmp_path / "kubectl"
    kubectl.write_text("#!/bin/sh\ncat > job.json\n")
    kubectl.chmod(0o755)
    numbers = ("--gpus", "4", "--memory-mb", "64000", "--minutes", "30", "--cpus", "8")
    command = [sys.executable, str(KUBERNETES / "submit.py"), "--rule", "train", *numbers, "job.sh"]
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"PATH": path}, capture_output=True, text=True, check=True
    )
    job = json.loads((tmp_path / "job.json").read_text())
    assert done.stdout.strip() == job["metadata"]["name"]
    (container,) = job["spec"]["template"]["spec"]["containers"]
    limits = container["resources"]["limits"]
    assert limits == {"memory": "64000M", "nvidia.com/gpu": "4"}
    assert container["resources"]["requests"] == limits | {"cpu": "8"}
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in job["spec"]["template"]["spec"]["volumes"]}


def test_the_end_of_a_pod_reaches_the_training_and_waits_until_it_has_saved(tmp_path: Path) -> None:
    training = tmp_path / "training.py"
    training.write_text(
        "import pathlib, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (time.sleep(1), pathlib.Path('saved').touch(), sys.exit(130)))\n"
        "pathlib.Path('started').touch()\ntime.sleep(100)\n"
    )
    # As in a pod: shells and a reader of the log between the first process and the training.
    (tmp_path / "job.sh").write_text(f"bash -c '{sys.executable} training.py 2>&1 | tee -i log' && true\n")
    pod = subprocess.Popen([sys.executable, str(KUBERNETES / "run.py"), "job.sh"], cwd=tmp_path)
    while not (tmp_path / "started").exists():
        time.sleep(0.02)
    pod.send_signal(signal.SIGTERM)
    assert pod.wait(timeout=60) == 143
    assert (tmp_path / "saved").exists()


def test_every_profile_says_where_it_is_explained() -> None:
    for profile in ("slurm", "kubernetes"):
        text = (ROOT / "workflow" / "profiles" / profile / "config.yaml").read_text()
        assert "docs/clusters.md" in text
        assert yaml.safe_load(text)["retries"] == 2


def test_the_mlflow_servers_compose_file_names_every_service_secret_and_version_it_uses() -> None:
    folder = ROOT / "workflow" / "mlflow"
    text = (folder / "compose.yaml").read_text()
    compose = yaml.safe_load(text)
    services = compose["services"]
    for service in services.values():
        assert re.search(r":[^:]*\d", service["image"])  # a version, and not `latest`
        assert set(service.get("depends_on", {})) <= services.keys()
        for mount in service.get("volumes", []):
            assert mount.split(":")[0] in compose["volumes"]
        for name, value in service["environment"].items():
            secret = "PASSWORD" in name or "KEY" in name or "USER" in name
            assert not secret or value == "mlflow" or value.startswith("${")
    asked = set(re.findall(r"(?<!\$)\$\{(\w+)", text))
    explained = set(re.findall(r"^(\w+)=", (folder / ".env.example").read_text(), re.MULTILINE))
    assert asked == explained
    pinned = re.findall(r"mlflow==(\S+)", (folder / "Dockerfile").read_text())
    assert pinned == re.findall(r"^mlflow==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert services["server"]["image"].endswith(f":{pinned[0]}")
