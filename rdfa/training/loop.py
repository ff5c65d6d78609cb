"""The training loop: resumable at any step, repeatable to the bit, and silent unless someone watches.

Every random number is a function of seed, epoch and step, so that a run that was interrupted and resumed ends with
the same weights as one that was not.
"""

import logging
import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from rdfa.data.windows import Batch, EpochSampler, TrainingWindows, collate
from rdfa.errors import RdfaError
from rdfa.models.detector import build, take_share
from rdfa.schema import Run
from rdfa.training.averaging import AveragedWeights
from rdfa.training.checkpoint import State, load_state, save_state
from rdfa.training.criterion import criterion
from rdfa.training.devices import choose_device, compiled, set_arithmetic
from rdfa.training.processes import ALONE, Processes
from rdfa.training.schedule import learning_rate, optimizer

logger = logging.getLogger(__name__)

SAVE_EVERY_SECONDS = 600.0
"""A long epoch is saved in between, so that a crash costs at most this much."""

History = list[dict[str, float]]
"""One row per epoch: epoch, step, loss and its terms by name, positives, learning_rate; test_mAP after a look."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What training leaves."""

    plain: dict[str, Tensor]
    averaged: dict[str, Tensor]
    best_test: dict[str, Tensor]
    """Averaged weights of the best look at the test split; empty if there was none."""
    history: History
    seconds: float
    """Wall time, over all parts of an interrupted run."""
    cpu_seconds: float
    """The same of the first process's CPU time, which other work on the machine disturbs less."""


def train(
    run: Run,
    windows: TrainingWindows,
    state_path: Path,
    processes: Processes = ALONE,
    on_epoch: Callable[[dict[str, float]], None] = lambda row: None,
    test_map: Callable[[nn.Module], float] | None = None,
) -> Trained:
    """Train a run's detector, going on from `state_path` if an earlier call was interrupted.

    Args:
        state_path: where progress is kept; the caller removes it once the result is safe.
        processes: those that share the training; all call this. Only the first one writes, and its result counts.
        on_epoch: called with each finished epoch's row of the history, the earlier ones of a resumed run included.
        test_map: average mAP of a detector on the test split, for `training.test_looks_from`.

    `on_epoch` and `test_map` are called in the first process only.

    Raises:
        RdfaError: the loss became NaN or infinite (names step and videos), or the saved state is damaged.
        KeyboardInterrupt: SIGINT or SIGTERM came; the state was saved first.
    """
    with processes.together():
        loop = _Loop(run, windows, state_path, processes, on_epoch, test_map)
    return loop.run_all()


