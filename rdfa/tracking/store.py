"""The store, and the runs of trainings in it: one MLflow run per training, found again by its key."""

import glob
import logging
import math
import os
import shutil
import sqlite3
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")  # it narrates the making of its tables
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # MLflow's own default retries for minutes
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")

import mlflow
import numpy as np
from mlflow.data.dataset_source_registry import resolve_dataset_source
from mlflow.data.meta_dataset import MetaDataset
from mlflow.entities import DatasetInput, InputTag, LoggedModelStatus, Metric, Param
from mlflow.entities import Run as MlflowRun
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.tracking import MlflowClient
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema, TensorSpec
from sqlalchemy import create_engine, text
from sqlalchemy.exc import SQLAlchemyError

import rdfa
from rdfa.errors import RdfaError, without_passwords
from rdfa.files import written_whole
from rdfa.interruptions import uninterrupted
from rdfa.locks import lock_file
from rdfa.tracking.moved import FOLDER, follow
from rdfa.tracking.places import local_place

logger = logging.getLogger(__name__)
logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # a retry is no news, and its failure is told once
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # it traces what it raises too

KEY = "rdfa.key"
NOTE = "mlflow.note.content"
"""The tag that the UI shows as a description, read as Markdown."""
EXPERIMENT = "rdfa"
"""Of the trainings, unless MLFLOW_EXPERIMENT_NAME says otherwise; those of tables are named after it."""
_TRAININGS = (
    "One run per training, with its curves, files and model. Tables have experiments of their own, "
    "named after this one: there the runs of a table stand side by side."
)
_LOCK_NUMBER = 24_0713_078
"""Of the lock in a PostgreSQL database: any number, but one that others do not use."""
_SERVED = Path(__file__).parents[1] / "served.py"


