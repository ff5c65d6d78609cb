"""`rdfa train`: train a run's detector, or go on with an interrupted training."""

import csv
import io
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

from filelock import Timeout
from torch import nn

from rdfa.data.sources.own_digest import refuse_changed
from rdfa.data.windows import TrainingWindows
from rdfa.errors import RdfaError
from rdfa.evaluation.average_precision import mean_average_precision
from rdfa.evaluation.detect import detect
from rdfa.evaluation.judgement import as_judged
from rdfa.identity import HISTORY, LOG, PARAMS_YAML, RUN_JSON, Paths, keys, paths, run_name
from rdfa.interruptions import uninterrupted
from rdfa.locks import lock_file
from rdfa.models.detector import build, count_parameters
from rdfa.params import Composed, flatten
from rdfa.schema import Run
from rdfa.stages.logged import import_run, log_model
from rdfa.stages.opened import Data, data_digest, ground_truth, open_data, read_manifest, refuse_other_data
from rdfa.stages.tags import tags
from rdfa.stages.written import write_run
from rdfa.tracking import Store, tolerated
from rdfa.training.devices import choose_device, peak_memory
from rdfa.training.loop import History, Trained, train
from rdfa.training.processes import joined


def train_stage(composed: Composed, root: Path, tracked: bool = True) -> Path:
    """Train a run, going on where an interrupted call stopped; returns the run's folder.

    Under torchrun each of its processes calls this; the first one alone holds the lock, logs and writes.

    If another process trains this run, waits for its end. (Among several processes it is refused: the others of
    torchrun could not tell waiting from hanging.)

    Raises:
        RdfaError: the data is not fetched, the MLflow store cannot be reached, or training failed for a reason that
            the message names.
    """
    run = composed.run
    where = paths(run, root)
    refuse_changed(run.dataset, run.source.own, where.data)  # also where a run of the old files is there
    with joined(run) as processes, ExitStack() as held:
        if processes.any((where.folder / RUN_JSON).exists()):
            if where.manifest.exists():  # results may have come without their data
                refuse_other_data(run, where, read_manifest(run, where))
            if processes.first:
                if tracked:
                    with tolerated():
                        _finish_tracking(Store(root), run, where, root)
                _remove_progress(where)
            return where.folder
        with processes.together():
            data = open_data(run, where)
            videos = data.annotations.subset(run.train_subset).videos
            windows = TrainingWindows(run, videos, data.annotations.classes, data.store)
            store, run_id = None, None
            if processes.first:
                held.enter_context(_only_trainer(where.state, wait=processes.count == 1))
                if processes.count == 1 and (where.folder / RUN_JSON).exists():  # by the one who was waited for
                    return where.folder
                store = Store(root) if tracked else None
                held.enter_context(_log_file(where.state.with_suffix(".log")))
                run_id = held.enter_context(_tracked(store, run, where, data))
        trained = train(
            run,
            windows,
            where.state,
            processes,
            on_epoch=partial(_track_epoch, store, run_id),
            test_map=_test_map(run, where, data) if run.training.test_looks_from is not None else None,
        )
        with processes.together():
            if processes.first:
                _write_run(composed, where, data, trained, processes.count)
                if store and run_id:
                    with tolerated():
                        _track_model(store, run_id, run, where)
                _remove_progress(where)
    return where.folder


def _remove_progress(where: Paths) -> None:
    """Remove what only an unfinished training needs."""
    where.state.unlink(missing_ok=True)
    where.state.with_suffix(".log").unlink(missing_ok=True)


@contextmanager
def _tracked(store: Store | None, run: Run, where: Paths, data: Data) -> Iterator[str | None]:
    """An MLflow run for this training, if there is a store; how the training ends becomes its status."""
    if store is None:
        yield None
        return
    run_id, status = None, "FAILED"
    try:
        run_id = _start_tracking(store, run, where, data)
        yield run_id
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        with tolerated():
            begun = run_id or store.unfinished(keys(run).train)
            if begun:
                store.end(begun, status)


def _finish_tracking(store: Store, run: Run, where: Paths, root: Path) -> None:
    """Complete the MLflow run of a training that was killed when its folder was whole."""
    if store.find(keys(run).train) is None and store.unfinished(keys(run).train) is not None:
        import_run(store, where.folder, root)


