"""One training on several processes: what `torchrun` started, and how the processes stay in step.

Each process computes its share of every batch. Small facts (counts, losses, signals, errors) travel over gloo on the
CPU, gradients over NCCL between GPUs. The processes always agree before one of them leaves the training.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from rdfa.errors import RdfaError
from rdfa.schema import Run

T = TypeVar("T")

PATIENCE = timedelta(hours=12)
"""How long processes wait for each other. The first one evaluates alone (`training.test_looks_from`) while others wait;
torchrun ends them all when one dies."""


@dataclass(frozen=True)
class Processes:
    """The processes of a training; one alone exchanges nothing."""

    rank: int
    count: int

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and logs."""
        return self.rank == 0

    def share(self, batch: Sequence[T]) -> list[T]:
        """This process's part of a batch: the rank-th of `count` equal runs of neighbours.

        Raises:
            RdfaError: the batch cannot be divided evenly.
        """
        if len(batch) % self.count:
            raise RdfaError(
                f"a batch of {len(batch)} videos cannot be shared evenly by {self.count} processes; "
                "choose a number of processes (runtime.gpus) that divides training.batch_size"
            )
        size = len(batch) // self.count
        return list(batch[self.rank * size : (self.rank + 1) * size])

    def wrapped(self, model: nn.Module, all_learn: bool) -> nn.Module:
        """The model with gradients averaged over the processes at the end of each backward pass.

        Args:
            all_learn: whether every weight gets a gradient; else those that do are looked for in each step.
        """
        if self.count == 1:
            return model
        device = next(model.parameters()).device
        devices = [device] if device.type == "cuda" else None
        return DistributedDataParallel(model, device_ids=devices, find_unused_parameters=not all_learn)

    def sum(self, values: Sequence[float]) -> list[float]:
        """Element-wise sum over the processes, in float64.

        Raises:
            RdfaError: another process ended.
        """
        if self.count == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64)
        with self.exchange():
            dist.all_reduce(total)
        return list(total.tolist())

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in one of the processes."""
        return self.sum([float(flag)])[0] > 0

    @contextmanager
    def together(self) -> Iterator[None]:
        """A part in which processes do different things: an error in one of them becomes an error of all."""
        if self.count == 1:
            yield
            return
        raised: Exception | None = None
        try:
            yield
        except Exception as error:
            raised = error
        if self.any(raised is not None):
            said = self.gathered([] if raised is None else [str(raised) or type(raised).__name__])
            if raised is not None and not isinstance(raised, RdfaError):
                raise raised
            raise RdfaError(said[0]) from raised

    def gathered(self, words: list[str]) -> list[str]:
        """The words of all processes, those of the first process first."""
        if self.count == 1:
            return words
        everywhere: list[list[str]] = [[]] * self.count
        with self.exchange():
            dist.all_gather_object(everywhere, words)
        return [word for part in everywhere for word in part]

    @contextmanager
    def exchange(self) -> Iterator[None]:
        """A part that talks to the other processes.

        Raises:
            RdfaError: one of them has died, in one line instead of gloo's or NCCL's many.
        """
        try:
            yield
        except RuntimeError as error:
            if not isinstance(error, dist.DistError) and "gloo" not in str(error):
                raise
            raise RdfaError(
                f"process {self.rank} of {self.count} lost another process of this training; "
                "what ended that one stands above, if it could still say it"
            ) from error


ALONE = Processes(0, 1)
"""A training in one process."""


@contextmanager
def joined(run: Run) -> Iterator[Processes]:
    """The processes that torchrun started for this training; without torchrun, this one.

    Raises:
        RdfaError: more processes on this machine than GPUs.
    """
    if not dist.is_torchelastic_launched():
        yield ALONE
        return
    cuda = run.runtime.device != "cpu" and torch.cuda.is_available()
    if cuda:
        local, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local >= gpus:
            raise RdfaError(f"torchrun started {local + 1} or more processes here, but torch sees {gpus} GPUs")
        torch.cuda.set_device(local)
    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=PATIENCE)
    try:
        yield Processes(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()
