"""All that knows MLflow: one MLflow run per training, found again by its key; a table is the parent of its runs.

MLflow is for looking and comparing. Nothing is read back from it: results live in `results/`, and `import_run`
rebuilds an MLflow run from there. The store is `MLFLOW_TRACKING_URI`, or else an SQLite file `mlflow.db` in the root.
"""

import logging
import math
import os
import sqlite3
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")  # it narrates the making of its tables
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # MLflow's own default retries for minutes
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")

import mlflow
import numpy as np
from filelock import FileLock
from mlflow.data.dataset_source_registry import resolve_dataset_source
from mlflow.data.meta_dataset import MetaDataset
from mlflow.entities import DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.tracking import MlflowClient
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema, TensorSpec
from sqlalchemy.exc import SQLAlchemyError

import rdfa
from rdfa.errors import RdfaError

logger = logging.getLogger(__name__)
logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # a retry is no news, and its failure is told once

KEY, TABLE = "rdfa.key", "rdfa.table"
_EXPERIMENT = "rdfa"
_PARENT = "mlflow.parentRunId"
_SERVED = Path(__file__).with_name("served.py")


class Store:
    """A connection to the MLflow store.

    Raises:
        RdfaError: it cannot be reached. Made before training starts, not after.
    """

    def __init__(self, root: Path) -> None:
        self.uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{_root(root) / 'mlflow.db'}"
        with self.needed(), _one_at_a_time(self.uri):
            mlflow.set_tracking_uri(self.uri)
            self.client = MlflowClient(self.uri)
            self.experiment = self._experiment(_root(root))

    @contextmanager
    def needed(self) -> Iterator[None]:
        """What must not fail: the beginning of a run. Later on, `tolerated`.

        Raises:
            RdfaError: the store cannot be used; says why.
        """
        try:
            yield
        except (MlflowException, SQLAlchemyError, sqlite3.Error, OSError) as error:
            raise RdfaError(
                f"the MLflow store {_without_password(self.uri)} cannot be used ({_first_line(error)}); "
                "check MLFLOW_TRACKING_URI, or unset it to log to mlflow.db here"
            ) from error

    def start(self, name: str, key: str, params: Mapping[str, Any], tags: Mapping[str, str]) -> str:
        """Begin a run, or go on with the one that an interrupted process left; returns its id."""
        unfinished = f"tags.`{KEY}` = '{key}' and attributes.status != 'FINISHED'"
        found = self.client.search_runs([self.experiment], unfinished, max_results=1)
        if found:
            run_id = found[0].info.run_id
            self.client.update_run(run_id, status="RUNNING")
        else:
            all_tags = {**tags, KEY: key, "mlflow.source.name": "rdfa train", "mlflow.source.type": "LOCAL"}
            run_id = self.client.create_run(self.experiment, tags=all_tags, run_name=name).info.run_id
        logged = [Param(key, str(value)) for key, value in params.items()]
        for first in range(0, len(logged), 100):
            self.client.log_batch(run_id, params=logged[first : first + 100])
        return str(run_id)

    def log_dataset(self, run_id: str, folder: Path, name: str, digest: str, context: str) -> None:
        """Note the data that a run used, with its digest (at most 36 characters)."""
        with warnings.catch_warnings(action="ignore"):  # of the ways to read a folder's path the first is right
            source = resolve_dataset_source(str(folder.resolve()))
        dataset = MetaDataset(source, name=name, digest=digest[:36])
        used = DatasetInput(dataset._to_mlflow_entity(), [InputTag("mlflow.data.context", context)])
        self.client.log_inputs(run_id, [used])

    def log_epoch(self, run_id: str, row: Mapping[str, float]) -> None:
        """Log one epoch's row of the history under its epoch number. Logging it again changes no curve."""
        now, epoch = _now(), int(row["epoch"])
        metrics = [Metric(name, float(value), now, epoch) for name, value in row.items() if name != "epoch"]
        self.client.log_batch(run_id, metrics=metrics)

    def log_results(self, run_id: str, metrics: Mapping[str, float], files: Iterable[Path]) -> None:
        """Log final numbers and small files of a run."""
        now = _now()
        finite = [Metric(name, float(value), now, 0) for name, value in metrics.items() if math.isfinite(value)]
        self.client.log_batch(run_id, metrics=finite)
        for file in files:
            self.client.log_artifact(run_id, str(file))

    def log_model(self, run_id: str, files: Mapping[str, Path], channels: int) -> None:
        """Log a trained run as a model that detects: `mlflow.pyfunc.load_model(...).predict(features)`.

        The model is code (rdfa/served.py) and the run's own files, not a pickle; where it is loaded, rdfa is installed.

        Args:
            files: the run's checkpoint, params and record, by these names.
            channels: C of the features (T, C).
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
        with mlflow.start_run(run_id=run_id):
            mlflow.pyfunc.log_model(
                name="model",
                python_model=str(_SERVED),
                artifacts={name: str(path) for name, path in files.items()},
                signature=signature,
                pip_requirements=[f"rdfa=={rdfa.__version__}", f"torch=={_public_version()}"],
            )
            # Leaving the block marks the run finished; `end` says how it really ended.

    def end(self, run_id: str, status: str) -> None:
        """Set a run's final status: FINISHED, FAILED or KILLED."""
        self.client.set_terminated(run_id, status)

    def find(self, key: str) -> str | None:
        """The newest run of a key, if the store has one: a clone brings results, but not the store they went to."""
        found = self.client.search_runs([self.experiment], f"tags.`{KEY}` = '{key}'", max_results=1)
        return str(found[0].info.run_id) if found else None

    def log_table(self, name: str, key: str, children: Iterable[str], files: Iterable[Path]) -> None:
        """Make the run of a table, the parent of the runs whose keys are `children`."""
        same = f"tags.`{TABLE}` = '{name}' and tags.`{KEY}` = '{key}'"
        found = self.client.search_runs([self.experiment], same, max_results=1)
        tags = {TABLE: name, KEY: key, "mlflow.source.name": f"rdfa table {name}", "mlflow.source.type": "LOCAL"}
        parent = found[0] if found else self.client.create_run(self.experiment, tags=tags, run_name=name)
        for child in filter(None, map(self.find, children)):
            self.client.log_batch(child, tags=[RunTag(_PARENT, parent.info.run_id)])
        for file in files:
            self.client.log_artifact(parent.info.run_id, str(file))
        self.end(parent.info.run_id, "FINISHED")

    def _experiment(self, root: Path) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", _EXPERIMENT)
        experiment = self.client.get_experiment_by_name(name)
        if experiment is not None:
            return str(experiment.experiment_id)
        artifacts = None if self.uri.startswith("http") else (root / "mlartifacts").as_uri()
        try:
            return str(self.client.create_experiment(name, artifact_location=artifacts))
        except MlflowException:  # another process was quicker
            experiment = self.client.get_experiment_by_name(name)
            if experiment is None:
                raise
            return str(experiment.experiment_id)


