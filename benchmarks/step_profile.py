"""Where the time of one training step goes: a profile whose every microsecond belongs to a part and a kind of work.

What is added up are the self times of all profiled events, so that the shares sum to the step. A backward operation
belongs to the module whose forward operation made its autograd node; what a module computes again during the backward
pass (checkpointing) is its recomputation.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from torch import nn
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile, record_function

STEP, MODULE, NODE = "training step", "module: ", "autograd::engine::evaluate_function: "
PHASES = ("forward", "recomputation", "backward", "outside")
"""`outside` is what is neither: targets, gradient clipping, optimiser, weight average."""

PARTS = {  # by the prefix of a module's name, the longest that fits
    "backbone.embedding": "embedding",
    "backbone.stem.0": "stem, around the blocks",
    "backbone.stem.0.dual.temporal": "stem, temporal",
    "backbone.stem.0.dual.channel": "stem, channel",
    **{f"backbone.branch.{index}": f"branch, level {index + 1}" for index in range(9)},
    "neck": "neck",
    "class_head": "class head",
    "offset_head": "offset head",
    "": "between modules",
}
OUTSIDE = ("targets, before the model", "losses", "gradients put in place", "clipping, weight average", "optimiser")
_OPERATIONS = {
    "matrix products": ("mm", "addmm", "bmm", "baddbmm", "addmv", "mkldnn_linear", "_addmm_activation"),
    "copies": ("copy_", "clone", "cat", "stack", "flip", "fill_", "zero_", "index", "index_put_", "_index_put_impl_"),
    "normalisation": ("native_layer_norm", "native_layer_norm_backward"),
}
KINDS = (
    *("matrix products", "dense convolution", "scan", "depthwise convolution"),
    *("copies", "casts", "elementwise, reductions", "normalisation", "Python and dispatch"),
)
ARITHMETIC = ("matrix products", "dense convolution", "scan")


class Share(NamedTuple):
    """Milliseconds of one operation in one place of the step."""

    part: str
    inside: str
    """The submodule of a part, as `in_proj`; empty outside every one."""
    phase: str
    kind: str
    operation: str
    shapes: str
    """Of the operation's tensors."""
    milliseconds: float


def split(model: nn.Module, step: Callable[[], object]) -> tuple[float, list[Share]]:
    """Profile one call of `step`, which trains `model`: its milliseconds of wall time, and all shares of it."""
    _watch(model)
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiler, record_function(STEP):
        step()
    events = sorted((e for e in profiler.events() if _outermost(e).name == STEP), key=lambda e: e.time_range.start)
    makers = _makers(events)
    model_starts = next(e.time_range.start for e in events if e.name == MODULE)
    nodes = [e for e in events if e.name.startswith(NODE)]
    backward = nodes[0].time_range.start, max(e.time_range.end for e in nodes)
    summed: dict[tuple[str, ...], float] = defaultdict(float)
    for event in events:
        place = _place(event, makers) or _outside(event, model_starts, *backward)
        summed[*place, kind(event), event.name, _shapes(event)] += event.self_cpu_time_total / 1e3
    whole = next(e for e in events if e.name == STEP)
    return whole.time_range.elapsed_us() / 1e3, [Share(*key, value) for key, value in summed.items()]


def _watch(model: nn.Module) -> None:
    """Mark every module's forward pass in the profile."""
    for name, module in model.named_modules():
        scopes: list[record_function] = []

        def enter(module: nn.Module, inputs: Any, name: str = name, scopes: list[record_function] = scopes) -> None:
            scopes.append(record_function(MODULE + name))
            scopes[-1].__enter__()

        def leave(module: nn.Module, inputs: Any, output: Any, scopes: list[record_function] = scopes) -> None:
            scopes.pop().__exit__(None, None, None)

        module.register_forward_pre_hook(enter)
        module.register_forward_hook(leave, always_call=True)  # a recomputation ends early, by an exception


def _line(event: FunctionEvent) -> Iterator[FunctionEvent]:
    """An event and what it runs in, from the inside out."""
    current: FunctionEvent | None = event
    while current is not None:
        yield current
        current = current.cpu_parent


def _outermost(event: FunctionEvent) -> FunctionEvent:
    *_, last = _line(event)
    return last


def _makers(events: list[FunctionEvent]) -> dict[int, FunctionEvent]:
    """By an autograd node's number, the forward operation that made it: the last to start under that number."""
    found = {}
    for event in events:
        number = event.sequence_nr
        if number >= 0 and not any(e.name.startswith(NODE) and e.sequence_nr == number for e in _line(event)):
            found[number] = event
    return found


def _place(event: FunctionEvent, makers: dict[int, FunctionEvent]) -> tuple[str, str, str] | None:
    """Part, submodule and phase of an event; None outside model and autograd nodes."""
    for outer in _line(event):
        if outer.name.startswith(MODULE):
            again = any(e.name.startswith(NODE) for e in _line(outer))
            return *_named(outer.name), "recomputation" if again else "forward"
        if outer.name.startswith(NODE):
            maker = makers.get(outer.sequence_nr)
            if maker is None:
                return "gradients put in place", "", "backward"
            scope = next((e for e in _line(maker) if e.name.startswith(MODULE)), None)
            return (*_named(scope.name), "backward") if scope else ("losses", "", "backward")
    return None


def _named(scope: str) -> tuple[str, str]:
    """The part to which a module belongs, and its name in it."""
    module = scope.removeprefix(MODULE)
    prefix = max((p for p in PARTS if not p or module == p or module.startswith(f"{p}.")), key=len)
    return PARTS[prefix], module.removeprefix(prefix).strip(".") if prefix else ""


def _outside(event: FunctionEvent, model: float, backward: float, backward_ends: float) -> tuple[str, str, str]:
    """By time: the parts of a step around the model and the autograd nodes."""
    start = event.time_range.start
    if event.name == STEP:
        return "between modules", "", "outside"
    if any(e.name.startswith("Optimizer.step") for e in _line(event)):
        return "optimiser", "", "outside"
    if start < model:
        return "targets, before the model", "", "outside"
    if start < backward:
        return "losses", "", "forward"
    return ("between modules", "", "backward") if start < backward_ends else ("clipping, weight average", "", "outside")


def kind(event: FunctionEvent) -> str:
    """The kind of work that an event itself does, one of `KINDS`."""
    operation = event.name.removeprefix("aten::")
    # rdfa's autograd functions, forward and backward; in a compiled model its operators.
    if operation.startswith("SelectiveScan") or "selective_scan" in operation:
        return "scan"
    if operation.startswith("CausalMaps") or "causal_maps" in operation:
        return "depthwise convolution"
    if not event.name.startswith("aten::"):
        return "Python and dispatch"
    if "conv" in operation:
        weight = event.input_shapes[2 if "backward" in operation else 1] if event.input_shapes else []
        return "depthwise convolution" if len(weight) > 2 and weight[1] == 1 else "dense convolution"
    found = next((name for name, operations in _OPERATIONS.items() if operation in operations), None)
    if found == "copies" and any(e.name == "aten::_to_copy" for e in _line(event)):
        return "casts"
    return found or "elementwise, reductions"


def _shapes(event: FunctionEvent) -> str:
    return " ".join("x".join(map(str, shape)) for shape in event.input_shapes[:3] if shape)
