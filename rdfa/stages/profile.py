"""`rdfa profile RUN`: what a run's detector costs, counted, and on request measured."""

import statistics
import time

import torch

from rdfa.models.cost import Cost, activation_bytes, costs, parts
from rdfa.models.detector import build
from rdfa.models.pyramid import pyramid_points
from rdfa.ops.selective_scan import describe
from rdfa.schema import Run
from rdfa.training.devices import choose_device, peak_memory, set_arithmetic
from rdfa.training.losses import Normalizer, detection_losses
from rdfa.training.schedule import optimizer
from rdfa.training.targets import assign

_STEPS = 5
_GIB = 2**30
_NOTE = """\
Columns: G MACs of one forward pass; a MAC is two operations.
products: convolutions and matrix products.
scans: half of 9 B D N T + 2 B D T operations each; of which read-out: sum_n C h, which some counters see as a product.
Not counted: normalisations, activations, pooling and other element-wise work.
"""


def profile_stage(run: Run, measure: bool) -> str:
    """A table of parameters and multiply-accumulates per part, and of memory and time per training step."""
    steps, batch = run.windows.max_length, run.training.batch_size
    found = costs(run)
    seen = (found[""].products + found[""].readout) / 1e9
    rows = [_row(name, cost) for name, cost in parts(found).items()]
    lines = [
        f"{'part':<34}{'parameters':>12}{'products':>10}{'scans':>8}{'read-out':>10}{'all':>9}",
        *rows,
        _row("all", found[""]),
        "",
        f"One window, {steps} x {run.features.dimension}. {_NOTE}",
        f"products and read-out together, as counted on the official code: {seen:.2f}",
        f"activations kept for the backward pass, batch {batch}: {activation_bytes(run, batch) / _GIB:.2f} GiB",
    ]
    if measure:
        lines += _measured(run)
    return "\n".join(lines) + "\n"


def _row(name: str, cost: Cost) -> str:
    indented = f"  {name}" if ".dual." in name else name
    giga = (f"{value / 1e9:.2f}" for value in (cost.products, cost.scans, cost.readout, cost.macs))
    products, scans, readout, macs = giga
    return f"{indented:<34}{cost.parameters:>12,}{products:>10}{scans:>8}{readout:>10}{macs:>9}"


def _measured(run: Run) -> list[str]:
    """Time of training steps on random windows, and the peak of memory."""
    set_arithmetic(run)
    device = choose_device(run)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = _seconds_per_step(run, device)
    if device.type == "cuda":
        what, where = "allocated on the GPU", torch.cuda.get_device_name()
    else:
        what, where = "resident, the whole process", f"CPU, {torch.get_num_threads()} threads"
    spread = f"{min(seconds):.3f} to {max(seconds):.3f}"
    backend = describe(device.type).backend
    return [
        f"training step, batch {run.training.batch_size}, float32, {where}, scan backend {backend}: "
        f"median {statistics.median(seconds):.3f} s of {_STEPS} ({spread})",
        f"peak memory {what}: {peak_memory(device) / _GIB:.2f} GiB",
    ]


def _seconds_per_step(run: Run, device: torch.device) -> list[float]:
    """Wall seconds of single training steps (forward, loss, backward, optimiser), after one to warm up."""
    steps, batch = run.windows.max_length, run.training.batch_size
    model = build(run).to(device).train()
    adam, normalizer = optimizer(model, run.training), Normalizer(run.training.loss)
    points = torch.cat(pyramid_points(steps, run.model.regression_ranges))
    segments = torch.tensor([[start, start + steps / 16] for start in range(0, steps, max(1, steps // 8))])
    labels = torch.arange(len(segments)) % run.head_classes
    one = assign(points, segments, labels, run.head_classes, run.training.center_radius)
    classes, offsets = (target.expand(batch, *target.shape).to(device) for target in one)
    features = torch.randn(batch, run.features.dimension, steps, device=device)
    mask = torch.ones(batch, steps, dtype=torch.bool, device=device)
    seconds = []
    for _ in range(1 + _STEPS):
        before = time.perf_counter()
        losses = detection_losses(model(features, mask), classes, offsets, normalizer, run.training.loss)
        adam.zero_grad(set_to_none=True)
        losses.total.backward()  # type: ignore[no-untyped-call]
        adam.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - before)
    return seconds[1:]
