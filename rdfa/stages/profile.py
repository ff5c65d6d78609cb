"""`rdfa profile RUN`: what a run's detector costs, counted, and on request measured."""

import statistics
import time

import torch

from rdfa.data.windows import Grid, Window, collate
from rdfa.models.cost import Cost, activation_bytes, costs, parts
from rdfa.models.detector import build
from rdfa.ops.selective_scan import describe
from rdfa.schema import ProposalModel, Run
from rdfa.training.criterion import criterion
from rdfa.training.devices import choose_device, peak_memory, set_arithmetic
from rdfa.training.schedule import optimizer

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
    if isinstance(run.model, ProposalModel) and run.model.refine is not None and run.model.refine.iterations:
        each = found["refinement.block"].macs / run.model.refine.iterations / 1e9
        lines.append(f"one of the {run.model.refine.iterations} refinements: {each:.3f}")
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
    adam, losses_of = optimizer(model, run.training), criterion(run)
    segments = torch.tensor([[start, start + steps / 16] for start in range(0, steps, max(1, steps // 8))])
    window = Window(
        video="random",
        features=torch.randn(run.features.dimension, steps),
        segments=segments,
        labels=torch.arange(len(segments)) % run.head_classes,
        grid=Grid(stride=1.0, window=1.0, fps=1.0),
        duration=float(steps),
    )
    example = collate([window] * batch, run)
    features, mask = example.features.to(device), example.mask.to(device)
    seconds = []
    for _ in range(1 + _STEPS):
        before = time.perf_counter()
        losses = losses_of(model(features, mask), example, list)
        adam.zero_grad(set_to_none=True)
        losses.total.backward()  # type: ignore[no-untyped-call]
        adam.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - before)
    return seconds[1:]
