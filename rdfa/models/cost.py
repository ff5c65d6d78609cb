"""What a detector costs: parameters, multiply-accumulates with every matrix product and scan, activation memory.

Nothing is computed: the detector runs on shapes alone, while PyTorch's counter sees each convolution and each matrix
product that it performs, wherever it stands, and the selective scan is counted by a formula.

Conventions. One multiply-accumulate (MAC) is two floating-point operations. A scan of B videos, D channels, N states
and T steps is 9 B D N T + 2 B D T operations (Mamba's own convention, with the skip connection and the gate), each
iteration of a recurrence counted anew. B D N T of its multiply-accumulates are the read-out sum_n C_t[n] h_t[n]; a
counter that sees it as a matrix product reports it there, so that figures "without the scan" differ by it. Not counted:
normalisations, activations, pooling and other element-wise work.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from rdfa.models.detector import network
from rdfa.ops.selective_scan import use_backend
from rdfa.schema import Model, Run

_SCAN = torch.ops.rdfa.selective_scan
_PARTS = re.compile(
    r"backbone\.embedding|backbone\.stem\.\d+\.dual\.(temporal|channel)|backbone\.(stem|branch)\.\d+"
    r"|neck|class_head|offset_head"
    r"|base|boundaries|proposals|confidence|refinement"
)


@dataclass(frozen=True, kw_only=True)
class Cost:
    """The cost of a module and everything in it, for one batch."""

    parameters: int
    products: int
    """MACs of convolutions and matrix products."""
    scans: int
    """Half the operations of the scans, so that they add up with `products`."""
    readout: int
    """The part of `scans` that is sum_n C h."""

    @property
    def macs(self) -> int:
        """All multiply-accumulates."""
        return self.products + self.scans


def costs(run: Run, batch: int = 1, steps: int | None = None) -> dict[str, Cost]:
    """Cost of every module of a run's detector in one forward pass.

    Args:
        batch: B, videos.
        steps: T, feature vectors per video; the training window if not given.

    Returns:
        By module name, as in `named_modules`; the whole detector under the empty name.
    """
    steps = steps or run.windows.max_length
    with FakeTensorMode(), use_backend("chunked"), torch.no_grad():
        model = _model(run)
        counted, read_out = _counter(_operations), _counter(_readout)
        for counter in (counted, read_out):
            with counter:
                model(*_inputs(run, batch, steps))
        parameters = {name: sum(p.numel() for p in module.parameters()) for name, module in model.named_modules()}
    by_module, readouts = counted.get_flop_counts(), read_out.get_flop_counts()

    def cost(name: str) -> Cost:
        whole = type(model).__name__
        label = f"{whole}.{name}" if name else whole
        found: Mapping[Any, int] = by_module.get(label, {})
        return Cost(
            parameters=parameters[name],
            products=sum(flops for operation, flops in found.items() if operation != _SCAN) // 2,
            scans=found.get(_SCAN, 0) // 2,
            readout=readouts.get(label, {}).get(_SCAN, 0),
        )

    return {name: cost(name) for name in parameters}


def parts(found: Mapping[str, Cost]) -> dict[str, Cost]:
    """The detector's parts in order, from `costs`; a stem is followed by the two paths in it."""
    return {name: cost for name, cost in found.items() if _PARTS.fullmatch(name)}


def activation_bytes(run: Run, batch: int, steps: int | None = None) -> int:
    """Memory that a training step keeps between forward and backward, without parameters, with this machine's backend.

    What the backward itself allocates, the loss and the optimiser come on top.
    """
    steps = steps or run.windows.max_length
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept.setdefault(tensor.untyped_storage()._cdata, tensor)
        return tensor

    with FakeTensorMode():
        model = _model(run).train()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            predictions = model(*_inputs(run, batch, steps))
        own = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
        sizes = [tensor.untyped_storage().nbytes() for storage, tensor in kept.items() if storage not in own]
        del predictions
    return sum(sizes)


def _model(run: Run) -> nn.Module:
    # Masked padding changes no product, but looks at the lengths of the videos, which shapes alone do not have.
    if isinstance(run.model, Model):
        run = run.model_copy(update={"model": run.model.model_copy(update={"padding": "leaky"})})
    return network(run).eval()


def _inputs(run: Run, batch: int, steps: int) -> tuple[Tensor, Tensor]:
    return torch.empty(batch, run.features.dimension, steps), torch.ones(batch, steps, dtype=torch.bool)


def _counter(formula: Any) -> FlopCounterMode:
    return FlopCounterMode(display=False, custom_mapping={_SCAN: formula})


def _operations(u: torch.Size, delta: torch.Size, A: torch.Size, *_: Any, **__: Any) -> int:
    batch, channels, steps = u
    return 9 * batch * channels * steps * A[1] + 2 * batch * channels * steps


def _readout(u: torch.Size, delta: torch.Size, A: torch.Size, *_: Any, **__: Any) -> int:
    batch, channels, steps = u
    return batch * channels * steps * A[1]