class _Loop:
    def __init__(
        self,
        run: Run,
        windows: TrainingWindows,
        state_path: Path,
        processes: Processes,
        on_epoch: Callable[[dict[str, float]], None],
        test_map: Callable[[nn.Module], float] | None,
    ) -> None:
        set_arithmetic(run, tfloat32=run.training.precision == "tfloat32")
        self.run, self.windows, self.state_path, self.processes = run, windows, state_path, processes
        self.on_epoch, self.test_map = on_epoch, test_map
        self.device = choose_device(run)
        self.model = build(run).to(self.device)
        take_share(self.model, processes.rank, processes.count)
        self.optimizer = optimizer(self.model, run.training)
        self.criterion = criterion(run)
        precision, cuda = run.training.precision, self.device.type == "cuda"
        if precision == "float16" and not cuda:
            raise RdfaError("training.precision 'float16' needs CUDA; on a CPU use 'float32' or 'bfloat16'")
        half = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(precision)
        self.autocast = partial(torch.autocast, self.device.type, half, enabled=half is not None)
        self.scaler = torch.amp.GradScaler("cuda", enabled=precision == "float16")
        average = AveragedWeights(self.model, run.training.average)
        self.state = State(self.model, self.optimizer, average, _fresh_counters(), {})
        sampler = EpochSampler(run, len(windows), 0)
        self.steps_per_epoch = len(sampler)
        processes.share(range(sampler.batch))  # refuses a batch that cannot be shared

    def run_all(self) -> Trained:
        with self.processes.together():
            counters = self._resume()
        with self.processes.exchange():
            self.forward = self.processes.wrapped(self.model, all_learn=self.run.model.all_learn)
        if self.run.training.compile:
            self.forward = compiled(self.forward)
        self.saved = time.monotonic()
        self.started = {name: counters[name] - clock() for name, clock in _CLOCKS.items()}
        total = self.run.training.epochs * self.steps_per_epoch
        silent = None if self.processes.first else True
        bar = tqdm(total=total, initial=counters["step"], disable=silent, unit="step", dynamic_ncols=True)
        with bar, _stops_gently(at_once_if_repeated=self.processes.count == 1) as stopped:
            for epoch in range(counters["step"] // self.steps_per_epoch, self.run.training.epochs):
                self._epoch(epoch, bar, stopped)
        plain = {name: value.detach().cpu() for name, value in self.model.state_dict().items()}
        averaged = {name: value.detach().cpu() for name, value in self.state.average.weights.items()}
        return Trained(
            plain=plain,
            averaged=averaged,
            best_test=self.state.best,
            history=self.state.counters["history"],
            **self._times(),
        )

    def _resume(self) -> dict[str, Any]:
        if load_state(self.state_path, self.state):
            logger.info("resumed from %s at step %d", self.state_path, self.state.counters["step"])
            self.criterion.carried = self.state.counters["carried"]
            self.scaler.load_state_dict(self.state.counters["scaler"])
        if self.processes.first:
            for row in self.state.counters["history"]:
                self.on_epoch(row)
        return self.state.counters

    def _epoch(self, epoch: int, bar: Any, stopped: list[int]) -> None:
        counters = self.state.counters
        earlier = counters["step"] - epoch * self.steps_per_epoch
        self.model.train()
        batches = iter(self._batches(epoch, skip=earlier))
        for done in range(earlier + 1, self.steps_per_epoch + 1):
            with self.processes.together():
                batch = next(batches)
            with self.processes.exchange():
                rate, values = self._step(counters["step"], batch)
            counters["step"] += 1
            for name, value in values.items():
                counters["sums"][name] = counters["sums"].get(name, 0.0) + value
            bar.update()
            mean = counters["sums"]["loss"] / done
            bar.set_postfix_str(f"epoch {epoch + 1}/{self.run.training.epochs} loss {mean:.3f}")
            stop = self.processes.any(bool(stopped))
            with self.processes.together():
                if done == self.steps_per_epoch:
                    self._finish_epoch(epoch, rate)
                elif stop or time.monotonic() - self.saved > SAVE_EVERY_SECONDS:
                    self._save()
            if stop:
                raise KeyboardInterrupt

    def _finish_epoch(self, epoch: int, rate: float) -> None:
        counters = self.state.counters
        row = {"epoch": float(epoch + 1), "step": float(counters["step"])}
        row |= {name: value / self.steps_per_epoch for name, value in counters["sums"].items()}
        row["learning_rate"] = rate
        first_look = self.run.training.test_looks_from
        if self.processes.first and self.test_map is not None and first_look is not None and epoch + 1 >= first_look:
            row["test_mAP"] = self._look(self.test_map)
        counters["sums"] = {}
        counters["history"].append(row)
        logger.info("  ".join(f"{name} {value:.6g}" for name, value in row.items()))
        self._save()
        if self.processes.first:
            self.on_epoch(row)

    def _look(self, test_map: Callable[[nn.Module], float]) -> float:
        """Average mAP on the test split of the averaged weights; keeps a copy of them if they are the best so far."""
        weights = self.state.average.weights
        candidate = build(self.run).to(self.device).eval()
        candidate.load_state_dict(weights)
        score = test_map(candidate)
        if score > max((row.get("test_mAP", -1.0) for row in self.state.counters["history"]), default=-1.0):
            self.state.best = {name: value.detach().cpu().clone() for name, value in weights.items()}
        return score

    def _batches(self, epoch: int, skip: int) -> DataLoader[Batch]:
        batches = list(EpochSampler(self.run, len(self.windows), epoch))[skip:]
        return DataLoader(
            self.windows,  # type: ignore[arg-type]
            batch_sampler=[self.processes.share(batch) for batch in batches],
            collate_fn=partial(collate, run=self.run),
            num_workers=self.run.runtime.workers,
            pin_memory=self.device.type == "cuda",
        )

    def _step(self, step: int, batch: Batch) -> tuple[float, dict[str, float]]:
        """One optimiser step; returns its learning rate, and the losses and positives of the whole batch by name."""
        torch.manual_seed(_step_seed(self.run.seed, step))
        rate = learning_rate(step, self.steps_per_epoch, self.run.training)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with self.autocast():
            output = self.forward(*(part.to(self.device, non_blocking=True) for part in (batch.features, batch.mask)))
        losses = self.criterion(output, batch, self.processes.sum)
        own = {"loss": losses.total} | losses.terms
        values = dict(zip(own, self.processes.sum([value.item() for value in own.values()]), strict=True))
        if not math.isfinite(values["loss"]):
            videos = ", ".join(self.processes.gathered([window.video for window in batch.windows]))
            raise RdfaError(
                f"the loss became {values['loss']} at step {step} on the videos {videos}; "
                "look at their features (`NaN`, huge values) or lower training.learning_rate"
            )
        self.optimizer.zero_grad(set_to_none=True)
        # The processes' gradients are averaged, but the batch's gradient is their sum.
        self.scaler.scale(losses.total * self.processes.count).backward()  # type: ignore[no-untyped-call]
        if self.run.training.gradient_clip:
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.run.training.gradient_clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.state.average.update(self.model)
        return rate, values | {"positives": float(losses.positives)}

    def _times(self) -> dict[str, float]:
        return {name: self.started[name] + clock() for name, clock in _CLOCKS.items()}

    def _save(self) -> None:
        self.saved = time.monotonic()
        if not self.processes.first:
            return
        self.state.counters |= {"carried": self.criterion.carried, "scaler": self.scaler.state_dict()} | self._times()
        save_state(self.state_path, self.state)


_CLOCKS = {"seconds": time.monotonic, "cpu_seconds": time.process_time}


def _fresh_counters() -> dict[str, Any]:
    return {"step": 0, **dict.fromkeys(_CLOCKS, 0.0), "sums": {}, "history": []}


def _step_seed(seed: int, step: int) -> int:
    """A seed for the random numbers of one step, far from those of its neighbours."""
    return (seed * 1_000_003 + step * 7_919 + 12_345) % 2**63


@contextmanager
def _stops_gently(at_once_if_repeated: bool) -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM in a list, so that a step is finished and saved.

    A person's second signal acts at once. Among several processes it does not: a scheduler signals every process, and
    torchrun passes on what it gets; torchrun kills what is too slow.
    """
    received: list[int] = []
    previous: dict[int, Any] = {}

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if not at_once_if_repeated:
            return
        for known, earlier in previous.items():
            signal.signal(known, earlier)

    for wanted in (signal.SIGINT, signal.SIGTERM):
        try:
            previous[wanted] = signal.signal(wanted, note)
        except ValueError:  # not in the main thread: whoever runs us there stops us otherwise
            break
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