class Store:
    """A connection to the MLflow store.

    Raises:
        RdfaError: it cannot be reached, or its files lie elsewhere. Made before training starts, not after.
    """

    def __init__(self, root: Path) -> None:
        named = os.environ.get("MLFLOW_TRACKING_URI")
        self.uri = named or f"sqlite:///{_root(root) / 'mlflow.db'}"
        self._own = None if named else _root(root) / FOLDER
        if self.uri.startswith("sqlite:///") and "?" in self.uri:
            raise RdfaError(
                f"{self.uri}: MLflow reads no further than the `?`; rename the folder, or set MLFLOW_TRACKING_URI"
            )
        if self.uri.startswith("sqlite:///") and "'" in str(Path.cwd()):
            raise RdfaError(
                f"{Path.cwd()}: MLflow makes no SQLite store below an apostrophe; rename the folder, or set "
                "MLFLOW_TRACKING_URI to a server's address"
            )
        with uninterrupted(), self.needed(), _one_at_a_time(self.uri):
            if self.uri == f"sqlite:///{_root(root) / 'mlflow.db'}":
                follow(_root(root) / "mlflow.db")
            mlflow.set_tracking_uri(self.uri)
            if not named:  # MLflow names it there, and the next store would take it for the user's choice
                os.environ.pop("MLFLOW_TRACKING_URI", None)
            self.client = MlflowClient(self.uri)
            self._artifacts = None if self.uri.startswith("http") else (_root(root) / FOLDER).as_uri()
            self.name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
            self.experiment = self.experiment_named(self.name, _TRAININGS)

    @contextmanager
    def needed(self) -> Iterator[None]:
        """What must not fail: the beginning of a run. Later on, `tolerated`.

        Raises:
            RdfaError: the store cannot be used; says why.
        """
        try:
            yield
        except (MlflowException, SQLAlchemyError, sqlite3.Error, OSError, ImportError) as error:
            todo = (
                "check MLFLOW_TRACKING_URI, or unset it to log to mlflow.db here"
                if self._own is None
                else "see that its disk has room and can be read and written, or name another store by "
                "MLFLOW_TRACKING_URI"
            )
            raise RdfaError(
                f"the MLflow store {without_passwords(self.uri)} cannot be used ({_first_line(error)}); {todo}"
            ) from error

    def start(
        self, name: str, key: str, params: Mapping[str, Any], tags: Mapping[str, str], seconds_ago: float = 0
    ) -> str:
        """Begin a run, or go on with the one that an interrupted process left; returns its id."""
        found = self._runs(key, "status != 'FINISHED'")
        if found:
            run_id = found[0].info.run_id
            local_place(found[0].info.artifact_uri, "", self._own)
            self.client.update_run(run_id, status="RUNNING")
            # MLflow takes no other value of a parameter, and threads or device may be others now.
            params = {name: value for name, value in params.items() if name not in found[0].data.params}
        else:
            all_tags = {**tags, KEY: key, "mlflow.source.name": "rdfa train", "mlflow.source.type": "LOCAL"}
            began = now() - int(1000 * seconds_ago)
            run_id = self.client.create_run(self.experiment, began, all_tags, name).info.run_id
        self.log(run_id, (), params)
        return str(run_id)

    def log(self, run_id: str, metrics: Sequence[Metric], params: Mapping[str, Any] = MappingProxyType({})) -> None:
        """Log many numbers in few calls: MLflow takes 100 parameters or 1000 metrics in one."""
        named = [Param(name, str(value)) for name, value in params.items()]
        for first in range(0, len(named), 100):
            self.client.log_batch(run_id, params=named[first : first + 100])
        for first in range(0, len(metrics), 1000):
            self.client.log_batch(run_id, metrics=metrics[first : first + 1000])

    def log_dataset(self, run_id: str, folder: Path, name: str, digest: str, context: str) -> None:
        """Note the data that a run used, with its digest (at most 36 characters)."""
        with warnings.catch_warnings(action="ignore"):  # of the ways to read a folder's path the first is right
            source = resolve_dataset_source(str(folder.resolve()))
        dataset = MetaDataset(source, name=name, digest=digest[:36])
        used = DatasetInput(dataset._to_mlflow_entity(), [InputTag("mlflow.data.context", context)])
        self.client.log_inputs(run_id, [used])

    def log_epoch(self, run_id: str, row: Mapping[str, float]) -> None:
        """Log one epoch's row of the history under its epoch number. Logging it again changes no curve."""
        self.log(run_id, curve([row], now()))

    def log_results(self, run_id: str, metrics: Mapping[str, float], files: Iterable[Path]) -> None:
        """Log small files of a run, then its final numbers: where these are, the files are too (`has`)."""
        for file in files:
            self.log_file(run_id, file)
        self.log(run_id, final(metrics, now()))

    def log_file(self, run_id: str, file: Path, folder: str = "") -> None:
        """Log one file, whole. To a local disk it is copied here: what MLflow was copying when it was killed stays, and
        is shown as a file of the run.

        Raises:
            RdfaError: the store's database names a place for it that is not the store's.
        """
        # A server keeps the files, and need not be asked where.
        address = None if self.uri.startswith("http") else self.client.get_run(run_id).info.artifact_uri
        place = None if address is None else local_place(address, f"{folder}/{file.name}".lstrip("/"), self._own)
        if place is None:
            self.client.log_artifact(run_id, str(file), folder or None)
            return
        with written_whole(place) as copy:
            shutil.copyfile(file, copy)

    def log_model(self, run_id: str, files: Mapping[str, Path], channels: int) -> str:
        """Log a trained run as a model that detects: `mlflow.pyfunc.load_model(...).predict(features)`.

        The model is code (rdfa/served.py) and the run's own files, not a pickle; where it is loaded, rdfa is installed.

        Args:
            files: the run's checkpoint, params and record, by these names.
            channels: C of the features (T, C).

        Returns:
            The model's id; the store's address of it is `models:/<id>`.
        """
        optional = ("fps", "stride", "window", "duration", "overlap")
        signature = ModelSignature(
            inputs=Schema([TensorSpec(np.dtype(np.float32), (-1, channels))]),
            outputs=Schema(
                [ColSpec("string", "label"), *(ColSpec("double", name) for name in ("score", "start", "end"))]
            ),
            params=ParamSchema(
                [
                    *(ParamSpec(name, DataType.double, None) for name in optional),
                    ParamSpec("steps", DataType.long, None),
                ]
            ),
        )
        # It advises type hints and an example; the signature says all that they would.
        with mlflow.start_run(run_id=run_id), warnings.catch_warnings(action="ignore"):
            logged = mlflow.pyfunc.log_model(
                name="model",
                python_model=str(_SERVED),
                artifacts={name: str(path) for name, path in files.items()},
                signature=signature,
                pip_requirements=[f"rdfa=={rdfa.__version__}", f"torch=={_public_version()}"],
            )
            # Leaving the block marks the run finished; `end` says how it really ended.
        return str(logged.model_id)

    def model_of(self, run_id: str) -> str | None:
        """The id of the model that was logged last for a run, and whole: what a killed process left is not ready."""
        outputs = self.client.get_run(run_id).outputs
        for output in reversed(outputs.model_outputs if outputs and outputs.model_outputs else ()):
            if self.client.get_logged_model(output.model_id).status == LoggedModelStatus.READY:
                return str(output.model_id)
        return None

    def end(self, run_id: str, status: str, moment: int | None = None) -> None:
        """Set a run's final status, FINISHED, FAILED or KILLED, as of now if no moment is given."""
        self.client.set_terminated(run_id, status, moment)

    def find(self, key: str) -> str | None:
        """The newest finished run of a key, if the store has one: a clone brings results, but not their store."""
        found = self._runs(key, "status = 'FINISHED'")
        return str(found[0].info.run_id) if found else None

    def unfinished(self, key: str) -> str | None:
        """The newest run of a key that is running, or was when its process ended, or ended otherwise than well."""
        found = self._runs(key, "status != 'FINISHED'")
        return str(found[0].info.run_id) if found else None

    def has(self, run_id: str, metric: str) -> bool:
        """Whether a metric of a run was logged."""
        return metric in self.client.get_run(run_id).data.metrics

    def _runs(self, key: str, which: str) -> list[MlflowRun]:
        wanted = f"tags.`{KEY}` = '{key}' and attributes.{which}"
        return list(self.client.search_runs([self.experiment], wanted, max_results=1))

    def experiment_named(self, name: str, note: str) -> str:
        """The id of an experiment, made with this description if it is not there.

        Raises:
            RdfaError: the store's database has its files go where the store is not.
        """
        found = self.client.get_experiment_by_name(name)
        if found is None:
            tags = {NOTE: note, "mlflow.experimentKind": "custom_model_development"}  # else the UI asks
            try:
                return str(self.client.create_experiment(name, artifact_location=self._artifacts, tags=tags))
            except MlflowException:  # another process was quicker
                found = self.client.get_experiment_by_name(name)
                if found is None:
                    raise
        if not self.uri.startswith("http"):
            local_place(found.artifact_location, "models", self._own)  # of which MLflow makes those of runs and models
        return str(found.experiment_id)


