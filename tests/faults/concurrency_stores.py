"""Twenty runs that log to one MLflow store at once, in SQLite and in PostgreSQL."""

import os
import pwd
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.faults.campaign import LOST, SURVIVED, WRONG, NotHere, Outcome, Scene
from tests.faults.forked import Forked, together
from tests.workflow.ports import free_port

RUNS, EPOCHS = 20, 5


def sqlite(scene: Scene) -> Iterator[Outcome]:
    """Twenty to a new SQLite store, which the first of them makes."""
    for number in range(scene.count(1, 4)):
        root = scene.folder / f"checkout {number}"
        root.mkdir()
        yield from _twenty(
            root, f"sqlite:///{root.resolve() / 'mlflow.db'}", lambda: os.environ.pop("MLFLOW_TRACKING_URI", None)
        )


def postgresql(scene: Scene) -> Iterator[Outcome]:
    """Twenty to a new PostgreSQL database, whose tables the first of them makes."""
    for number in range(scene.count(1, 4)):
        with _database(scene.folder / f"cluster{number}") as uri:
            root = scene.folder / f"checkout {number}"
            root.mkdir()

            def told(uri: str = uri) -> None:
                os.environ["MLFLOW_TRACKING_URI"] = uri

            yield from _twenty(root, uri, told)


def _twenty(root: Path, uri: str, told: Callable[[], object]) -> Iterator[Outcome]:
    """An outcome for each run: it ended well, and the store has all that it logged."""
    ended = together([_logs(number) for number in range(RUNS)], root, before=told, timeout=200)
    reader = Forked(lambda: _check(uri), root)
    lacking = reader.wait(120)
    missed = [line for line in lacking.output.splitlines() if line.startswith("run ")]
    for number, each in enumerate(ended):
        said = each.output[-1500:]
        problems = [line for line in missed if line.startswith(f"run {number}:")]
        if each.status != 0 or each.traced or "not logged" in said:
            yield Outcome(WRONG, f"run {number} of {RUNS} to {uri}: {each.status}, {said}")
        elif lacking.status != 0 or problems:
            yield Outcome(LOST, f"run {number} of {RUNS} to {uri}: {problems or lacking.output[-1500:]}")
        else:
            yield Outcome(SURVIVED)


def _logs(number: int) -> Callable[[], None]:
    def log() -> None:
        from rdfa.files import write_text
        from rdfa.tracking import Store, tolerated

        store = Store(Path())
        run = store.start(f"run {number}", f"key{number}", {f"p{index}": index for index in range(30)}, {"a": "b"})
        store.log_dataset(run, Path(), "data", f"digest{number}", "training")
        for epoch in range(1, EPOCHS + 1):
            with tolerated():
                store.log_epoch(run, {"epoch": epoch, "loss": number + epoch / 100, "rate": 0.1})
        write_text(f"file{number}.txt", str(number))
        store.log_results(run, {"mAP_average": number / 100}, [Path(f"file{number}.txt")])
        store.end(run, "FINISHED")

    return log


def _check(uri: str) -> None:
    """Print what the store lacks of each run."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("rdfa")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    for number in range(RUNS):
        run = runs.get(f"run {number}")
        if run is None:
            print(f"run {number}: is not there")
            continue
        losses = [metric.value for metric in client.get_metric_history(run.info.run_id, "loss")]
        wrong = {
            "status": run.info.status != "FINISHED",
            "loss": losses != [number + epoch / 100 for epoch in range(1, EPOCHS + 1)],
            "params": len(run.data.params) != 30,
            "mAP": run.data.metrics.get("mAP_average") != number / 100,
            "data": len(run.inputs.dataset_inputs) != 1,
            "file": [file.path for file in client.list_artifacts(run.info.run_id)] != [f"file{number}.txt"],
        }
        if any(wrong.values()):
            print(f"run {number}: wrong are {[name for name, is_wrong in wrong.items() if is_wrong]}")
    if len(runs) != RUNS:
        print(f"run 0: {len(runs)} runs are there")


@contextmanager
def _database(folder: Path) -> Iterator[str]:
    """A cluster of its own on a free port, as an unprivileged user; its address for MLflow."""
    programs = [shutil.which("initdb"), *sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb")))]
    found = [Path(program).resolve().parent for program in programs if program]
    if not found:
        raise NotHere("no PostgreSQL (initdb)")
    try:
        import psycopg2  # noqa: F401
    except ImportError as error:
        raise NotHere("no psycopg2: pip install 'rdfa[postgres]'") from error
    folder.mkdir()
    user = _unprivileged(folder)
    port = free_port()

    def call(program: str, *arguments: str) -> None:
        command = [str(found[-1] / program), "-D", str(folder / "data"), *arguments]
        done = subprocess.run(
            command, user=user, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise NotHere(f"{program}: {(done.stderr or done.stdout).strip()[-200:]}")

    call("initdb", "-U", "rdfa", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C")
    options = f"-c listen_addresses=127.0.0.1 -p {port} -k {folder} -c fsync=off"
    call("pg_ctl", "-w", "-l", str(folder / "log"), "-o", options, "start")
    try:
        yield f"postgresql://rdfa@127.0.0.1:{port}/postgres"
    finally:
        call("pg_ctl", "-m", "immediate", "stop")


def _unprivileged(folder: Path) -> int | None:
    """Root may not run a database: nobody's folder, then, and nobody's number."""
    if os.geteuid() != 0:
        return None
    nobody = pwd.getpwnam("nobody").pw_uid
    folder.parent.chmod(0o755)
    os.chown(folder, nobody, -1)
    return nobody