def _track_epoch(store: Store | None, run_id: str | None, row: dict[str, float]) -> None:
    if store and run_id:
        with tolerated():
            store.log_epoch(run_id, row)


def _test_map(run: Run, where: Paths, data: Data) -> Callable[[nn.Module], float]:
    """What `rdfa evaluate` would say of a detector, its average mAP (for `training.test_looks_from`)."""
    truth, videos = ground_truth(run, where), data.annotations.subset(run.test_subset).videos

    def test_map(model: nn.Module) -> float:
        device = next(model.parameters()).device
        found = detect(run, model, videos, data.annotations.classes, data.store, data.scores, device)
        judged = as_judged(truth, found, run.evaluation)
        return mean_average_precision(*judged, run.evaluation.tious, run.evaluation.protocol).average

    return test_map


def _write_run(composed: Composed, where: Paths, data: Data, trained: Trained, processes: int) -> None:
    run, log = composed.run, where.state.with_suffix(".log")
    weights = {f"plain.{name}": value for name, value in trained.plain.items()}
    weights |= {f"averaged.{name}": value for name, value in trained.averaged.items()}
    weights |= {f"best_test.{name}": value for name, value in trained.best_test.items()}
    record = {
        "data_digest": data_digest(data.manifest),
        "parameters": count_parameters(build(run)),
        "epoch": len(trained.history),
        "test_looks": _test_looks(trained.history),
        "steps": int(trained.history[-1]["step"]),
        "seconds": round(trained.seconds, 1),
        "cpu_seconds": round(trained.cpu_seconds, 1),
        "peak_memory_mib": round(peak_memory(choose_device(run)) / 2**20),
        "device": str(choose_device(run)),
        "threads": run.runtime.threads,
        "processes": processes,
    }
    logged = log.read_text(encoding="utf-8") if log.exists() else ""
    history, classes = _history_csv(trained.history), data.annotations.classes
    write_run(composed, where.folder, weights, history, logged, classes, record)


def _test_looks(history: History) -> dict[str, float] | None:
    """How often the test split was looked at in training, and the first of the best looks."""
    looks = [row for row in history if "test_mAP" in row]
    if not looks:
        return None
    best = max(looks, key=lambda row: row["test_mAP"])
    return {"looks": len(looks), "best_epoch": int(best["epoch"]), "best_mAP": best["test_mAP"]}


def _history_csv(history: History) -> str:
    text = io.StringIO()
    columns = list(dict.fromkeys(name for row in history for name in row))
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: f"{value:.10g}" for name, value in row.items()} for row in history)
    return text.getvalue()


def _start_tracking(store: Store, run: Run, where: Paths, data: Data) -> str:
    digest = data_digest(data.manifest)
    with uninterrupted(), store.needed():
        run_id = store.start(run_name(run), keys(run).train, flatten(run), tags(run, digest))
        store.log_dataset(run_id, where.data, where.data.name, digest, "training")
    return run_id


def _track_model(store: Store, run_id: str, run: Run, where: Paths) -> None:
    files = [where.folder / name for name in (PARAMS_YAML, HISTORY, LOG, RUN_JSON)]
    store.log_results(run_id, {"parameters": count_parameters(build(run))}, files)
    log_model(store, run_id, run, where.folder)


@contextmanager
def _only_trainer(state: Path, wait: bool) -> Iterator[None]:
    """Hold the run's lock; the system releases it when the process ends, however it ends."""
    lock = lock_file(state.with_suffix(".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        other = f"another process is training {state.stem} (it holds {lock.lock_file})"
        if not wait:
            raise RdfaError(other) from error
        print(f"{other}; waiting for its end", file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


class _Log(logging.FileHandler):
    """A log that a full disk cuts short in silence: what fails beside it, results or progress, says so."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 -- logging's name
        pass

    def close(self) -> None:
        with suppress(OSError):
            super().close()


@contextmanager
def _log_file(path: Path) -> Iterator[None]:
    """Append what rdfa logs to a file that survives an interruption."""
    handler = _Log(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    root = logging.getLogger("rdfa")
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()