@contextmanager
def tolerated() -> Iterator[None]:
    """Turn failures of the store into a warning: once results are on disk, or training goes, no store stops them.

    A request to stop waits until the block is done, or comes a second time.
    """
    try:
        with uninterrupted():
            yield
    except (RdfaError, MlflowException, SQLAlchemyError, sqlite3.Error, OSError) as error:
        logger.warning("MLflow: not logged (%s); results/ is complete without it", _first_line(error))


def curve(history: Iterable[Mapping[str, float]], moment: int) -> list[Metric]:
    """A history's rows as metrics of their epochs."""
    return [
        Metric(name, float(value), moment, int(row["epoch"]))
        for row in history
        for name, value in row.items()
        if name != "epoch"
    ]


def final(metrics: Mapping[str, float], moment: int) -> list[Metric]:
    """Numbers of a whole run as metrics; what is not finite, no store takes."""
    return [Metric(name, float(value), moment, 0) for name, value in metrics.items() if math.isfinite(value)]


@contextmanager
def _one_at_a_time(uri: str) -> Iterator[None]:
    """Create a store in one process only: MLflow's own migration cannot run twice at once."""
    if uri.startswith("postgresql"):
        engine = create_engine(uri)
        try:
            with engine.connect() as connection:
                connection.execute(text("SELECT pg_advisory_lock(:number)"), {"number": _LOCK_NUMBER})
                yield
        finally:
            engine.dispose()
        return
    if not uri.startswith("sqlite:///"):
        yield
        return
    path = Path(uri.removeprefix("sqlite:///"))
    with lock_file(path.with_name(f"{path.name}.lock")):
        if not path.exists():
            _create(path)
        yield


def _create(path: Path) -> None:
    """Make an SQLite store beside its place and rename it: MLflow cannot go on with half of what it makes."""
    temporary = path.with_name(f"{path.name}.part")
    for left in path.parent.glob(f"{glob.escape(temporary.name)}*"):  # by a process that was killed here
        left.unlink()
    temporary.touch()  # by the umask; SQLite's own 0644 would shut a group out
    MlflowClient(f"sqlite:///{temporary}").search_experiments(max_results=1)
    # Readers and writers then do not block each other (local disks only, which SQLite needs anyway).
    with closing(sqlite3.connect(temporary)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
    temporary.replace(path)


def _root(root: Path) -> Path:
    """Where the store belongs: DVC runs experiments in a copy that it deletes, and tells where the original is."""
    return Path(os.environ.get("DVC_ROOT") or root).resolve()


def now() -> int:
    """Milliseconds since 1970, as MLflow counts."""
    return int(time.time() * 1000)


def _public_version() -> str:
    import torch

    return str(torch.__version__).split("+")[0]


def _first_line(error: Exception) -> str:
    return without_passwords(str(error).strip().splitlines()[0])[:200]