@contextmanager
def tolerated() -> Iterator[None]:
    """Turn failures of the store into a warning: once results are on disk, or training goes, no store stops them."""
    try:
        yield
    except (RdfaError, MlflowException, SQLAlchemyError, sqlite3.Error, OSError) as error:
        logger.warning("MLflow: not logged (%s); results/ is complete without it", _first_line(error))


@contextmanager
def _one_at_a_time(uri: str) -> Iterator[None]:
    """Create and upgrade an SQLite store in one process only: MLflow's own migration cannot run twice at once."""
    if not uri.startswith("sqlite:///"):
        yield
        return
    path = Path(uri.removeprefix("sqlite:///"))
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        fresh = not path.exists()
        yield
        if fresh:
            # Readers and writers then do not block each other (local disks only, which SQLite needs anyway).
            with closing(sqlite3.connect(path)) as connection:
                connection.execute("PRAGMA journal_mode=WAL")


def _root(root: Path) -> Path:
    """Where the store belongs: DVC runs experiments in a copy that it deletes, and tells where the original is."""
    return Path(os.environ.get("DVC_ROOT") or root).resolve()


def _now() -> int:
    return int(time.time() * 1000)


def _public_version() -> str:
    import torch

    return str(torch.__version__).split("+")[0]


def _without_password(uri: str) -> str:
    scheme, separator, rest = uri.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200]
