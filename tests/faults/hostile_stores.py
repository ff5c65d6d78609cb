"""An MLflow database that somebody else made, or that is damaged: its addresses lead out of the checkout."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

from rdfa.tracking import Store
from tests.faults.campaign import WRONG, Outcome, Scene
from tests.faults.hostile_calls import inside, refused

_CLIMBS = ("..", "%2e%2e", ".%2E", "runs/../..", "link/..", "./..")


def addresses_of_files(scene: Scene) -> Iterator[Outcome]:
    """Addresses in the columns that decide where files go, and names of artifacts that lead out."""
    root, victim = scene.folder / "checkout", scene.folder / "victim"
    root.mkdir()
    victim.mkdir()
    (victim / "run.json").write_text("precious")
    result = scene.folder / "run.json"
    result.write_text("a result")
    with inside(root):
        for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "DVC_ROOT"):
            os.environ.pop(name, None)
        store = Store(root)
        run_id = store.start("a run", "key", {}, {})
        own = store.client.get_run(run_id).info.artifact_uri
        (root / "mlartifacts").mkdir(exist_ok=True)
        (root / "mlartifacts" / "link").symlink_to(victim)
        before = _files(scene.folder)
        for _ in range(scene.count(6, 100)):
            if scene.random.random() < 0.2:
                depth = "/".join(["..", "."][scene.random.random() < 0.2] for _ in range(9)) + "/../../../victim"
                what, call = f"the artifact folder {depth}", partial(store.log_file, run_id, result, depth)
            else:
                table, column = scene.random.choice((("runs", "artifact_uri"), ("experiments", "artifact_location")))
                address = _address(scene, root, victim)
                _set(root, table, column, address)
                what = f"{table}.{column} = {address}"
                call = partial(store.log_file, run_id, result) if table == "runs" else partial(Store, root)
            outcome = refused(what, call, root / "mlflow.db", "import-runs")
            _set(root, "runs", "artifact_uri", own)
            _set(root, "experiments", "artifact_location", (root / "mlartifacts").as_uri())
            other = _files(scene.folder) ^ before
            yield Outcome(WRONG, f"{what}: wrote {other}") if other else outcome


def _address(scene: Scene, root: Path, victim: Path) -> str:
    """An address of the victim's folder or of one that is not there yet."""
    own, place = (
        (root / "mlartifacts").as_uri(),
        scene.random.choice((victim, victim / "new", Path("/tmp/rdfa-victim"))),
    )
    climb = "/".join(scene.random.choices(_CLIMBS, k=scene.random.randint(8, 12)))
    local = (place.as_uri(), str(place), f"file:{place}", f"file://localhost{place}")
    climbing = (f"{own}-of-another", f"{own}/{climb}{place}", f"{root}/mlartifacts/../{root.name}/mlflow.db.lock/x")
    return scene.random.choice((*local, *climbing, f"{own}/link", f"{own}/link/new"))


def _set(root: Path, table: str, column: str, address: str) -> None:
    with closing(sqlite3.connect(root / "mlflow.db", timeout=20)) as connection, connection:
        connection.execute(f"UPDATE {table} SET {column} = ?", (address,))


def _files(folder: Path) -> set[tuple[str, str]]:
    """What is there besides the database, with the content of small files."""
    paths = [*folder.rglob("*"), *Path("/tmp").glob("rdfa-victim*")]
    return {
        (str(path), path.read_text() if path.suffix == ".json" else "")
        for path in paths
        if "mlflow.db" not in path.name
    }
